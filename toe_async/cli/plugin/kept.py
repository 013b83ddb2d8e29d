"""What a run of mode ephemeral keeps inside of its pods: fetched with the user's own right to exec, while it is there.

The tool's container has the supervisor, whose `fetch` writes a leaf to stdout from an offset on; so a broken connection
costs no more than what was on its way.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import msgspec

from toe_async.agent.protocol import SUPERVISOR
from toe_async.apis.kinds import PODS
from toe_async.apis.powertool import PowerTool
from toe_async.cli.plugin.artifact import Artifact
from toe_async.cli.plugin.refusals import refused
from toe_async.collector.errors import Refused
from toe_async.collector.library import Body
from toe_async.kube.client import Client
from toe_async.kube.errors import KubeError, RemoteCommandBroken
from toe_async.kube.remotechannels import STDOUT
from toe_async.kube.remotecommand import Stream, exec_

SCHEME = "pod://"
_LONGEST_LIST = 1 << 20
_LONGEST_COMPLAINT = 2048
_RETRIES = 5
_FIRST_WAIT = 0.5


class _Leaf(msgspec.Struct, frozen=True):
    name: str


class _Listing(msgspec.Struct, frozen=True):
    """What the supervisor's `list` says, as far as it is needed."""

    leaves: tuple[_Leaf, ...]


def kept_of(found: PowerTool) -> list[Artifact]:
    """The files that the run keeps inside of pods; each is called by its URI."""
    held = []
    for one in found.status.artifacts:
        parts = one.uri.removeprefix(SCHEME).split("/")
        if not one.uri.startswith(SCHEME) or len(parts) != 4:
            continue
        namespace, pod, container, leaf = parts
        held.append(
            Artifact(
                name=one.uri,
                namespace=namespace,
                created=found.status.finished_at,
                size=one.size,
                sha256=one.sha256,
                hold="",
                pod=pod,
                container=container,
                capture=container.removeprefix("toe-"),
                leaf=leaf,
                run=found.metadata.name,
                kind="PowerTool",
                tool=found.spec.tool.name,
                node="",
                service="",
                reason="",
            )
        )
    return held


def is_kept(one: Artifact) -> bool:
    """Whether it is inside of a pod."""
    return one.name.startswith(SCHEME)


class Kept:
    """Reads what `kept_of` names. Every failure is a `Refused`."""

    def __init__(self, client: Client, held: Sequence[Artifact]) -> None:
        self._client = client
        self._held = {one.name: one for one in held if is_kept(one)}

    @asynccontextmanager
    async def content(self, namespace: str, name: str, first: int = 0, end: int | None = None) -> AsyncIterator[Body]:
        """The bytes of one file; a broken connection is gone on with."""
        one = self._held[name]
        async with aclosing(self._pieces(one, first)) as pieces:
            yield Body(
                content_type="application/octet-stream",
                size=one.size - first,
                filename=one.leaf,
                headers={"X-Toe-Sha256": one.sha256},
                pieces=pieces,
            )

    async def release(self, held: Sequence[Artifact]) -> int:
        """Tell each container of which all files are fetched that it need not keep them.

        Returns how many files others still keep: a run's status does not name all of very many.
        """
        left = 0
        for where in sorted({(one.namespace, one.pod, one.container) for one in held}):
            fetched = {one.leaf for one in held if (one.namespace, one.pod, one.container) == where}
            try:
                listed = msgspec.json.decode(await self._said(where, "list"), type=_Listing)
                more = {one.name for one in listed.leaves} - fetched
                if more:
                    left += len(more)
                else:
                    await self._said(where, "fetched")
            except (KubeError, msgspec.DecodeError):
                continue  # it ends by itself in some minutes
        return left

    async def _said(self, where: tuple[str, str, str], command: str) -> bytes:
        said = bytearray()
        async with exec_(self._client, *where, (SUPERVISOR, command)) as stream:
            async for channel, data in stream:
                if channel == STDOUT and len(said) < _LONGEST_LIST:
                    said += data
        return bytes(said)

    async def _pieces(self, one: Artifact, first: int) -> AsyncGenerator[bytes, None]:
        at, failures = first, 0
        while at < one.size:
            command = (SUPERVISOR, "fetch", one.leaf, "--offset", str(at))
            before = at
            try:
                async with AsyncExitStack() as stack:
                    opened = exec_(self._client, one.namespace, one.pod, one.container, command)
                    stream = await stack.enter_async_context(opened)
                    complaint = bytearray()
                    async for channel, data in stream:
                        if channel == STDOUT:
                            at += len(data)
                            yield data
                        elif len(complaint) < _LONGEST_COMPLAINT:
                            complaint += data
                    _check(one, stream, bytes(complaint), short=at < one.size)
                if at < one.size:
                    raise RemoteCommandBroken("the connection was closed before the end")
            except KubeError as error:
                failures = 0 if at > before else failures + 1
                if failures >= _RETRIES:
                    raise refused(error, PODS) from error
                await asyncio.sleep(_FIRST_WAIT * 2**failures)


def _check(one: Artifact, stream: Stream, complaint: bytes, *, short: bool) -> None:
    ended = stream.status
    if ended is not None and not ended.success:
        words = " ".join(complaint.decode(errors="replace").split())[:300] or ended.message
        raise Refused(404, "NotKept", f"{one.leaf} is not kept in pod {one.pod} any more: {words}")
    if short and ended is not None:
        raise Refused(502, "Truncated", f"{one.leaf} in pod {one.pod} is shorter than the run said")
