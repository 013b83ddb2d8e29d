"""Events about objects, as `kubectl describe` shows them.

Recording never blocks and never fails: an occurrence goes into a bounded queue, `run` judges it (`runtime.spamfilter`)
and sends it. What is judged to be spam, does not fit into the queue or cannot be delivered is counted as dropped.
Events are told to people and are no record: everything that matters is in the status too.
"""

import asyncio
import contextlib
from collections import deque
from datetime import datetime
from itertools import count
from typing import Final, Literal

from toe_async.apis.core import Event, EventSource
from toe_async.apis.kinds import EVENTS
from toe_async.apis.meta import ObjectMeta, ObjectRef, encode
from toe_async.kube import requests
from toe_async.kube.errors import AlreadyExists, ApiError, KubeError, NotFound
from toe_async.kube.sender import Sender
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock, rfc3339
from toe_async.lib.names import digest
from toe_async.runtime.spamfilter import Occurrence, Send, SpamFilter
from toe_async.telemetry import log as logs
from toe_async.telemetry.metrics import OperatorMetrics

log = logs.get("runtime.recorder")

EventType = Literal["Normal", "Warning"]

QUEUE_LIMIT: Final = 1000
LONGEST_MESSAGE: Final = 1024
TRIES: Final = 12
"""With the waits between them some 90 s, as long as an API server may take to come back."""
REQUEST_TIMEOUT: Final = 10.0
_LONGEST_STEM: Final = 200  # of the 253 characters that an object name may have


class Recorder:
    """See the module. `component` names the reporter (`toe-async/profilingconfig`), `instance` the process."""

    def __init__(
        self, client: Sender, *, component: str, instance: str, clock: Clock, metrics: OperatorMetrics
    ) -> None:
        self._client, self._clock = client, clock
        self._component, self._instance = component, instance
        self._filter = SpamFilter()
        self._queue: deque[tuple[Occurrence, datetime]] = deque()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._numbers = count(1)
        self._dropped = metrics.events_dropped

    def event(self, ref: ObjectRef, type_: EventType, reason: str, message: str, action: str = "") -> None:
        """Record that something happened to the object. Returns at once; the message is cut at 1,024 bytes."""
        if len(self._queue) >= QUEUE_LIMIT:
            self._dropped.inc()
            return
        self._queue.append((Occurrence(ref, type_, reason, message, action), self._clock.now()))
        self._idle.clear()
        self._filled.set()

    async def run(self) -> None:
        """Send until cancelled. Nothing that the API server answers ends it."""
        while True:
            await self._filled.wait()
            while self._queue:
                occurrence, wall = self._queue[0]
                await self._deliver(occurrence, wall)
                self._queue.popleft()
            self._filled.clear()
            self._idle.set()

    async def drain(self) -> None:
        """Wait until all that was recorded has been sent or dropped. Unbounded: the caller brings a deadline."""
        await self._idle.wait()

    async def _deliver(self, occurrence: Occurrence, wall: datetime) -> None:
        order = self._filter.judge(occurrence, self._clock.monotonic(), wall)
        if order is None:
            self._dropped.inc()
            return
        # Names are unique to this process, so a name that is taken on a second try is our own Event, its reply lost.
        name = order.name or self._new_name(occurrence.ref)
        pause = Backoff(1.0, 10.0, jitter=0.5)
        while pause.failures < TRIES:
            try:
                await self._send(occurrence, order, name, wall)
            except ApiError as error:
                if error.status != 429 and error.status < 500:
                    log.warning("event refused", reason=occurrence.reason, object=occurrence.ref.name, error=str(error))
                    break
            except KubeError as error:
                log.debug("event not delivered yet", reason=occurrence.reason, error=str(error))
            else:
                return
            await asyncio.sleep(pause.next())
        self._dropped.inc()

    async def _send(self, occurrence: Occurrence, order: Send, name: str, wall: datetime) -> None:
        ref = occurrence.ref
        namespace = ref.namespace or "default"
        last = wall.replace(microsecond=0)
        message = _cut(order.message)
        if order.name:
            body = encode({"count": order.count, "message": message, "lastTimestamp": rfc3339(last)})
            try:
                await self._client.send(requests.merge_patch(EVENTS, namespace, name, body, timeout=REQUEST_TIMEOUT))
            except NotFound:  # Events live an hour: this one is told anew, with all that was counted
                self._filter.written(order.key, "")
            else:
                return
        event = Event(
            api_version=EVENTS.api_version,
            kind=EVENTS.kind,
            metadata=ObjectMeta(name=name, namespace=namespace),
            involved_object=ref,
            type=occurrence.type,
            reason=occurrence.reason,
            message=message,
            action=occurrence.action,
            source=EventSource(component=self._component),
            reporting_controller=self._component,
            reporting_instance=self._instance,
            first_timestamp=order.first.replace(microsecond=0),
            last_timestamp=last,
            count=order.count,
        )
        with contextlib.suppress(AlreadyExists):
            await self._client.send(requests.create(EVENTS, namespace, encode(event), timeout=REQUEST_TIMEOUT))
        self._filter.written(order.key, name)

    def _new_name(self, ref: ObjectRef) -> str:
        unique = digest(self._instance, rfc3339(self._clock.now(), micro=True), str(next(self._numbers)), length=16)
        return f"{ref.name[:_LONGEST_STEM].rstrip('.-')}.{unique}"


def _cut(message: str) -> str:
    data = message.encode()
    if len(data) <= LONGEST_MESSAGE:
        return message
    return data[: LONGEST_MESSAGE - 3].decode(errors="ignore") + "..."
