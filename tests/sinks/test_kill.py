"""A whole process killed while it delivers, then started again."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.sinks.fake_s3 import Answer, FakeS3
from toe_async.apis.captures import CaptureRecord, S3Ref
from toe_async.sinks.s3requests import PART
from toe_async.sinks.spool import SpoolEntry

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]

_CHILD = """
import asyncio, os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from toe_async.apis.captures import Receipt
from toe_async.lib.clock import SystemClock
from toe_async.sinks.allow import AllowList, parse_policy
from toe_async.sinks.delivery import Delivery
from toe_async.sinks.router import Sinks
from toe_async.sinks.spool import Spool
from toe_async.telemetry.metrics import OperatorMetrics

root, url, die = sys.argv[1:]

async def main():
    spool, clock = Spool(Path(root), 1 << 30, SystemClock()), SystemClock()
    await spool.recover()
    listed = f"s3: [{{endpoint: '{url}', namespaces: ['*'], buckets: ['*'], allowHTTP: true}}]"
    gone = asyncio.Event()

    async def report(record, artifact, outcome):
        if die == "before report":
            os.kill(os.getpid(), 9)
        print("TOLD stored" if isinstance(outcome, Receipt) else f"TOLD {outcome.message}", flush=True)
        if die == "after report":
            os.kill(os.getpid(), 9)

    async with Sinks(None, AllowList(parse_policy(listed), "http://c"), clock=clock, collector_ca=None,
                     collector_token=None, agents_namespace="a", uploader="u") as sinks:
        delivery = Delivery(spool, sinks, report, on_retry=lambda *why: print("TOLD", why[3]), clock=clock,
                            metrics=OperatorMetrics(CollectorRegistry()), deadline_seconds=3600)
        run = asyncio.get_running_loop().create_task(delivery.run())
        while spool.entries():
            await asyncio.sleep(0.01)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
asyncio.run(main())
"""


class Operator:
    """Starts processes over one spool."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.process: asyncio.subprocess.Process | None = None

    async def run(self, root: Path, die: str = "") -> tuple[int, list[str]]:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CHILD, str(root), self.url, die,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await self.process.communicate()
        code = self.process.returncode
        assert code in {0, -signal.SIGKILL}, err.decode()[-2000:]
        return code, [line[5:] for line in out.decode().splitlines() if line.startswith("TOLD ")]

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_an_operator_killed_at_any_step_of_a_delivery_stores_once_and_reports(
    s3: FakeS3, spooled: MakeEntry, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in each state that it can leave behind, and around the report: one object, one manifest, told."""
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id=a\naws_secret_access_key=b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    record = make_record(sink=S3Ref(bucket="profiles", endpoint=s3.url))
    await spooled(record, os.urandom(PART + 1000))
    operator = Operator(s3.url)

    def fresh(name: str) -> Path:
        s3.objects.clear()
        s3.uploads.clear()
        s3.requests.clear()
        s3.before = s3.after = s3.nothing
        return Path(shutil.copytree(tmp_path / "spool", tmp_path / name))

    async def check(root: Path) -> None:
        s3.before = s3.after = s3.nothing
        code, said = await operator.run(root)
        assert (code, said) == (0, ["stored"])
        assert len(s3.objects) == 2
        assert list(root.iterdir()) == []

    assert await operator.run(fresh("whole")) == (0, ["stored"])
    # A recovered entry is looked for under its three names first.
    steps = [operation for operation, _ in s3.requests]
    assert steps == ["Head"] * 4 + ["Create", "Part", "Part", "Complete", "Head", "Put"]
    # Every state that a server can be left in: nothing yet, an open upload, parts, the object, object and manifest.
    for moment, points in (("before", (0, 4)), ("after", (4, 6, 7, 9))):
        for at in points:
            root = fresh(f"{moment}-{at}")

            async def kill(operation: str, key: str, at: int = at) -> Answer:
                if len(s3.requests) == at + 1:
                    await operator.kill()
                return None

            setattr(s3, moment, kill)
            assert await operator.run(root) == (-signal.SIGKILL, [])
            await check(root)
    for die, told in (("before report", []), ("after report", ["stored"])):
        root = fresh(die)
        assert await operator.run(root, die) == (-signal.SIGKILL, told)
        await check(root)
