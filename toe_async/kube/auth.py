"""Credentials that stay fresh: files are read again, exec plugins run again before what they gave expires.

One reading is a `Material`. Callers ask for the current one at each request, and say which one the server refused; many
callers that were refused together cause one refresh.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from toe_async.kube.errors import CredentialsError, KubeError
from toe_async.kube.execplugin import PluginCredential, run_plugin
from toe_async.kube.kubeconfig import Identity, Plugin, Tls
from toe_async.lib.backoff import Backoff
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry import log

# A kubelet renews a projected token at 80 % of its life, minutes before its end at the least: a minute is soon enough.
REREAD_SECONDS = 60.0
_EARLY = timedelta(seconds=30)
_RERUN_PAUSE = 10.0
_log = log.get("kube.auth")


class Material(Struct, frozen=True):
    """What one request is sent with."""

    tls: Tls
    token: str | None


class Credentials:
    """The current material of one connection. Safe for concurrent callers of one event loop.

    A renewal is a task of ``owner`` that all callers wait for: a caller with little time left does not end it, else a
    slow plugin would never finish under a caller that keeps asking with a short deadline.
    """

    def __init__(
        self, load: Callable[[], Identity], environ: Mapping[str, str], clock: Clock, owner: TaskOwner
    ) -> None:
        self._load, self._environ, self._clock, self._owner = load, environ, clock, owner
        self._renewal: asyncio.Task[Material] | None = None
        self._material: Material | None = None
        self._due = 0.0
        self._plugin: Plugin | None = None
        self._given: PluginCredential | None = None
        self._rerun_at = 0.0
        self._backoff = Backoff(1.0, 30.0)
        self._ran_at = float("-inf")
        self._failure: tuple[float, str] | None = None

    async def current(self) -> Material:
        """The material for a request that starts now.

        Raises:
            ConfigurationError: the files were never readable.
            CredentialsError: the plugin's credential has run out and the plugin fails.
        """
        if self._material is not None and self._clock.monotonic() < self._due:
            return self._material
        return await self._shared(rerun=False)

    async def refresh(self, refused: Material) -> Material:
        """The material to try after the server refused one; the same again when there is nothing newer."""
        while self._renewal is not None:
            await self._shared(rerun=False)
        if self._material is not None and self._material != refused:
            return self._material
        return await self._shared(rerun=True)

    async def _shared(self, *, rerun: bool) -> Material:
        if self._renewal is None:
            self._renewal = self._owner.start(self._renew(rerun=rerun), name="renewal of credentials")
        return await asyncio.shield(self._renewal)

    async def _renew(self, *, rerun: bool) -> Material:
        try:
            self._material = await self._newest(rerun=rerun)
            return self._material
        finally:
            self._renewal = None

    async def _newest(self, *, rerun: bool) -> Material:
        now = self._clock.monotonic()
        if self._failure is not None and now < self._failure[0]:
            raise CredentialsError(self._failure[1])
        try:
            material = await self._read(rerun=rerun)
        except KubeError as error:
            wait = self._backoff.next()
            if self._material is not None and not self._expired():
                # A file that is being replaced, or a plugin with a bad moment: what we have still holds.
                _log.warning("credentials could not be refreshed, keeping the present ones", error=str(error))
                self._due = now + wait
                return self._material
            self._failure = (now + wait, str(error))
            raise
        self._backoff.reset()
        self._failure = None
        return material

    async def _read(self, *, rerun: bool) -> Material:
        identity = await asyncio.to_thread(self._load)
        now = self._clock.monotonic()
        if identity.plugin is None:
            self._plugin = self._given = None
            self._due = now + REREAD_SECONDS
            return Material(identity.tls, identity.token)
        # A server that refuses everything would otherwise start a process for every request.
        rerun = rerun and now - self._ran_at >= _RERUN_PAUSE
        if rerun or self._given is None or self._plugin != identity.plugin or now >= self._rerun_at:
            self._ran_at = now
            given = await run_plugin(identity.plugin, self._environ)
            self._rerun_at = self._rerun_time(given)
            self._plugin, self._given = identity.plugin, given
        self._due = min(now + REREAD_SECONDS, self._rerun_at)
        tls = identity.tls
        if self._given.certificate is not None:
            tls = replace(tls, certificate=self._given.certificate, key=self._given.key)
        return Material(tls, self._given.token)

    def _rerun_time(self, given: PluginCredential) -> float:
        """When to run the plugin again: half a minute early, but never before half of the life has passed."""
        if given.expires is None:
            return float("inf")
        life = given.expires - self._clock.now()
        if life <= timedelta():
            raise CredentialsError("the exec plugin gave a credential that has expired already; check the clocks")
        return self._clock.monotonic() + max(life - _EARLY, life / 2).total_seconds()

    def _expired(self) -> bool:
        return self._given is not None and self._given.expires is not None and self._clock.now() >= self._given.expires
