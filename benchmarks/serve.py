"""An API server's list and watch of N synthetic pods on a loopback socket, fast enough not to be what is measured.

Run in a process of its own: ``python -m benchmarks.serve 20000``. It prints its port, then obeys its standard input:
``storm E`` sends E MODIFIED events to every open watch (or to the next one), in turn over the pods, as fast as the
readers take them. All bytes are made before the first request; per event only the version is filled in. It ends with
its standard input.

It speaks what the three clients ask for: LIST with limit and continue, WATCH, and WatchList, in JSON over HTTP/1.1
with chunked bodies. Nothing else: this is no second fake API server, only a source of bytes.
"""

import asyncio
import sys
from urllib.parse import parse_qs, urlsplit

from benchmarks.generate_data import FIRST_VERSION, pods

_BLOCK = 200  # events or items a write: some 1.7 MB
_HEADERS = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_MARK = b'"annotations":{"k8s.io/initial-events-end":"true"},'


class Pods:
    """The encoded pods, cut where the version is to be filled in."""

    def __init__(self, count: int) -> None:
        self.items = list(pods(count))
        self.version = FIRST_VERSION + count
        self._halves = [self._cut(number, item) for number, item in enumerate(self.items)]

    @staticmethod
    def _cut(number: int, item: bytes) -> tuple[bytes, bytes]:
        head, version, tail = item.partition(b'"resourceVersion":"%d"' % (FIRST_VERSION + number))
        assert version
        return b'{"kind":"Pod","apiVersion":"v1",' + head[1:] + b'"resourceVersion":"', b'"' + tail + b"}\n"

    def added(self, number: int) -> bytes:
        """The ADDED event of a pod in its first version."""
        head, tail = self._halves[number]
        return b'{"type":"ADDED","object":%b%d%b' % (head, FIRST_VERSION + number, tail)

    def modified(self, number: int) -> bytes:
        """A MODIFIED event with the next version."""
        self.version += 1
        head, tail = self._halves[number % len(self._halves)]
        return b'{"type":"MODIFIED","object":%b%d%b' % (head, self.version, tail)

    def bookmark(self, notes: bytes) -> bytes:
        """A bookmark of the present version."""
        text = b'{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{%b"resourceVersion":"%d"}}}\n'
        return text % (notes, self.version)


class Server:
    """Answers GETs; open watches wait for storms."""

    def __init__(self, count: int) -> None:
        self._pods = Pods(count)
        self._storms: list[asyncio.Queue[int]] = []
        self._waiting: list[int] = []

    async def serve(self, commands: asyncio.StreamReader) -> None:
        """Serve until ``commands`` ends."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        async with server:
            print(server.sockets[0].getsockname()[1], flush=True)
            while command := await commands.readline():
                events = int(command.split()[1])
                for storm in self._storms:
                    storm.put_nowait(events)
                if not self._storms:
                    self._waiting.append(events)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = urlsplit(head.split(b" ", 2)[1].decode())
                query = {name: values[0] for name, values in parse_qs(target.query).items()}
                writer.write(_HEADERS.encode())
                if query.get("watch", "").lower() in {"1", "true"}:
                    await self._watch(writer, initial="sendInitialEvents" in query)
                else:
                    await self._list(writer, query)
                await _chunk(writer, b"")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _list(self, writer: asyncio.StreamWriter, query: dict[str, str]) -> None:
        items, start = self._pods.items, int(query.get("continue", "0"))
        # A watch cache ignores the limit at version 0.
        limit = len(items) if query.get("resourceVersion") == "0" else int(query.get("limit", len(items)))
        end = min(start + limit, len(items))
        token = b'"continue":"%d",' % end if end < len(items) else b""
        head = b'{"kind":"PodList","apiVersion":"v1","metadata":{%b"resourceVersion":"%d"},"items":['
        await _chunk(writer, head % (token, self._pods.version))
        for at in range(start, end, _BLOCK):
            block = b",".join(items[at : min(at + _BLOCK, end)])
            await _chunk(writer, block if at == start else b"," + block)
        await _chunk(writer, b"]}\n")

    async def _watch(self, writer: asyncio.StreamWriter, *, initial: bool) -> None:
        storm: asyncio.Queue[int] = asyncio.Queue()
        if initial:
            count = len(self._pods.items)
            for at in range(0, count, _BLOCK):
                await _chunk(writer, b"".join(map(self._pods.added, range(at, min(at + _BLOCK, count)))))
            await _chunk(writer, self._pods.bookmark(_MARK))
        self._storms.append(storm)
        while self._waiting:
            storm.put_nowait(self._waiting.pop())
        try:
            while events := await storm.get():
                for at in range(0, events, _BLOCK):
                    await _chunk(writer, b"".join(map(self._pods.modified, range(at, min(at + _BLOCK, events)))))
        finally:
            self._storms.remove(storm)


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


async def main(count: int) -> None:
    """Serve ``count`` pods until standard input ends."""
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await Server(count).serve(commands)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
