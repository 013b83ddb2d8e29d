"""A run in the middle of a plan: what every part of the decision passes on to the next. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from toe_async.apis.pods import Pod
from toe_async.apis.powertool import PowerTool, PowerToolStatus
from toe_async.capture.refusals import Refused
from toe_async.controllers.powertool.advancing import Step
from toe_async.controllers.powertool.facts import Observed, Occupant
from toe_async.controllers.powertool.members import Member


class Work(Struct, frozen=True):
    """`held` is why the run does not begin, `steps` what its members have come to, `started` whom it claims now.

    `waits` counts why others have not begun, and `occupant` is somebody who is waited for (see `batching.Batch`).
    """

    status: PowerToolStatus
    members: tuple[Member, ...]
    steps: tuple[Step, ...] = ()
    held: Refused | None = None
    started: tuple[int, ...] = ()
    waits: Mapping[str, int] = {}
    occupant: Occupant | None = None


def pods_of(seen: Observed) -> dict[str, Pod]:
    """By UID the pods that are seen: those of a run that begins now are only among the candidates."""
    found = {one.pod.uid: one.pod for one in seen.candidates}
    return found | {uid: one.pod for uid, one in seen.pods.items() if one.pod is not None}


def deadline(tool: PowerTool, status: PowerToolStatus) -> datetime | None:
    """When the run that a status speaks of has to be over by spec.activeDeadlineSeconds."""
    started = status.started_at
    longest = tool.spec.active_deadline_seconds
    return started + timedelta(seconds=longest) if started is not None and longest is not None else None
