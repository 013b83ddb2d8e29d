"""The supervisor as a process of its own, with a real collector behind a network that breaks."""

import asyncio
import gzip
import hashlib
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faultproxy import Cut, How

from tests.agent.uploading import CAPTURE, MIB, Rig, orders, rigged
from toe_async.agent.protocol import Orders, digest, encode_orders, message


class Supervisor:
    """What an operator sees of it."""

    def __init__(self, process: asyncio.subprocess.Process, root: Path) -> None:
        self.process, self.root = process, root
        self.said: list[dict[str, Any]] = []

    def tell(self, kind: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(message(kind, **fields))

    async def until(self, kind: str) -> dict[str, Any]:
        """The next event of a kind."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            if self.said[-1]["type"] == kind:
                return self.said[-1]
        raise AssertionError(f"no {kind} came, exit code {await self.process.wait()}: {self.said}")


@asynccontextmanager
async def supervised(told: Orders, tmp_path: Path) -> AsyncIterator[Supervisor]:
    (tmp_path / "state").mkdir()
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "toe_async.agent",
            "run",
            "--capture",
            CAPTURE,
            "--orders",
            digest(told),
            "--wait",
            "30",
        ),
        *("--termination-log", str(tmp_path / "log"), "--state-root", str(tmp_path / "state")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        made = Supervisor(process, tmp_path / "state")
        await made.until("ready")
        made.tell("orders", orders=json.loads(encode_orders(told)))
        await made.until("accepted")
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def tool(seconds: float, size: int, seed: int) -> tuple[str, ...]:
    """Writes a file of random bytes, and lines while it runs."""
    code = (
        "import random, sys, time\n"
        f"open(sys.argv[1] + '/dump.pcap', 'wb').write(random.Random({seed}).randbytes({size}))\n"
        f"for n in range(10): print('line', n, flush=True); time.sleep({seconds / 10})\n"
    )
    return (sys.executable, "-c", code, "{output}")


async def ended(supervisor: Supervisor, rig: Rig) -> dict[str, Any]:
    """Answer each request for a token until there is a result."""
    answering = asyncio.get_running_loop().create_task(supervisor.until("result"))
    supervisor.tell("token", token=rig.token())
    result = await asyncio.wait_for(answering, 30)
    assert await supervisor.process.wait() == 0
    assert list(supervisor.root.iterdir()) == []
    return result


async def test_a_tools_output_arrives_through_a_network_that_breaks(tmp_path: Path) -> None:
    size = 4 * MIB
    ways = (How.CLOSE, How.RESET, How.RESET, How.MUTE)
    cuts = [Cut(number * MIB + 100_000, how) for number, how in enumerate(ways)]
    async with rigged(tmp_path, *cuts) as rig:
        told = orders(endpoint=rig.front, argv=tool(0.1, size, 7), duration=20.0, compress="gzip")
        async with supervised(told, tmp_path) as supervisor:
            result = await ended(supervisor, rig)
        stored = rig.stored()
        assert gzip.decompress(stored["dump.pcap.gz"]) == random.Random(7).randbytes(size)
        assert gzip.decompress(stored["tcpdump.out.gz"]).splitlines() == [b"line %d" % n for n in range(10)]
        assert {leaf["name"]: leaf["sha256"] for leaf in result["leaves"]} == {
            name: hashlib.sha256(content).hexdigest() for name, content in stored.items()
        }
        assert {leaf["state"] for leaf in result["leaves"]} == {"stored"}
        assert (await rig.register())[1]["state"] == "Complete"
        assert rig.proxy.happened == 4
        print(f"{rig.proxy.sent / sum(map(len, stored.values())):.3f} times the size was sent")


@pytest.mark.slow
async def test_segments_arrive_while_the_tool_runs(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        told = orders(endpoint=rig.front, argv=tool(4.0, 10, 7), duration=20.0, rolling=1.0, compress="none")
        async with supervised(told, tmp_path) as supervisor:
            await asyncio.wait_for(supervisor.until("need-token"), 10)  # asked for while the tool runs
            assert [one["phase"] for one in supervisor.said if one["type"] == "state"][-1] == "running"
            supervisor.tell("token", token=rig.token())
            running = asyncio.get_running_loop().create_task(supervisor.until("result"))
            while not rig.stored():
                assert not running.done()
                await asyncio.sleep(0.05)
            result = await asyncio.wait_for(running, 20)
        parts = [leaf["name"] for leaf in result["leaves"] if leaf["name"].startswith("tcpdump-")]
        assert len(parts) >= 2
        whole = b"".join(rig.stored()[name] for name in sorted(parts))
        assert whole.splitlines() == [b"line %d" % n for n in range(10)]
