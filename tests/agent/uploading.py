"""A real collector in front of an output that a tool left, and the channel by which tokens come."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from faultproxy import Cut, FaultProxy, faulty

from tests.collector.rig import registration
from tests.sinks.test_collector import OWN_TOKEN, FakeApi, collector
from toe_async.agent.outputs import Outputs
from toe_async.agent.protocol import Leaf, Orders

CAPTURE = "abcdefghijklmnopqrstuvwxyz234567"
MIB = 1 << 20


def orders(**changes: Any) -> Orders:
    """Orders of a run whose capture the collector of this rig knows."""
    given: dict[str, Any] = {
        "capture": CAPTURE,
        "tool": "tcpdump",
        "argv": ("true",),
        "duration": 1.0,
        "mode": "collector",
        "max_bytes": 1 << 30,
        "max_output_bytes": 1 << 30,
        "upload_seconds": 30.0,
        "compress": "none",
    }
    return Orders(**(given | changes))


def state_folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """What a tool has left: `stdout`, `log` and what lies in `out/`."""
    folder = tmp_path / "toe-run"
    for name in ("out", "leaves"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def run(outputs: Outputs, told: Orders, folder: Path, *, seconds: float = 20.0, need: Any = None) -> tuple[Leaf, ...]:
    """From the tool's end to the end of its upload, in the calling thread."""
    outputs.start(told, str(folder))
    return outputs.finish(time.monotonic() + seconds, need or (lambda: None))


class Rig:
    """A collector behind a proxy that counts, and the token for one capture."""

    def __init__(self, api: FakeApi, root: Path, url: str, front: str, proxy: FaultProxy) -> None:
        self.api, self.root, self.url, self.front, self.proxy = api, root, url, front, proxy
        self._serial = 0

    def token(self, capture: str = CAPTURE) -> str:
        """A fresh one that is good for one capture."""
        self._serial += 1
        self.api.secrets["ticket"] = {}
        self.api.tokens[f"upload-token-{self._serial}"] = (f"toe-collector/{capture}", "ticket")
        return f"upload-token-{self._serial}"

    async def register(self, *, tls: ssl.SSLContext | bool = True, **changes: Any) -> tuple[int, Any]:
        """As the operator does before a tool starts; again, to learn what is stored."""
        body = registration(leaves=[], leafGlobs=["*"], maxBytes=64 * MIB, kind="PowerTool", tool="tcpdump")
        headers = {"Authorization": f"Bearer {OWN_TOKEN}"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}/v1/captures", json=body | changes, headers=headers, ssl=tls) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def cancel(self) -> None:
        """As the operator does."""
        headers = {"Authorization": f"Bearer {OWN_TOKEN}"}
        async with (
            aiohttp.ClientSession() as http,
            http.delete(f"{self.url}/v1/captures/{CAPTURE}", headers=headers) as answer,
        ):
            assert answer.status == 200

    def stored(self) -> dict[str, bytes]:
        """Leaves that lie in the store."""
        found = (path for path in self.root.rglob(f"*-{CAPTURE[:10]}-*") if ".toe" not in path.parts)
        return {
            path.name.partition(f"-{CAPTURE[:10]}-")[2]: path.read_bytes()
            for path in found
            if not path.name.endswith(".manifest.json")
        }

    async def upload(self, folder: Path, told: Orders | None = None, *, seconds: float = 20.0) -> tuple[Leaf, ...]:
        """A whole run, in a thread, with a token from the beginning."""
        outputs = Outputs()
        outputs.token(self.token())
        return await asyncio.to_thread(run, outputs, told or orders(endpoint=self.front), folder, seconds=seconds)


@asynccontextmanager
async def rigged(tmp_path: Path, *cuts: Cut, register: bool = True) -> AsyncIterator[Rig]:
    """The rig, with the capture registered."""
    api = FakeApi()
    async with (
        collector(api, tmp_path / "store") as url,
        faulty(int(url.rpartition(":")[2]), cuts) as (front, proxy),
    ):
        rig = Rig(api, tmp_path / "store", url, front, proxy)
        if register:
            assert (await rig.register())[0] == 201
        yield rig


class Need:
    """What the supervisor does when a token is asked for: it tells the operator, who may answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.first = threading.Event()

    def __call__(self) -> None:
        self.asked += 1
        self.first.set()
