"""One artifact to the collector, whole when it is small, else in pieces that survive a lost connection (D20).

The collector's offset is the truth: it is asked for at the beginning and after each break, and what lies before it is
never sent again. A connection that breaks without having brought the offset further ends the attempt after a few
times; whoever calls tries again later, and goes on from there.
"""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

from toe_async.apis.captures import ArtifactRecord
from toe_async.lib.backoff import Backoff
from toe_async.sinks.collectorhttp import SILENCE_SECONDS, Answer, CollectorHTTP
from toe_async.sinks.errors import Passing, SinkRefused, SinkUnavailable
from toe_async.sinks.spoolreader import SpoolReader
from toe_async.sinks.tickets import Ticket

PIECE_BYTES = 8 << 20
_CHUNK = 256 << 10
_BREAKS = 3  # in a row without progress
_OFFSET = "Upload-Offset"


class Upload:
    """The upload of one artifact of one capture."""

    def __init__(
        self, http: CollectorHTTP, capture_id: str, artifact: ArtifactRecord, ticket: Ticket, reader: SpoolReader
    ) -> None:
        self._http, self._artifact, self._ticket, self._reader = http, artifact, ticket, reader
        self._path = f"/v1/captures/{capture_id}/artifacts/{quote(artifact.leaf, safe='')}"

    async def run(self) -> bytes:
        """Send what the collector does not have yet and return its receipt.

        Raises:
            SinkUnavailable, SinkRefused.
        """
        if self._artifact.size <= PIECE_BYTES:
            return (await self._put(0, self._artifact.size, {})).body
        offset, waits = await self._offset(), Backoff(0.2, 5.0)
        while True:
            try:
                answer = await self._piece(offset)
                if answer.status != 202:
                    return answer.body
                offset, waits = self._told(answer), Backoff(0.2, 5.0)
            except Passing:
                if waits.failures >= _BREAKS:
                    raise
                await asyncio.sleep(waits.next())
                before, offset = offset, await self._offset()
                if offset > before:
                    waits.reset()

    async def _piece(self, offset: int) -> Answer:
        size = self._artifact.size
        if offset >= size:
            # Everything is there, and maybe stored: no byte more is needed for the receipt.
            return await self._put(size, size, {"Content-Range": f"bytes */{size}"})
        end = min(offset + PIECE_BYTES, size)
        total = str(size) if end == size else "*"
        return await self._put(offset, end, {"Content-Range": f"bytes {offset}-{end - 1}/{total}"})

    async def _offset(self) -> int:
        said = {"X-Toe-Sha256": self._artifact.sha256, "X-Toe-Size": str(self._artifact.size)}
        answer = await self._http.ask("HEAD", self._path, await self._ticket.token(), headers=said)
        return self._artifact.size if answer.headers.get("Upload-Complete") == "?1" else self._told(answer)

    def _told(self, answer: Answer) -> int:
        said = answer.headers.get(_OFFSET, "")
        if not said.isdecimal() or len(said) > 18 or int(said) > self._artifact.size:
            raise SinkUnavailable(
                "the collector's offset cannot be read; is it a collector of this release?", sink_wide=False
            )
        return int(said)

    async def _put(self, first: int, end: int, headers: dict[str, str]) -> Answer:
        """Send the bytes from `first` to before `end`. A 416 tells where to go on, as a 202 does."""
        token = await self._ticket.token()
        if first < end:
            await self._reader.start_at(first)
        damage: list[SinkRefused] = []
        said = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - first),
            "X-Toe-Sha256": self._artifact.sha256,
            **headers,
        }
        try:
            # aiohttp puts no limit on how long a peer may take nothing of a body, so each chunk moves this one.
            async with asyncio.timeout(SILENCE_SECONDS) as silence:
                body = _body(self._reader, end - first, silence, damage)
                answer = await self._http.ask(
                    "PUT", self._path, token, data=body, headers=said, expect100=True, also=frozenset({416})
                )
        except TimeoutError as error:
            raise Passing(f"the collector took nothing for {SILENCE_SECONDS:g} s") from error
        except SinkUnavailable:
            if damage:
                raise damage[0] from None
            raise
        if answer.status == 416:
            raise Passing("the collector has another part of this artifact than we thought")
        return answer


async def _body(
    reader: SpoolReader, left: int, silence: asyncio.Timeout, damage: list[SinkRefused]
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while left:
        try:
            chunk = await reader.read(min(left, _CHUNK))
        except SinkRefused as error:
            damage.append(error)  # aiohttp reports any fault of a body as a lost connection
            raise
        left -= len(chunk)
        silence.reschedule(loop.time() + SILENCE_SECONDS)
        yield chunk
