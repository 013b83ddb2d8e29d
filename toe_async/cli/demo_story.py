"""How the demo tells what goes on, as it goes on."""

import asyncio
import hashlib
import time

import msgspec

from toe_async.apis.kinds import PODS, PROFILING_CONFIGS
from toe_async.apis.meta import find_condition
from toe_async.apis.profilingconfig import ProfilingConfig, decode_profiling_config
from toe_async.apis.profilingstatus import CaptureState, CaptureStatus
from toe_async.cli.demo_cluster import DemoFailed
from toe_async.kube.client import Client
from toe_async.kube.errors import KubeError
from toe_async.kube.requests import Request, get

_LOOK_SECONDS = 0.25
_FETCH_SECONDS = 30.0
_BYTES = "application/octet-stream"


class Story:
    """Prints one line an event, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._told: set[str] = set()

    def tell(self, who: str, what: str) -> None:
        """Print a line, unless it was printed before."""
        if f"{who}{what}" not in self._told:
            self._told.add(f"{who}{what}")
            print(f"{time.monotonic() - self._began:6.1f} s  {who:<10} {what}", flush=True)

    async def follow(self, client: Client) -> CaptureStatus:
        """Tell what the ProfilingConfig's status says until a capture is over; returns that capture.

        Raises:
            DemoFailed: it brought nothing.
        """
        while True:
            config = decode_profiling_config(await client.send(get(PROFILING_CONFIGS, "demo", "hot")))
            self._tell_status(config)
            for row in config.status.recent:
                if row.state in {CaptureState.STORED, CaptureState.PARTIALLY_STORED}:
                    return row
                if row.state.final:
                    raise DemoFailed(await self.post_mortem(client, "the capture brought nothing"))
            await asyncio.sleep(_LOOK_SECONDS)

    def _tell_status(self, config: ProfilingConfig) -> None:
        for row in config.status.recent:
            self.tell("trigger", f"{row.pod}: {row.trigger}")
            self.tell("capture", f"{row.id[:10]} claimed by {row.holder}, profiles come over a port-forward websocket")
            for artifact in row.artifacts:
                if artifact.uri:
                    self.tell("stored", f"{artifact.type}: {artifact.size} bytes, sha256 {artifact.sha256[:12]}...")
                elif artifact.reason:
                    self.tell("missing", f"{artifact.type}: {artifact.reason}")
        ready = find_condition(config.status.conditions, "Ready")
        if ready is not None and not config.status.recent:
            self.tell("status", ready.message)

    async def post_mortem(self, client: Client, what: str) -> str:
        """Gather what explains a failure: conditions, and the operator's last words."""
        lines = [what]
        try:
            config = decode_profiling_config(await client.send(get(PROFILING_CONFIGS, "demo", "hot")))
            lines += [f"  {one.type}={one.status} {one.reason}: {one.message}" for one in config.status.conditions]
            raw = await client.send(get(PODS, "toe-system", "toe-operator", subresource="log"))
            lines += [f"  {line}" for line in raw.decode(errors="replace").splitlines()[-15:]]
        except (KubeError, msgspec.DecodeError) as error:
            lines.append(f"  {error}")
        return "\n".join(lines)


async def fetch(client: Client, uri: str, sha256: str) -> bytes:
    """Read an artifact as a user does, through the API server, and check its digest.

    Raises:
        DemoFailed: it cannot be read, or is not what was promised.
    """
    try:
        body = await client.send(Request("GET", f"{uri}/content", accept=_BYTES, timeout=_FETCH_SECONDS))
    except KubeError as error:
        raise DemoFailed(f"{uri} cannot be read: {error}") from error
    if hashlib.sha256(body).hexdigest() != sha256:
        raise DemoFailed(f"{uri} came with another digest than the receipt says")
    return body


async def draw(client: Client, uri: str) -> bytes:
    """The flame graph of an artifact, one self-contained page, drawn by the collector.

    Raises:
        DemoFailed: it cannot be drawn.
    """
    query = (("as", "flame"),)
    try:
        return await client.send(Request("GET", f"{uri}/render", query, accept="text/html", timeout=_FETCH_SECONDS))
    except KubeError as error:
        raise DemoFailed(f"{uri} cannot be drawn: {error}") from error
