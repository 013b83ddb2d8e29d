"""What a decision about one ProfilingConfig may depend on, and what it may ask for: frozen data only."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from toe_async.apis.captures import CaptureRecord
from toe_async.apis.core import Node, PodUsage
from toe_async.apis.pods import Pod
from toe_async.apis.profilingconfig import ProfilingConfig
from toe_async.apis.profilingstatus import ProfileType, ProfilingConfigStatus
from toe_async.capture.targets import PprofTarget
from toe_async.capture.triggers import History


class ConfigKey(NamedTuple):
    """Names one ProfilingConfig of either API group."""

    group: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PodFacts(Struct, frozen=True):
    """One pod that matches and opted in, with what is known of its usage."""

    pod: Pod
    usage: PodUsage | None
    node: Node | None
    history: History
    last_started: datetime | None


class Observed(Struct, frozen=True, kw_only=True):
    """All that the decision may depend on, read at one moment.

    ``*_problem`` fields are one sentence, or None while all is well. ``busy`` holds the UIDs of pods that some capture
    of any configuration is being taken from, ``running`` the ids of captures that this process takes, ``free_captures``
    how many more it may start, and ``gone`` the holders that are known to have ended. ``soft_written`` is when this
    process last wrote the soft part of the status (counts and sentences).
    """

    now: datetime
    holder: str
    group: str
    config: ProfilingConfig
    policy_problem: str | None
    granted: bool
    sink_problem: str | None
    pods_problem: str | None
    metrics_problem: str | None
    metrics_polled: bool
    store_problem: str | None
    store_probed: bool
    spool_problem: str | None
    matched: int
    pods: tuple[PodFacts, ...]
    busy: frozenset[str]
    running: frozenset[str]
    gone: frozenset[str]
    free_captures: int
    collector: str
    soft_written: datetime | None


class Start(Struct, frozen=True, kw_only=True):
    """One capture to take, once its claim is written."""

    record: CaptureRecord
    target: PprofTarget
    types: tuple[ProfileType, ...]
    cpu_seconds: int
    deadline: datetime


class Plan(Struct, frozen=True, kw_only=True):
    """What apply is to do: the whole status wanted, the captures to start once it is written, and when to look again.

    ``urgent`` tells that the status must be written now; without it the change can wait for ``recheck_seconds``.
    """

    status: ProfilingConfigStatus
    urgent: bool
    starts: tuple[Start, ...] = ()
    cancel: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    histories: Mapping[str, History] = {}
    not_fired: Mapping[str, int] = {}
    violations: tuple[str, ...] = ()
    duplicates: int = 0
    recheck_seconds: float | None = None
