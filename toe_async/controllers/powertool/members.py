"""The targets of a run as the plan works on them, ledger and status rows in one, and what attempts are called. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.captures import Target
from toe_async.apis.pods import Pod
from toe_async.apis.powertool import (
    CLAIMED_STATES,
    FINAL_STATES,
    PowerTool,
    PowerToolStatus,
    TargetState,
    TargetStatus,
)
from toe_async.apis.powertoolconfig import PowerToolConfigSpec
from toe_async.capture.identity import capture_id
from toe_async.capture.targets import service_of
from toe_async.capture.toolrun import ToolCapture
from toe_async.controllers.powertool.facts import PodNow
from toe_async.controllers.powertool.ledger import Entry, decode, encode


class Member(Struct, frozen=True):
    """One target of the run. `at` is what the ledger keeps: when it was claimed, or when the next attempt may begin."""

    row: TargetStatus
    at: datetime | None = None

    @property
    def state(self) -> TargetState:
        return self.row.state

    @property
    def claimed(self) -> bool:
        """An attempt has begun and has not ended."""
        return self.row.state in CLAIMED_STATES

    @property
    def final(self) -> bool:
        return self.row.state in FINAL_STATES


def changed(member: Member, state: TargetState, *, at: datetime | None = None, **row: object) -> Member:
    """The member in another state; fields of the row that are not named stay."""
    return Member(replace(member.row, state=state, next_at=at if state is TargetState.WAITING else None, **row), at)


def load(status: PowerToolStatus, pods: Mapping[str, PodNow]) -> tuple[Member, ...]:
    """All targets of the run that a status speaks of, in the order of the ledger.

    The ledger decides on state and attempt; the rows only add what is shown. Raises ValueError for a broken ledger.
    """
    shown = {(row.uid, row.container): row for row in status.targets}
    return tuple(_member(one, shown.get((one.uid, one.container)), pods) for one in decode(status.ledger))


def _member(entry: Entry, row: TargetStatus | None, pods: Mapping[str, PodNow]) -> Member:
    if row is None:
        now = pods.get(entry.uid)
        row = row_of(now.pod if now else None, entry.uid, entry.container)
    row = replace(row, state=entry.state, attempt=entry.attempt)
    return Member(replace(row, next_at=entry.at if entry.state is TargetState.WAITING else None), entry.at)


def row_of(pod: Pod | None, uid: str, container: str) -> TargetStatus:
    """The row of a target at which nothing has happened; without names when its pod is not there to tell them."""
    return TargetStatus(
        namespace=pod.namespace if pod else "",
        pod=pod.name if pod else "",
        uid=uid,
        container=container,
        node=pod.node if pod else "",
        state=TargetState.PENDING,
    )


def written(members: Iterable[Member]) -> str:
    """The ledger's text."""
    return encode(tuple(Entry(one.row.uid, one.row.container, one.state, one.row.attempt, one.at) for one in members))


def attempt_id(tool: PowerTool, run: str, uid: str, container: str, attempt: int) -> str:
    """The capture id of one attempt: equal for everybody who reads the same PowerTool."""
    return capture_id(tool.metadata.uid, uid, container, f"{run}/{attempt}")


def current_id(tool: PowerTool, run: str, member: Member) -> str:
    """The capture id of the member's latest attempt."""
    return attempt_id(tool, run, member.row.uid, member.row.container, member.row.attempt)


def capture_of(tool: PowerTool, config: PowerToolConfigSpec, run: str, member: Member, pod: Pod) -> ToolCapture:
    """The claimed attempt of a member as the runner takes it, equal whenever it is made again.

    A claim is dated in whole seconds, as the ledger is, and `suspend`, which may change, is no part of it.
    """
    if member.at is None:
        raise ValueError(f"target {member.row.uid} was not claimed")
    return ToolCapture(
        id=current_id(tool, run, member),
        namespace=tool.metadata.namespace,
        name=tool.metadata.name,
        uid=tool.metadata.uid,
        run=run,
        attempt=member.row.attempt,
        claimed_at=member.at,
        target=Target(
            namespace=pod.namespace,
            pod=pod.name,
            pod_uid=pod.uid,
            container=member.row.container,
            node=pod.node,
            labels=dict(pod.labels),
            service=service_of(pod),
        ),
        tool=config,
        spec=replace(tool.spec, suspend=False),
        matching_labels=tool.spec.targets.label_selector.matching_labels(pod.labels),
    )
