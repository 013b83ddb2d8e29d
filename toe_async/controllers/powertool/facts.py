"""What a decision about one PowerTool may depend on, and what it may ask for: frozen data only."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Literal, NamedTuple

from msgspec import Struct

from toe_async.apis.pods import Pod
from toe_async.apis.powertool import PowerTool, PowerToolStatus
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.apis.reasons import Reason
from toe_async.capture.refusals import Refused
from toe_async.capture.toolrun import Progress, ToolCapture

FINALIZER = "codriverlabs.ai.toe.run/cancel"
CANCEL = "toe.run/cancel"
"""Its value says why the run is to end, as `kubectl toe cancel` writes it. While it is there no run begins."""
SKIP_CANCEL = "toe.run/skip-cancel"
"""With the value "true" the finalizer goes although tools may still run."""


class ToolKey(NamedTuple):
    """Names one PowerTool."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class NamespaceFacts(Struct, frozen=True, gc=False):
    """A namespace in which the PowerTool may look for pods.

    `named` tells that spec.targets.namespaceSelector.matchNames lists it, so that a missing grant is worth a refusal;
    one that only matchRegex finds is left out in silence when it does not grant.
    """

    name: str
    granted: bool
    named: bool


class TargetFacts(Struct, frozen=True):
    """A pod that the selector matches now, of any phase and in a granted namespace.

    `problem` is what preflight says of the container that `choosing.container_of` names (no claim mounted, twenty
    ephemeral containers, Pod Security ...), `cpu` the pod's use in cores for `pick: Hottest`, None while unknown.
    """

    pod: Pod
    problem: Refused | None = None
    cpu: float | None = None


class PodNow(Struct, frozen=True):
    """A frozen target's pod. `pod` is the pod of that very UID as it was seen last, None when `state` is gone.

    A pod of the same name with another UID is `gone`. Ended means phase Succeeded or Failed.
    """

    state: Literal["running", "terminating", "ended", "gone"]
    pod: Pod | None
    granted: bool = True


class Occupant(Struct, frozen=True):
    """Who has a container, or waits for one: another PowerTool by its ledger, or a `toe-*` container seen running.

    A container of which no ledger knows has empty names, so it is compatible with nothing. `capture` is the capture's
    id, or as much of it as the container's name holds. `waiting` tells that it is queued for the container only.
    """

    namespace: str
    name: str
    uid: str
    created: datetime | None
    tool: str
    compatible_with: tuple[str, ...]
    capture: str
    waiting: bool = False


class Slots(Struct, frozen=True):
    """How many more tools may run, as the administrator limits them.

    `used` counts what runs now by node, for all PowerTools; `ahead` counts by node the targets of older PowerTools that
    would start if slots were free (`batching.demand`), which go first.
    """

    cluster: int
    per_node: int
    used: Mapping[str, int]
    ahead: Mapping[str, int]


class Observed(Struct, frozen=True, kw_only=True):
    """All that the decision may depend on, read at one moment.

    ``*_problem`` is None while all is well. `known` is False while configurations cannot be read: then nothing is
    refused because of them, and nothing starts. `config` is the one configuration of the tool's name, ready or not, and
    `config_problem` what `toolconfig.resolve` holds against it; `switched_off` is the sentence of an administrator's
    kill switch (the configuration's `suspend`, or --chaos=off), which stops what runs. `refusal` is what the shared
    checks of arguments and output found about the run as a whole. `zone` is that of spec.timeZone (`lib.cron.zone`,
    which reads a file), None when there is none of that name. `pods_problem` tells that pods cannot be read, or not
    all: a target that is not found is not gone then, and nothing is chosen or started.

    `candidates` are the pods that match now; they are needed only while `schedule.may_begin`. `pods` holds each frozen
    target by UID, `busy` all occupants by (pod UID, container) but those of this PowerTool's own ledger, `running` the
    captures of this PowerTool that this process works on, `progress` what they have come to. Decisions of one process
    are made and written one after the other, since `slots` and `busy` must hold what the one before has claimed.
    """

    now: datetime
    tool: PowerTool
    zone: tzinfo | None
    known: bool
    config: PowerToolConfig | None
    config_problem: Refused | None
    switched_off: str | None
    policy_problem: str | None
    refusal: Refused | None
    sink_problem: Refused | None
    pods_problem: str | None
    namespaces: tuple[NamespaceFacts, ...]
    candidates: tuple[TargetFacts, ...]
    pods: Mapping[str, PodNow]
    busy: Mapping[tuple[str, str], tuple[Occupant, ...]]
    progress: Mapping[str, Progress]
    running: frozenset[str]
    slots: Slots


class Cancel(Struct, frozen=True):
    """A capture whose tool is to be stopped. With `discard` nobody will ever ask for what it has collected."""

    capture: str
    reason: Reason
    message: str
    discard: bool = False


class Told(Struct, frozen=True):
    """One Event. With a pod UID it belongs to that pod, else to the PowerTool."""

    reason: Reason
    message: str
    warning: bool = False
    namespace: str = ""
    pod: str = ""
    pod_uid: str = ""


class Plan(Struct, frozen=True, kw_only=True):
    """What apply is to do, in this order.

    1. `finalizer` differs from what the object has: write it (add it before any start; take it away last).
    2. Write `status`: `urgent` now, else when nothing was written for a while (sentences only). A conflict = plan anew.
    3. `starts` only after the status that claims them was written; `resumes` are claimed in the status that was read
       already, so they start whatever becomes of the write, and again after each restart; then `cancels`, which may
       speak of a capture that was resumed in the same plan.
    4. `settled`: captures whose outcome is in `status`; the runner may forget them once that is written.
    5. `used`: the configuration's lastUsed is to be set. `events`, once the status is written. `delete` the object.

    `recheck_seconds` is when to look again although nothing happened, None when only events matter.
    """

    status: PowerToolStatus
    urgent: bool
    finalizer: bool
    starts: tuple[ToolCapture, ...] = ()
    resumes: tuple[ToolCapture, ...] = ()
    cancels: tuple[Cancel, ...] = ()
    settled: tuple[str, ...] = ()
    used: bool = False
    events: tuple[Told, ...] = ()
    delete: bool = False
    recheck_seconds: float | None = None
