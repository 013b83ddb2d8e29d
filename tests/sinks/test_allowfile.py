"""The sinks file may change while we run; a broken one never takes the good one away."""

import asyncio
from pathlib import Path

import pytest

from toe_async.apis.captures import S3Ref
from toe_async.lib.tasks import TaskOwner
from toe_async.sinks.allow import Allowed, Refused
from toe_async.sinks.allowfile import AllowFile
from toe_async.sinks.errors import BadSinksFile

ENTRY = "s3: [{endpoint: '', namespaces: [shop], buckets: [profiles]}]"
REF = S3Ref(bucket="profiles")
COLLECTOR = "https://toe-collector.toe-system.svc:8443"


@pytest.mark.looptime
async def test_a_change_is_in_force_without_a_restart_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """An administrator adds the line that the condition asked for, then makes a mistake."""
    path = tmp_path / "sinks.yaml"
    path.write_text("s3: []")
    changes: list[int] = []
    allow = await AllowFile.open(path, COLLECTOR)
    assert isinstance(allow.allow(REF, "shop"), Refused)

    async def until(expected: type[Allowed | Refused]) -> None:
        while not isinstance(allow.allow(REF, "shop"), expected):  # the disk works in real time
            await asyncio.sleep(1)

    async with TaskOwner(lambda name, error: pytest.fail(repr(error))) as owner:
        owner.start(allow.run(lambda: changes.append(1)), name="file")
        path.write_text(ENTRY)
        await until(Allowed)
        path.write_text("s3: [{endpoint: 5}]")
        await asyncio.sleep(100)
        assert isinstance(allow.allow(REF, "shop"), Allowed)
        path.write_text("")
        await until(Refused)
    assert changes == [1, 1]


@pytest.mark.parametrize("text", ["s3: 5", "s4: []", "{"])
async def test_a_file_that_is_broken_at_the_start_is_an_error(tmp_path: Path, text: str) -> None:
    """There is nothing to fall back to; the sentence says what is wrong."""
    path = tmp_path / "sinks.yaml"
    path.write_text(text)
    with pytest.raises(BadSinksFile, match="sinks file"):
        await AllowFile.open(path, COLLECTOR)
    with pytest.raises(BadSinksFile, match="cannot be read"):
        await AllowFile.open(tmp_path / "missing", COLLECTOR)
