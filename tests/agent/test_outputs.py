"""From what a tool left to what is stored of it: which files, under which names, and what is said when some are not."""

import asyncio
import gzip
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.agent.uploading import CAPTURE, Need, orders, rigged, run, state_folder
from toe_async.agent import zstd
from toe_async.agent.gathering import MOST_LEAVES
from toe_async.agent.outputs import Outputs
from toe_async.agent.protocol import Leaf
from toe_async.agent.supervisor import CollectingError
from toe_async.collector.captures import MOST_LEAVES as MOST_OF_THE_COLLECTOR


class Claim:
    """The cheapest place to see leaves in: a folder as claim."""

    def __init__(self, tmp_path: Path) -> None:
        self.mount, self._tmp = tmp_path / "pvc", tmp_path
        self.mount.mkdir()

    def store(self, files: dict[str, bytes], **changes: object) -> tuple[Leaf, ...]:
        told = orders(**({"mode": "pvc", "pvc_path": ""} | changes))
        return run(Outputs(str(self.mount)), told, state_folder(self._tmp, files))

    def stored(self) -> dict[str, bytes]:
        return {path.name[11:]: path.read_bytes() for path in self.mount.iterdir()}


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    return Claim(tmp_path)


def test_only_what_the_globs_match_is_stored_and_the_rest_stays(claim: Claim, tmp_path: Path) -> None:
    claim.store({"out/a.pcap": b"a", "out/sub/b.pcap": b"b", "out/c.tmp": b"c", "stdout": b""}, outputs=("*.pcap",))
    assert claim.stored() == {"a.pcap": b"a", "sub-b.pcap": b"b"}
    assert (tmp_path / "toe-run" / "out" / "c.tmp").exists()
    assert list((tmp_path / "toe-run" / "leaves").iterdir()) == []


def test_what_is_compressed_is_not_compressed_again(claim: Claim) -> None:
    packed = gzip.compress(b"z" * 1000)
    claim.store({"out/a.gz": packed, "out/a": b"y" * 1000, "stdout": b"said", "log": b"warned"}, compress="gzip")
    stored = claim.stored()
    assert stored.pop("tcpdump.log") == b"warned"
    assert gzip.decompress(stored.pop("tcpdump.out.gz")) == b"said"
    assert gzip.decompress(stored.pop("a.gz")) == b"y" * 1000
    (name,) = stored
    assert name.startswith("a-")
    assert name.endswith(".gz")
    assert stored[name] == packed


def test_strange_names_are_stored_under_safe_ones(claim: Claim) -> None:
    names = ["mit leer.txt", "ünï.txt", "-rf", ".hidden", "con.txt", "x" * 200, "a\nb", "\udcff"]
    claim.store({f"out/{name}": bytes([number + 65]) for number, name in enumerate(names)})
    stored = claim.stored()
    assert sorted(stored.values()) == [bytes([number + 65]) for number in range(len(names))]
    assert all(name.isascii() and name.isprintable() and " " not in name for name in stored)


def test_planted_links_and_pipes_bring_nothing_from_elsewhere(claim: Claim, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key of the target")
    folder = state_folder(tmp_path, {"out/mine": b"m"})
    (folder / "out" / "link").symlink_to(tmp_path / "secret")
    (folder / "out" / "up").symlink_to("/")
    os.mkfifo(folder / "out" / "pipe")
    (folder / "stdout").symlink_to(tmp_path / "secret")
    (folder / "log").symlink_to(tmp_path / "secret")
    with pytest.raises(CollectingError, match="cannot be read") as error:
        claim.store({})
    assert {leaf.name: leaf.state for leaf in error.value.leaves} == {"mine": "stored", "tcpdump.out": "lost"}
    assert claim.stored() == {"mine": b"m"}
    assert (tmp_path / "secret").read_text() == "key of the target"


def test_an_output_folder_that_became_a_link_is_not_gone_through(claim: Claim, tmp_path: Path) -> None:
    folder = state_folder(tmp_path, {"stdout": b"said"})
    (folder / "out").rmdir()
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(CollectingError, match="cannot be read"):
        run(Outputs(str(claim.mount)), orders(mode="pvc"), folder)
    assert claim.stored() == {"tcpdump.out": b"said"}


@pytest.mark.slow  # making them is
def test_ten_thousand_files_are_two_hundred_leaves_and_a_word_about_the_rest(tmp_path: Path) -> None:
    folder = state_folder(tmp_path, {"log": b"warned"})
    for number in range(10_000):
        file = os.open(f"{folder}/out/f{number:05}", os.O_CREAT | os.O_WRONLY)
        os.write(file, b"x")
        os.close(file)
    with pytest.raises(CollectingError, match=r"9801 files more than the 200.*narrow") as error:
        run(Outputs(), orders(mode="ephemeral"), folder)
    assert error.value.reason == "TooLarge"
    assert len(error.value.leaves) == MOST_LEAVES
    assert {leaf.state for leaf in error.value.leaves} == {"kept"}
    assert "tcpdump.log" in os.listdir(folder / "leaves")


def test_no_run_has_more_leaves_than_the_collector_takes() -> None:
    assert MOST_LEAVES <= MOST_OF_THE_COLLECTOR


@pytest.mark.parametrize(
    ("files", "outputs", "words"),
    [
        ({}, (), "left no file and"),
        ({"stdout": b"", "out/empty": b""}, (), "left no file and"),
        ({"log": b"permission denied"}, (), "left no file and"),
        ({"out/core": b"x"}, ("*.pcap", "*.txt"), r"no file that matches \*.pcap, \*.txt"),
    ],
    ids=["nothing", "empty", "only a log", "no match"],
)
def test_no_output_is_a_failure(claim: Claim, files: dict[str, bytes], outputs: tuple[str, ...], words: str) -> None:
    with pytest.raises(CollectingError, match=words) as error:
        claim.store(files, outputs=outputs)
    assert error.value.reason == "NoOutput"
    assert [leaf.name for leaf in error.value.leaves] == (["tcpdump.log"] if "log" in files else [])


def test_the_log_is_stored_of_a_tool_that_left_nothing_else(claim: Claim) -> None:
    with pytest.raises(CollectingError):
        claim.store({"log": b"permission denied"})
    assert claim.stored() == {"tcpdump.log": b"permission denied"}


def test_one_that_is_too_large_is_lost_alone(claim: Claim, tmp_path: Path) -> None:
    with pytest.raises(CollectingError, match="1 of 2 artifacts are lost: larger than the 1000 bytes") as error:
        claim.store({"out/a": b"x" * 1001, "out/b": b"y" * 1000}, max_bytes=1000)
    assert error.value.reason == "TooLarge"
    assert claim.stored() == {"b": b"y" * 1000}
    assert not (tmp_path / "toe-run" / "out" / "a").exists()


def test_where_gzip_stands_in_for_zstd_the_result_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd, "_library", lambda: None)
    (tmp_path / "pvc").mkdir()
    outputs = Outputs(str(tmp_path / "pvc"))
    (leaf,) = run(outputs, orders(mode="pvc", compress="zstd"), state_folder(tmp_path, {"stdout": b"said"}))
    assert leaf.name == "tcpdump.out.gz"
    assert "no libzstd" in outputs.note


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_of_the_container_loses_what_does_not_fit_and_says_so(claim: Claim, tmp_path: Path) -> None:
    folder = state_folder(tmp_path, {})
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", folder], check=False).returncode != 0:
        pytest.skip("no right to mount")
    try:
        with pytest.raises(CollectingError, match="disk of the tool's container is full") as error:
            claim.store({"out/a": os.urandom(900_000), "out/b": b"small"}, compress="gzip")
        assert error.value.reason == "StoreFull"
        assert {leaf.name: leaf.state for leaf in error.value.leaves} == {"a.gz": "lost", "b.gz": "stored"}
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_cancel_before_the_start_stores_nothing(claim: Claim, tmp_path: Path) -> None:
    outputs = Outputs(str(claim.mount))
    outputs.cancel()
    with pytest.raises(CollectingError, match="1 of 1 artifacts were not stored when the run was cancelled"):
        run(outputs, orders(mode="pvc"), state_folder(tmp_path, {"stdout": b"said"}))
    assert claim.stored() == {}


async def test_segments_of_stdout_are_stored_while_the_tool_runs(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        folder = state_folder(tmp_path, {})
        outputs = Outputs()
        outputs.token(rig.token())
        outputs.start(orders(endpoint=rig.front, rolling=60.0, compress="gzip"), str(folder))
        stored = []
        with (folder / "stdout").open("ab", buffering=0) as tool:
            for minute in range(3):
                tool.write(b"minute %d\nand a ha" % minute)
                await asyncio.to_thread(outputs.tick, 60.0 * minute)
                stored.append(sorted(rig.stored()))
        assert stored == [[], ["tcpdump-0001.out.gz"], ["tcpdump-0001.out.gz", "tcpdump-0002.out.gz"]]
        leaves = await asyncio.to_thread(outputs.finish, time.monotonic() + 10, lambda: None)
        assert [leaf.name for leaf in leaves] == [f"tcpdump-000{number}.out.gz" for number in (1, 2, 3)]
        whole = b"".join(gzip.decompress(rig.stored()[leaf.name]) for leaf in leaves)
        assert whole == b"minute 0\nand a haminute 1\nand a haminute 2\nand a ha"


async def test_files_that_a_tool_rotates_are_stored_once_they_are_finished(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        folder = state_folder(tmp_path, {})
        outputs = Outputs()
        outputs.token(rig.token())
        outputs.start(orders(endpoint=rig.front, rolling=60.0, outputs=("*.pcap",)), str(folder))
        first = (folder / "out" / "dump1.pcap").open("wb")
        first.write(b"first")
        await asyncio.to_thread(outputs.tick, 0.0)
        first.close()
        with (folder / "out" / "dump2.pcap").open("wb", buffering=0) as second:
            second.write(b"sec")
            await asyncio.to_thread(outputs.tick, 1.0)
            assert rig.stored() == {"dump1.pcap": b"first"}
            assert os.listdir(folder / "out") == ["dump2.pcap"]
            await asyncio.to_thread(outputs.tick, 100.0)
            second.write(b"ond")
        leaves = await asyncio.to_thread(outputs.finish, time.monotonic() + 10, lambda: None)
        assert [leaf.name for leaf in leaves] == ["dump1.pcap", "dump2.pcap"]
        assert rig.stored() == {"dump1.pcap": b"first", "dump2.pcap": b"second"}
        assert (await rig.register())[1]["state"] == "Complete"


async def test_a_segment_that_waits_for_a_token_asks_for_one_while_the_tool_runs(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        folder = state_folder(tmp_path, {"stdout": b"line\n"})
        outputs, need = Outputs(), Need()
        outputs.start(orders(endpoint=rig.front, rolling=1.0), str(folder), need)
        for now in (0.0, 2.0, 3.0):
            await asyncio.to_thread(outputs.tick, now)
        assert (need.asked, rig.stored()) == (1, {})
        outputs.token(rig.token())
        await asyncio.to_thread(outputs.tick, 4.0)
        assert rig.stored() == {"tcpdump-0001.out": b"line\n"}
        (leaf,) = await asyncio.to_thread(outputs.finish, time.monotonic() + 10, need)
        assert (leaf.state, need.asked) == ("stored", 1)


async def test_without_a_token_segments_wait_for_the_end_and_are_not_lost(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        folder = state_folder(tmp_path, {"stdout": b"line\n"})
        outputs = Outputs()
        outputs.start(orders(endpoint=rig.front, rolling=1.0), str(folder))
        for now in (0.0, 2.0, 4.0):
            await asyncio.to_thread(outputs.tick, now)
        (leaf,) = await asyncio.to_thread(
            outputs.finish, time.monotonic() + 10, lambda: outputs.token(rig.token(CAPTURE))
        )
        assert (leaf.name, leaf.state) == ("tcpdump-0001.out", "stored")


def test_no_rotated_file_is_missed_though_their_numbers_are_used_again(claim: Claim, tmp_path: Path) -> None:
    folder = state_folder(tmp_path, {})
    outputs = Outputs(str(claim.mount))
    outputs.start(orders(mode="pvc", rolling=60.0), str(folder))
    numbers = set()
    for number in range(20):
        file = folder / "out" / f"{number:02}.txt"
        file.write_bytes(b"%d" % number)
        numbers.add(file.stat().st_ino)
        outputs.tick(float(number))
    outputs.finish(time.monotonic() + 10, lambda: None)
    assert claim.stored() == {f"{number:02}.txt": b"%d" % number for number in range(20)}
    print(f"{len(numbers)} inodes for 20 files")


def test_rotated_files_are_bounded_together(claim: Claim, tmp_path: Path) -> None:
    """Each is gone from the folder when the next one comes, so nobody else could add them up."""
    folder = state_folder(tmp_path, {})
    outputs = Outputs(str(claim.mount))
    outputs.start(orders(mode="pvc", rolling=60.0, max_output_bytes=2500), str(folder))
    for number in range(4):
        (folder / "out" / f"{number}.txt").write_bytes(b"x" * 1000)
        outputs.tick(float(number))
    with pytest.raises(CollectingError, match="2 of 4 artifacts are lost: beyond the 2500 bytes") as error:
        outputs.finish(time.monotonic() + 5, lambda: None)
    assert error.value.reason == "TooLarge"
    assert sorted(claim.stored()) == ["0.txt", "1.txt"]
