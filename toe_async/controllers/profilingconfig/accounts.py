"""Enters what became of captures into their ProfilingConfig, and tells it by Events.

Steps are entered until the API server took them: an outage lasts as long as it lasts, and the spool keeps the bytes
meanwhile. An entry for an object that is gone, or was made anew under its name, is dropped: nobody waits for it.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal, Protocol

from toe_async.apis.captures import ArtifactRecord, CaptureRecord, Receipt
from toe_async.apis.meta import ObjectRef
from toe_async.apis.profilingstatus import (
    ArtifactState,
    ArtifactStatus,
    CaptureState,
    CaptureStatus,
    ProfileType,
    ProfilingConfigStatus,
)
from toe_async.apis.reasons import Reason
from toe_async.controllers.profilingconfig import accounting
from toe_async.controllers.profilingconfig.facts import ConfigKey
from toe_async.controllers.profilingconfig.ledger import KINDS, Ledger
from toe_async.kube.errors import KubeError
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.lib.quantities import format_bytes
from toe_async.sinks.delivery import DeliveryFailed
from toe_async.sinks.spool import SpoolEntry
from toe_async.telemetry import log

_log = log.get("profilingconfig.accounts")
_LONGEST_MESSAGE = 512

EventType = Literal["Normal", "Warning"]

_ENDS: dict[CaptureState, tuple[EventType, Reason]] = {
    CaptureState.STORED: ("Normal", Reason.CAPTURE_STORED),
    CaptureState.PARTIALLY_STORED: ("Warning", Reason.CAPTURE_PARTIALLY_STORED),
    CaptureState.FAILED: ("Warning", Reason.CAPTURE_FAILED),
    CaptureState.LOST: ("Warning", Reason.CAPTURE_LOST),
}


class EventSink(Protocol):
    """Takes Events without waiting."""

    def event(self, ref: ObjectRef, type_: EventType, reason: str, message: str, action: str = "") -> None:
        """Queue one Event."""


class Accounts:
    """The only writer of what captures came to; used by the runner, the delivery and the start of the process."""

    def __init__(self, ledger: Ledger, events: EventSink, clock: Clock, upload_seconds: float) -> None:
        self._ledger, self._events, self._clock = ledger, events, clock
        self._upload = timedelta(seconds=upload_seconds)

    def tell_start(self, record: CaptureRecord) -> None:
        """Event on the config and on the pod: a capture begins."""
        message = f"capture {record.id[:10]} of container {record.target.container}: {record.trigger}"
        for ref in (config_ref(record), pod_ref(record)):
            self._events.event(ref, "Normal", Reason.CAPTURE_STARTED, message, "Capture")

    def tell_end(self, config: ObjectRef, row: CaptureStatus) -> None:
        """Event on the config: how a capture ended."""
        type_, reason = _ENDS[row.state]
        self._events.event(config, type_, reason, summary(row), "Capture")

    async def received(self, record: CaptureRecord, results: Iterable[ArtifactStatus]) -> None:
        """Enter the end of the capturing part; returns once it is written, or its object is gone."""
        kept = tuple(results)

        def step(status: ProfilingConfigStatus) -> ProfilingConfigStatus:
            now = self._clock.now()
            return accounting.received(status, record.id, kept, _whole(now + self._upload), now)

        waits = Backoff(1.0, 30.0)
        while True:
            try:
                await self._enter(record, step)
            except KubeError as error:
                _log.warning("a capture's account cannot be written yet", capture=record.id, why=str(error))
                await asyncio.sleep(waits.next())
            else:
                return

    async def report(self, record: CaptureRecord, artifact: ArtifactRecord, outcome: Receipt | DeliveryFailed) -> None:
        """Enter what the delivery of one artifact came to.

        Raises:
            KubeError: not written; tell it again.
        """
        result = outcome_of(artifact, outcome)
        await self._enter(record, lambda status: accounting.delivered(status, record.id, result, self._clock.now()))

    async def recovered(self, entries: Iterable[SpoolEntry]) -> None:
        """Enter what an earlier process left in the spool: whole profiles will be delivered, others are lost."""
        by_capture: dict[str, list[SpoolEntry]] = {}
        for entry in entries:
            by_capture.setdefault(entry.record.id, []).append(entry)
        for held in by_capture.values():
            results = [
                captured(entry.artifact)
                if entry.lost is None
                else failed(ProfileType(entry.artifact.type), entry.lost.reason, entry.lost.message)
                for entry in held
            ]
            record = held[0].record
            seen = {result.type for result in results}
            missing = [type_ for name in record.types if (type_ := ProfileType(name)) not in seen]
            results += [
                failed(type_, Reason.REPLICA_GONE, "the operator ended before it was taken") for type_ in missing
            ]
            await self.received(record, results)

    async def _enter(
        self, record: CaptureRecord, step: Callable[[ProfilingConfigStatus], ProfilingConfigStatus]
    ) -> None:
        ended_before: list[bool] = []

        def watched(status: ProfilingConfigStatus) -> ProfilingConfigStatus:
            row = accounting.find(status, record.id)
            ended_before[:] = [row is not None and row.state.final]
            return step(status)

        config = await self._ledger.enter(key_of(record), record.uid, watched)
        row = accounting.find(config.status, record.id) if config is not None else None
        if row is not None and row.state.final and not any(ended_before):
            self.tell_end(config_ref(record), row)


def key_of(record: CaptureRecord) -> ConfigKey:
    """The configuration that a capture belongs to."""
    return ConfigKey(record.group, record.namespace, record.name)


def config_ref(record: CaptureRecord) -> ObjectRef:
    """The configuration as an Event names it."""
    return ObjectRef(
        api_version=KINDS[record.group].api_version,
        kind=record.kind,
        namespace=record.namespace,
        name=record.name,
        uid=record.uid,
    )


def pod_ref(record: CaptureRecord) -> ObjectRef:
    """The target pod as an Event names it."""
    target = record.target
    return ObjectRef(api_version="v1", kind="Pod", namespace=target.namespace, name=target.pod, uid=target.pod_uid)


def captured(artifact: ArtifactRecord) -> ArtifactStatus:
    """A profile that is whole in the spool."""
    return ArtifactStatus(
        type=ProfileType(artifact.type),
        state=ArtifactState.CAPTURED,
        size=artifact.size,
        sha256=artifact.sha256,
        reason="" if artifact.verified else Reason.UNVERIFIED_LENGTH,
    )


def failed(type_: ProfileType, reason: Reason, message: str) -> ArtifactStatus:
    """A profile that was not taken."""
    return ArtifactStatus(
        type=type_, state=ArtifactState.FAILED, reason=str(reason), message=message[:_LONGEST_MESSAGE]
    )


def outcome_of(artifact: ArtifactRecord, outcome: Receipt | DeliveryFailed) -> ArtifactStatus:
    """A profile after its delivery."""
    type_ = ProfileType(artifact.type)
    if isinstance(outcome, Receipt):
        return ArtifactStatus(
            type=type_,
            state=ArtifactState.STORED,
            uri=outcome.uri[:2048],
            size=outcome.size,
            sha256=outcome.sha256,
            reason="" if artifact.verified else Reason.UNVERIFIED_LENGTH,
        )
    return ArtifactStatus(
        type=type_,
        state=ArtifactState.FAILED,
        size=artifact.size,
        sha256=artifact.sha256,
        reason=str(outcome.reason),
        message=outcome.message[:_LONGEST_MESSAGE],
    )


def summary(row: CaptureStatus) -> str:
    """One sentence on a finished capture: what is stored, and what is not and why."""
    stored = [f"{one.type} {format_bytes(one.size)}" for one in row.artifacts if one.state is ArtifactState.STORED]
    missing = [f"{one.type} ({one.reason})" for one in row.artifacts if one.state is ArtifactState.FAILED]
    parts = [f"stored {', '.join(stored)}" if stored else "", f"not {', '.join(missing)}" if missing else ""]
    said = "; ".join(part for part in parts if part) or "nothing came of it"
    return f"capture {row.id[:10]} of pod {row.pod}: {said}"


def _whole(instant: datetime) -> datetime:
    return instant.replace(microsecond=0)
