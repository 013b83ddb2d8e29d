"""The status of ProfilingConfigs as an account book that several processes write.

Every entry is read, changed by a pure step and patched back under its resourceVersion, so that a write which somebody
else overtook is refused by the API server and done again on what is there now. Only the fields that differ are sent.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec

from toe_async.apis.kinds import BOLOMETER_CONFIGS, PROFILING_CONFIGS, Kind
from toe_async.apis.profilingconfig import ProfilingConfig, decode_profiling_config
from toe_async.apis.profilingstatus import ProfilingConfigStatus
from toe_async.controllers.profilingconfig.facts import ConfigKey
from toe_async.kube.errors import Conflict, NotFound
from toe_async.kube.requests import get, merge_patch
from toe_async.kube.sender import Sender
from toe_async.lib.backoff import Backoff

FIELD_MANAGER = "toe-profilingconfig"
KINDS: dict[str, Kind] = {kind.group: kind for kind in (PROFILING_CONFIGS, BOLOMETER_CONFIGS)}
_TRIES = 12

Step = Callable[[ProfilingConfigStatus], ProfilingConfigStatus]


def status_patch(
    old: ProfilingConfigStatus, new: ProfilingConfigStatus, resource_version: str, uid: str
) -> dict[str, Any] | None:
    """The JSON merge patch from one status to the other, bound to a version and an incarnation; None when equal.

    Lists are sent whole; a key that left the map ``notFired`` is set to null, as a merge patch wants it.
    """
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    changed = {key: value for key, value in after.items() if value != before.get(key)}
    if not changed:
        return None
    if "notFired" in changed:
        gone = dict.fromkeys(before["notFired"].keys() - after["notFired"].keys())
        changed["notFired"] = {**after["notFired"], **gone}
    return {"metadata": {"resourceVersion": resource_version, "uid": uid}, "status": changed}


class Ledger:
    """Reads and writes statuses. Safe for many tasks; entries of one object are written one after the other."""

    def __init__(self, client: Sender, rng: Callable[[], float] = random.random) -> None:
        self._client, self._rng = client, rng
        self._locks: dict[ConfigKey, asyncio.Lock] = {}

    async def write(self, key: ConfigKey, config: ProfilingConfig, status: ProfilingConfigStatus) -> ProfilingConfig:
        """Write a status that was decided on ``config``, once; returns the object as it is then.

        Raises:
            Conflict: the object changed in between; decide again on what it is now.
            KubeError: not written, or not known to be.
        """
        patch = status_patch(config.status, status, config.metadata.resource_version, config.metadata.uid)
        return config if patch is None else await self._send(key, patch)

    async def enter(self, key: ConfigKey, uid: str, step: Step) -> ProfilingConfig | None:
        """Apply one step to the status as it is now, again while others overtake us.

        Returns the object with the step done, or None when that incarnation of it is gone.

        Raises:
            KubeError: the API server cannot be reached or refuses; the step may be tried again later.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                return await self._enter(key, uid, step)
        finally:
            if not lock.locked() and self._locks.get(key) is lock:
                del self._locks[key]

    async def _enter(self, key: ConfigKey, uid: str, step: Step) -> ProfilingConfig | None:
        waits = Backoff(0.02, 1.0, rng=self._rng)
        while True:
            try:
                raw = await self._client.send(get(KINDS[key.group], key.namespace, key.name))
                config = decode_profiling_config(raw)
                if config.metadata.uid != uid:
                    return None
                return await self.write(key, config, step(config.status))
            except NotFound:
                return None
            except Conflict:
                if waits.failures >= _TRIES:
                    raise
                await asyncio.sleep(waits.next())

    async def _send(self, key: ConfigKey, patch: dict[str, Any]) -> ProfilingConfig:
        body = msgspec.json.encode(patch)
        request = merge_patch(
            KINDS[key.group], key.namespace, key.name, body, subresource="status", field_manager=FIELD_MANAGER
        )
        return decode_profiling_config(await self._client.send(request))
