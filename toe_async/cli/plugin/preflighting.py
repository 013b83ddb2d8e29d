"""``kubectl toe preflight``: everything that would keep a run from happening, in one go, before anything is written."""

import msgspec
from msgspec import Struct

from toe_async.apis.captures import Target
from toe_async.apis.core import POWERTOOLS_GRANT, NamespaceObject, decode_namespace
from toe_async.apis.kinds import NAMESPACES, PODS, POWER_TOOL_CONFIGS, POWER_TOOLS
from toe_async.apis.meta import Decoder, Wire
from toe_async.apis.pods import DEFAULT_CONTAINER
from toe_async.apis.podspec import PodDetail
from toe_async.apis.powertool import PowerToolSpec
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.capture.arguments import render
from toe_async.capture.preflight import preflight
from toe_async.capture.refusals import Refused as Verdict
from toe_async.capture.toolconfig import ToolPolicy, resolve
from toe_async.capture.toolrun import ToolCapture
from toe_async.cli.plugin import printing
from toe_async.cli.plugin.exits import Exit, Usage
from toe_async.cli.plugin.powertools import PowerTools
from toe_async.cli.plugin.refusals import refused
from toe_async.cli.plugin.running import manifest
from toe_async.cli.plugin.session import Session
from toe_async.collector.errors import Refused
from toe_async.controllers.powertool.acceptance import spec_faults, too_long
from toe_async.controllers.powertool.reach import grants
from toe_async.kube import requests
from toe_async.kube.client import Client
from toe_async.kube.errors import KubeError
from toe_async.lib.clock import SystemClock
from toe_async.lib.globs import any_match

_MOST_PODS = 200


class Check(Struct, frozen=True):
    """One finding. `fine` is None where nobody could tell."""

    what: str
    fine: bool | None
    words: str = ""
    denied: bool = False


class _Pods(Wire, frozen=True):
    items: tuple[PodDetail, ...] = ()


_decode_pods = Decoder(_Pods)


async def run(session: Session) -> Exit:
    """Prints each check; the exit code is 0 when nothing stands against the run, 3 when rights are missing."""
    arguments, console = session.arguments, session.console
    tools = PowerTools(session.library.client)
    wanted = manifest(arguments)
    try:
        spec = msgspec.convert(wanted["spec"], PowerToolSpec)
    except msgspec.ValidationError as error:
        raise Usage(f"this makes no PowerTool: {error}") from error
    checks = [*await _rights(session, tools), *await _tool(session, tools, spec)]
    checks.append(await _admission(session, tools, wanted))
    if arguments.output in {"json", "yaml"}:
        told = {"checks": msgspec.to_builtins(checks)}
        console.table([(printing.as_json if arguments.output == "json" else printing.as_yaml)(told)])
    else:
        marks = {True: "ok", False: "NO", None: "?"}
        console.table(printing.aligned(["", "CHECK", "WHY"], [[marks[c.fine], c.what, c.words] for c in checks]))
    wrong = [one for one in checks if one.fine is False]
    if not wrong:
        return Exit.OK
    return Exit.DENIED if any(one.denied for one in wrong) else Exit.FAILED


async def _rights(session: Session, tools: PowerTools) -> list[Check]:
    arguments, namespace = session.arguments, session.namespace
    home, tool = arguments.operator_namespace, arguments.tool
    asked = (
        ("create powertools", namespace, await tools.may("create", POWER_TOOLS, namespace)),
        (
            "patch pods/ephemeralcontainers",
            namespace,
            await tools.may("patch", PODS, namespace, subresource="ephemeralcontainers"),
        ),
        (f"use powertoolconfigs/{tool}", home, await tools.may("use", POWER_TOOL_CONFIGS, home, name=tool)),
    )
    return [
        Check(f"you may {what}", fine, "" if fine else f"ask for the right to {what} in namespace {at}", not fine)
        for what, at, fine in asked
    ]


async def _tool(session: Session, tools: PowerTools, spec: PowerToolSpec) -> list[Check]:
    arguments = session.arguments
    try:
        configs = await tools.configs(arguments.operator_namespace)
    except Refused as no:
        return [Check("the tool is approved", None, f"you may not look: {no.message}")]
    config = resolve(arguments.tool, configs, ToolPolicy())
    if isinstance(config, Verdict):
        return [Check("the tool is approved", False, config.message)]
    if fault := next(spec_faults(spec), ""):
        return [Check("the tool is approved", True, config.spec.image), Check("the run can be meant", False, fault)]
    globs, places = config.spec.allowed_namespaces, _places(session.namespace, spec)
    closed = [one for one in dict.fromkeys((session.namespace, *places)) if globs and not any_match(globs, one)]
    why = f"not in {', '.join(closed)}; it is allowed in {', '.join(globs[:10])}" if closed else ""
    return [
        Check("the tool is approved", True, config.spec.image),
        Check("it is allowed where it is to run", not closed, why),
        Check("it may run as long", *_verdict(too_long(spec.tool, config.spec))),
        Check("it takes these arguments", *_verdict(render(config.spec, spec.tool))),
        *await _pods(session, config, spec, places),
    ]


def _places(own: str, spec: PowerToolSpec) -> tuple[str, ...]:
    selector = spec.targets.namespace_selector
    return selector.match_names if selector is not None else (own,)


async def _pods(session: Session, config: PowerToolConfig, spec: PowerToolSpec, places: tuple[str, ...]) -> list[Check]:
    client, own = session.library.client, session.namespace
    checks, matching, running = [], 0, list[Check]()
    for place in places:
        try:
            pods = await _matching(client, place, session.arguments.selector)
            held = await _namespace(client, place)
        except KubeError as error:
            checks.append(Check(f"the pods of {place} can be looked at", None, refused(error, PODS).message))
            continue
        if place != own:
            checks.append(_grant(held, place, own))
        matching += len(pods)
        for pod in pods:
            if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None:
                found = preflight(_capture(pod, config, spec), pod, held)
                words = "; ".join(f"{one.reason}: {one.message}" for one in found) if isinstance(found, tuple) else ""
                name = pod.metadata.name if place == own else f"{place}/{pod.metadata.name}"
                running.append(Check(f"it can run in pod {name}", not isinstance(found, tuple), words))
    if all(one.fine is not None for one in checks) or running:
        told = f"{len(running)} of {matching} that match are running"
        checks.append(Check("running pods match", bool(running), told))
    return [*checks, *running]


def _grant(held: NamespaceObject | None, place: str, own: str) -> Check:
    if held is None:
        return Check(f"{place} lets {own} run tools in its pods", None, "you may not look at the namespace")
    fine = grants(held, own)
    way = f"its owner can grant it: kubectl annotate namespace {place} {POWERTOOLS_GRANT}={own}"
    return Check(f"{place} lets {own} run tools in its pods", fine, "" if fine else way)


async def _admission(session: Session, tools: PowerTools, wanted: dict[str, object]) -> Check:
    try:
        await tools.create(session.namespace, wanted, dry_run=True)
    except Refused as no:
        return Check("the API server takes it", False, no.message, denied=no.status == 403)
    return Check("the API server takes it", True)


async def _matching(client: Client, namespace: str, selector: str) -> tuple[PodDetail, ...]:
    request = requests.list_(PODS, namespace, label_selector=selector, limit=_MOST_PODS)
    return _decode_pods(await client.send(request)).items


async def _namespace(client: Client, name: str) -> NamespaceObject | None:
    """None for a user who may not read it: its Pod Security level is told by nobody then."""
    try:
        return decode_namespace(await client.send(requests.get(NAMESPACES, None, name)))
    except KubeError:
        return None


def _capture(pod: PodDetail, config: PowerToolConfig, spec: PowerToolSpec) -> ToolCapture:
    meta = pod.metadata
    names = [one.name for one in pod.spec.containers]
    default = meta.annotations.get(DEFAULT_CONTAINER, "")
    container = spec.targets.container or (default if default in names else next(iter(names), ""))
    target = Target(
        namespace=meta.namespace,
        pod=meta.name,
        pod_uid=meta.uid,
        container=container,
        node=pod.spec.node_name,
        labels=meta.labels,
        service="",
    )
    return ToolCapture(
        id="",
        namespace=meta.namespace,
        name="",
        uid="",
        run="",
        attempt=1,
        claimed_at=SystemClock().now(),
        target=target,
        tool=config.spec,
        spec=spec,
        matching_labels={},
    )


def _verdict(found: object) -> tuple[bool, str]:
    return (False, f"{found.reason}: {found.message}") if isinstance(found, Verdict) else (True, "")
