"""Readiness probes: one TCP connection or one HTTP request to the pod's address."""

import asyncio

from toe_async.sandbox.status import JsonObject


async def ready(probe: JsonObject, address: str, container: JsonObject) -> bool:
    """Whether a probe succeeds now. Kinds that the sandbox does not know count as ready."""
    http = probe.get("httpGet")
    target = http or probe.get("tcpSocket")
    if target is None:
        return True
    port = _port(target["port"], container)
    writer = None
    try:
        async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
            reader, writer = await asyncio.open_connection(address, port)
            if http is None:
                return True
            path = http.get("path") or "/"
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode("ascii", "replace"))
            line = (await reader.readline()).split()
            return len(line) > 1 and line[1].isdigit() and 200 <= int(line[1]) < 400
    except (OSError, TimeoutError, ValueError):
        return False
    finally:
        if writer is not None:
            writer.close()


def _port(named: int | str, container: JsonObject) -> int:
    if isinstance(named, int):
        return named
    ports = {one.get("name"): one["containerPort"] for one in container.get("ports") or ()}
    return int(ports.get(named, 0))
