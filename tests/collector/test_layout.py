"""The date layout from a mounted ConfigMap: taken up when it changes, kept when it is bad."""

import asyncio
from pathlib import Path

import pytest

from tests.collector.rig import Collector, Start
from toe_async.collector.layout import Layout
from toe_async.collector.settings import Limits


def test_no_folder_and_no_file_mean_the_default(tmp_path: Path) -> None:
    """A ConfigMap may be optional."""
    for folder in (None, tmp_path, tmp_path / "missing"):
        layout = Layout(folder)
        layout.reload()
        assert (layout.current.layout, layout.trouble) == ("2006/01/02", None)


@pytest.mark.parametrize("bad", ["../%Y", "", "fixed", "\udcff", "x" * 5000])
def test_a_bad_layout_keeps_the_last_good_one_and_says_so(tmp_path: Path, bad: str) -> None:
    """Until it is mended."""
    file = tmp_path / "dateFormat"
    layout = Layout(tmp_path)
    for text, in_force, fine in (("%Y-%m-%d\n", "%Y-%m-%d", True), (bad, "%Y-%m-%d", False), ("2006", "2006", True)):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        layout.reload()
        assert layout.current.layout == in_force
        assert (layout.trouble is None) is fine


async def test_a_changed_layout_counts_for_captures_registered_from_then_on(start: Start, tmp_path: Path) -> None:
    """What is registered keeps its path, so that an upload tried again finds itself."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "dateFormat").write_text("2006-01")
    async with start(config_dir=config, limits=Limits(reload_seconds=0.02)) as collector:
        await collector.register()
        (config / "dateFormat").write_text("no date")
        await _notes(collector, "dateFormat")
        _, record = await collector.register(id="b" * 32)
        assert record["directory"][-1] == "2026-01"
        (config / "dateFormat").write_text("%Y/week-%V")
        async with asyncio.timeout(5):
            while "dateFormat" in await _ready(collector):
                await asyncio.sleep(0.01)
        _, record = await collector.register(id="c" * 32)
        assert record["directory"][-2:] == ["2026", "week-04"]
        _, receipt = await collector.put(b"x")
        assert "/hot-carts/2026-01/" in receipt["path"]


async def _notes(collector: Collector, word: str) -> None:
    async with asyncio.timeout(5):
        while word not in await _ready(collector):
            await asyncio.sleep(0.01)


async def _ready(collector: Collector) -> str:
    async with collector.call("GET", "/readyz?verbose") as reply:
        assert reply.status == 200
        return await reply.text()
