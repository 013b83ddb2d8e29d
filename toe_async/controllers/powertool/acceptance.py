"""Whether a PowerTool may run at all: an ordered list of checks, the first refusal is told. Pure.

A refused PowerTool is not over: it waits, and begins once the cause is gone. While it runs, a refusal holds back what
has not begun; only the withdrawal of a permission (`stops`) also ends what runs.
"""

import math
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal, InvalidOperation

from toe_async.apis.powertool import Output, PowerToolSpec, Tool
from toe_async.apis.powertoolconfig import PowerToolConfigSpec
from toe_async.apis.reasons import Reason
from toe_async.apis.selectors import Selector
from toe_async.capture.refusals import Refused
from toe_async.controllers.powertool.choosing import allowed
from toe_async.controllers.powertool.facts import CANCEL, Observed
from toe_async.lib import cron
from toe_async.lib.durations import format_duration, parse_duration

LONGEST_RUN = timedelta(hours=24)
"""A tool's duration and warm-up, where its configuration names no `maxDuration`."""
MOST_SEGMENTS = 150
"""Of one run with a rolling interval: one run may leave 200 files, and the tool has others."""
_LONGEST_REGEX = 256
_LONGEST_WHY = 200


def refusal_of(seen: Observed) -> Refused | None:
    """Why nothing may begin, or None."""
    return next((found for check in CHECKS if (found := check(seen)) is not None), None)


def stops(seen: Observed) -> Refused | None:
    """Why even what runs has to end: the administrator switched the tool off, or withdrew it from this namespace."""
    if seen.switched_off is not None:
        return Refused(Reason.CANCELLED, seen.switched_off)
    return _allowed(seen)


def cancelled(seen: Observed) -> Refused | None:
    """The run is to end because somebody with a right to change the PowerTool says so."""
    why = " ".join(seen.tool.metadata.annotations.get(CANCEL, "").split())
    if not why:
        return None
    return Refused(Reason.CANCELLED, f"annotation {CANCEL}: {why[:_LONGEST_WHY]}")


def _policy(seen: Observed) -> Refused | None:
    return Refused(Reason.POLICY_MISSING, seen.policy_problem) if seen.policy_problem else None


def _spec(seen: Observed) -> Refused | None:
    fault = next(spec_faults(seen.tool.spec), None)
    if fault is None and seen.zone is None:
        fault = (
            f"spec.timeZone: there is no time zone {seen.tool.spec.time_zone[:60]!r}; write an IANA name such as "
            "Europe/Berlin"
        )
    return Refused(Reason.INVALID_SPEC, fault) if fault else None


def _tool(seen: Observed) -> Refused | None:
    if not seen.known:
        return None
    if seen.config_problem is not None:
        return seen.config_problem
    return Refused(Reason.TOOL_NOT_READY, seen.switched_off) if seen.switched_off else None


def _allowed(seen: Observed) -> Refused | None:
    namespace = seen.tool.metadata.namespace
    if allowed(seen, namespace):
        return None
    return _not_allowed(seen, namespace)


def _not_allowed(seen: Observed, namespace: str) -> Refused:
    globs = seen.config.spec.allowed_namespaces if seen.config else ()
    return Refused(
        Reason.NAMESPACE_NOT_ALLOWED,
        f"tool {seen.tool.spec.tool.name} is not allowed in namespace {namespace}; its PowerToolConfig allows: "
        f"{', '.join(globs[:10])}",
    )


def _limits(seen: Observed) -> Refused | None:
    return too_long(seen.tool.spec.tool, seen.config.spec if seen.config is not None else None) if seen.known else None


def too_long(wanted: Tool, config: PowerToolConfigSpec | None) -> Refused | None:
    """The part of the spec that the tool's configuration bounds."""
    most = parse_duration(config.max_duration) if config is not None and config.max_duration else LONGEST_RUN
    for name, text in (("duration", wanted.duration), ("warmup", wanted.warmup)):
        if text and parse_duration(text) > most:
            return Refused(
                Reason.INVALID_SPEC,
                f"spec.tool.{name}: {text} is longer than the {format_duration(most)} that tool {wanted.name} may take",
            )
    return None


def _grants(seen: Observed) -> Refused | None:
    own = seen.tool.metadata.namespace
    for one in seen.namespaces:
        if one.named and not one.granted:
            return Refused(
                Reason.NAMESPACE_NOT_GRANTED,
                f"namespace {one.name} does not exist or does not let {own} run tools in its pods; its owner can grant "
                f"it: kubectl annotate namespace {one.name} toe.run/powertools-from={own}",
            )
        if one.named and not allowed(seen, one.name):
            return _not_allowed(seen, one.name)
    return None


def _run(seen: Observed) -> Refused | None:
    return seen.refusal


def _sink(seen: Observed) -> Refused | None:
    return seen.sink_problem


CHECKS: tuple[Callable[[Observed], Refused | None], ...] = (
    _policy,
    _spec,
    _tool,
    _allowed,
    _limits,
    _grants,
    _run,
    _sink,
)


def spec_faults(spec: PowerToolSpec) -> Iterator[str]:
    """What cannot be meant, each with the field in front. Most of it is refused at admission already."""
    selector = spec.targets.label_selector
    if not selector.match_labels and not selector.match_expressions:
        yield "spec.targets.labelSelector: an empty selector would choose every pod; name at least one label"
    yield from _caught("spec.targets.labelSelector", lambda: _checked_selector(spec))
    if spec.targets.namespace_selector is not None:
        yield from _regex(spec.targets.namespace_selector.match_regex)
    yield from _duration("spec.tool.duration", spec.tool.duration, timedelta(0))
    if spec.tool.warmup:
        yield from _duration("spec.tool.warmup", spec.tool.warmup)
    if spec.output.rolling_interval:
        yield from _duration("spec.output.rollingInterval", spec.output.rolling_interval, timedelta(0))
        yield from _caught("spec.output.rollingInterval", lambda: _checked_rolling(spec))
    yield from _output(spec.output)
    backoff = spec.failure_policy.backoff
    yield from _duration("spec.failurePolicy.backoff.initial", backoff.initial)
    yield from _duration("spec.failurePolicy.backoff.max", backoff.max)
    yield from _caught("spec.failurePolicy.backoff.multiplier", lambda: multiplier(backoff.multiplier))
    if spec.schedule:
        yield from _caught("spec.schedule", lambda: cron.parse(spec.schedule))


def multiplier(text: str) -> Decimal:
    """A decimal string from 1 to 10, as admission takes it. Raises ValueError."""
    try:
        found = Decimal(text) if len(text) <= 20 else Decimal("NaN")
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or not 1 <= found <= 10:
        raise ValueError(f"{text[:20]!r} is no decimal number from 1 to 10, such as '1.5'")
    return found


def _checked_selector(spec: PowerToolSpec) -> Selector:
    return Selector.of(spec.targets.label_selector.match_labels, spec.targets.label_selector.match_expressions)


def _checked_rolling(spec: PowerToolSpec) -> None:
    """What a run leaves beyond so many files would be lost at its end."""
    duration, interval = parse_duration(spec.tool.duration), parse_duration(spec.output.rolling_interval)
    if interval > timedelta(0) and duration > MOST_SEGMENTS * interval:
        least = timedelta(seconds=math.ceil(duration.total_seconds() / MOST_SEGMENTS))
        raise ValueError(
            f"{spec.output.rolling_interval} cuts {spec.tool.duration} into more than {MOST_SEGMENTS} files; give "
            f"{format_duration(least)} or more"
        )


def _caught(field: str, read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except ValueError as error:
        yield f"{field}: {error}"


def _duration(field: str, text: str, above: timedelta | None = None) -> Iterator[str]:
    try:
        found = parse_duration(text)
    except ValueError as error:
        yield f"{field}: {error}"
        return
    if above is not None and found <= above:
        yield f"{field}: {text[:60]} is not above zero; write it like 90s, 5m or 1h30m"


def _regex(text: str) -> Iterator[str]:
    field = "spec.targets.namespaceSelector.matchRegex"
    if len(text) > _LONGEST_REGEX:
        yield f"{field}: it is longer than {_LONGEST_REGEX} characters"
        return
    try:
        re.compile(text)
    except re.error as error:
        yield f"{field}: {text[:60]!r} is no regular expression: {error}"


def _output(output: Output) -> Iterator[str]:
    blocks = {"pvc": output.pvc, "collector": output.collector, "s3": output.s3}
    for name, block in blocks.items():
        if block is not None and name != output.mode:
            yield f"spec.output.{name}: this block is for mode {name}, but the mode is {output.mode}; remove it"
    if output.mode in {"pvc", "s3"} and blocks[output.mode] is None:
        yield f"spec.output.{output.mode}: mode {output.mode} needs this block"
    if output.pvc is not None and ".." in output.pvc.path.split("/"):
        yield "spec.output.pvc.path: '..' would leave the claim"
