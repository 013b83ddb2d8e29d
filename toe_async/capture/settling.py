"""What has come of an attempt, from everything that is known at its end. Pure.

Failed means failed: a result is believed about its own failure, and about success only where somebody else vouches for
the bytes (the collector's record, S3's receipts); a claim and a kept result have nobody else.
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from toe_async.apis.captures import Standing
from toe_async.apis.powertool import StoredArtifact, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.toolevents import ToolLeaf, ToolResult
from toe_async.capture.toolfaults import Fault
from toe_async.capture.toolrun import Progress, ToolCapture

_REASONS = frozenset(Reason)
_MAY_PASS = frozenset({Reason.UPLOAD_FAILED, Reason.STORE_FULL, Reason.CAPTURE_TIMED_OUT, Reason.PROFILER_BUSY})


class End(Struct, frozen=True, kw_only=True):
    """All that is known when an attempt is over.

    `standing` is the collector's record in mode collector, None when it did not answer or was not asked; `delivered`
    are S3's receipts by leaf and `undelivered` why one did not come. `fault` is what ended the attempt where it was not
    the tool, and `cancelled` why it was to end.
    """

    capture: ToolCapture
    tool_container: str
    result: ToolResult | None = None
    fault: Fault | None = None
    cancelled: Fault | None = None
    standing: Standing | None = None
    delivered: Sequence[tuple[str, StoredArtifact]] = ()
    undelivered: Fault | None = None
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


def settled(end: End) -> Progress:
    """The attempt's outcome."""
    artifacts = _artifacts(end)
    state, why = _verdict(end, artifacts)
    result = end.result
    return Progress(
        state=state,
        reason=why.reason if why else "",
        message=why.message if why else "",
        exit_code=result.exit_code if result is not None else end.exit_code,
        bytes=sum(one.size for one in artifacts),
        artifacts=artifacts,
        started_at=end.started_at,
        finished_at=end.finished_at,
        tool_container=end.tool_container,
        passing=bool(why and why.passing and state is TargetState.FAILED),
    )


def _verdict(end: End, artifacts: tuple[StoredArtifact, ...]) -> tuple[TargetState, Fault | None]:
    result = end.result
    if result is None and end.standing is not None and end.standing.state == "Complete" and artifacts:
        # Its supervisor had stored and closed everything before whatever ended it came.
        return TargetState.COMPLETED, None
    if end.cancelled is not None and (result is None or result.outcome != "completed"):
        # Where the tool has not confirmed it, the fault says so.
        unsure = end.fault is not None and result is None and end.fault.reason is end.cancelled.reason
        return TargetState.CANCELLED, end.fault if unsure else end.cancelled
    if end.fault is not None and (result is None or result.outcome != "completed"):
        return TargetState.FAILED, end.fault
    if result is None:
        return TargetState.FAILED, Fault(Reason.TOOL_FAILED, "the tool ended without a result")
    if result.outcome == "cancelled":
        words = result.words or "somebody told the tool to end"
        return TargetState.CANCELLED, Fault(Reason.CANCELLED, words)
    if result.outcome != "completed":
        return TargetState.FAILED, _told(result)
    if (missing := _missing(end, artifacts)) is not None:
        return TargetState.FAILED, missing
    # Such as Truncated: whole as far as it goes.
    return TargetState.COMPLETED, _told(result) if result.reason else None


def _told(result: ToolResult) -> Fault:
    reason = Reason(result.reason) if result.reason in _REASONS else Reason.TOOL_FAILED
    return Fault(reason, result.words or "the tool failed and said nothing", reason in _MAY_PASS)


def _missing(end: End, artifacts: tuple[StoredArtifact, ...]) -> Fault | None:
    """Why a result of success is none: something that it names is not where it belongs."""
    result, mode = end.result, end.capture.spec.output.mode
    assert result is not None
    if mode == "collector":
        if end.standing is None:
            return Fault(
                Reason.UPLOAD_FAILED, "the collector did not say what it has stored of this capture", passing=True
            )
        stored = {(one.leaf, one.sha256) for one in end.standing.artifacts}
        absent = [leaf.name for leaf in result.leaves if (leaf.name, leaf.sha256) not in stored]
        if len(end.standing.artifacts) < len(result.leaves) + result.more_leaves and not absent:
            absent = ["further ones"]
    elif mode == "s3":
        if end.undelivered is not None:
            return end.undelivered
        stored = {(leaf, one.sha256) for leaf, one in end.delivered}
        absent = [leaf.name for leaf in result.leaves if (leaf.name, leaf.sha256) not in stored]
        absent += ["further ones"] if result.more_leaves else []
    else:
        absent = [leaf.name for leaf in result.leaves if leaf.state == "lost"]
    if absent:
        names = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        return Fault(Reason.UPLOAD_FAILED, f"the tool says that it stored what is not there: {names}", passing=True)
    if not artifacts:
        return Fault(Reason.NO_OUTPUT, "the tool ended well and nothing is stored of it")
    return None


def _artifacts(end: End) -> tuple[StoredArtifact, ...]:
    mode = end.capture.spec.output.mode
    if mode == "collector":
        stored = end.standing.artifacts if end.standing is not None else ()
        return tuple(StoredArtifact(uri=one.uri, size=one.size, sha256=one.sha256) for one in stored)
    if mode == "s3":
        return tuple(one for _, one in end.delivered)
    leaves = end.result.leaves if end.result is not None else ()
    return tuple(
        StoredArtifact(uri=_uri(end, leaf), size=leaf.size, sha256=leaf.sha256)
        for leaf in leaves
        if leaf.state == ("stored" if mode == "pvc" else "kept")
    )


def _uri(end: End, leaf: ToolLeaf) -> str:
    target, pvc = end.capture.target, end.capture.spec.output.pvc
    if pvc is not None and end.capture.spec.output.mode == "pvc":
        return f"pvc://{target.namespace}/{pvc.claim_name}/{leaf.uri.lstrip('/')}"
    return f"pod://{target.namespace}/{target.pod}/{end.tool_container}/{leaf.name}"
