"""Compressed, hashed and bounded, as the programs that read it see it."""

import gzip
import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toe_async.agent import zstd
from toe_async.agent.faults import Lost, Stopped
from toe_async.agent.packing import GZIP_INSTEAD, measure, pack, usable

CONTENT = b"".join(b"line %d of a trace\n" % n for n in range(40_000)) + random.Random(4).randbytes(300_000)


@contextmanager
def files(tmp_path: Path, content: bytes = CONTENT) -> Iterator[tuple[int, int, Path]]:
    (tmp_path / "source").write_bytes(content)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    try:
        yield source, target, tmp_path / "target"
    finally:
        os.close(source)
        os.close(target)


def reads(method: str, packed: Path) -> bytes:
    if method == "gzip":
        return gzip.decompress(packed.read_bytes())
    if method == "zstd":
        return subprocess.run(["zstd", "-dc", packed], capture_output=True, check=True).stdout
    return packed.read_bytes()


needs_zstd = pytest.mark.skipif(
    shutil.which("zstd") is None or usable("zstd")[0] != "zstd", reason="needs the program zstd and its library"
)
ZSTD = pytest.param("zstd", marks=needs_zstd)


@pytest.mark.parametrize("method", ["none", "gzip", ZSTD])
@pytest.mark.parametrize("content", [CONTENT, b"x"], ids=["long", "a byte"])
def test_what_is_packed_is_read_back_by_its_own_program(tmp_path: Path, method: str, content: bytes) -> None:
    with files(tmp_path, content) as (source, target, packed):
        size, sha256 = pack(source, (0, len(content)), target, method, max_bytes=0, stopped=bool)
        assert reads(method, packed) == content
        assert size == packed.stat().st_size
        assert sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
        assert measure(target, bool) == (size, sha256)
        if content is CONTENT and method != "none":
            assert size < len(content) / 2


@pytest.mark.parametrize("method", ["none", "gzip", ZSTD])
def test_a_file_that_grows_meanwhile_ends_where_it_ended_at_first(tmp_path: Path, method: str) -> None:
    with files(tmp_path) as (source, target, packed):
        grown = [0]

        def stopped() -> bool:
            with (tmp_path / "source").open("ab") as more:
                grown[0] += more.write(b"y" * 100_000)
            return False

        pack(source, (0, len(CONTENT)), target, method, max_bytes=0, stopped=stopped)
        assert grown[0] > 0
        assert reads(method, packed) == CONTENT


def test_a_part_of_a_file_is_packed_alone(tmp_path: Path) -> None:
    with files(tmp_path) as (source, target, packed):
        pack(source, (10, 500_000), target, "gzip", max_bytes=0, stopped=bool)
        assert reads("gzip", packed) == CONTENT[10:500_000]


def test_what_becomes_too_large_is_given_up_on_the_way(tmp_path: Path) -> None:
    with files(tmp_path, random.Random(1).randbytes(4 << 20)) as (source, target, packed):
        with pytest.raises(Lost, match="1000000 bytes") as lost:
            pack(source, (0, 4 << 20), target, "gzip", max_bytes=1_000_000, stopped=bool)
        assert lost.value.reason == "TooLarge"
        assert packed.stat().st_size <= 1_000_000


def test_it_can_be_stopped_between_two_chunks(tmp_path: Path) -> None:
    calls = iter([False, False, True])
    with files(tmp_path) as (source, target, packed), pytest.raises(Stopped):
        pack(source, (0, len(CONTENT)), target, "none", max_bytes=0, stopped=lambda: next(calls))
    assert packed.stat().st_size == 2 * (256 << 10)


def test_a_full_disk_is_called_by_its_name(tmp_path: Path) -> None:
    with files(tmp_path) as (source, _, _):
        full = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(Lost, match="disk of the tool's container is full") as lost:
            pack(source, (0, len(CONTENT)), full, "none", max_bytes=0, stopped=bool)
        os.close(full)
        assert lost.value.reason == "StoreFull"


@needs_zstd
def test_gzip_stands_in_for_zstd_only_with_a_word_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable("zstd") == ("zstd", "")
    monkeypatch.setattr(zstd, "_library", lambda: None)
    assert usable("zstd") == ("gzip", GZIP_INSTEAD)
    assert usable("none") == ("none", "")
    with pytest.raises(ValueError, match="gzip"):
        usable("rar")


@pytest.mark.parametrize("method", ["gzip", ZSTD])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, method: str) -> None:
    """64 MiB take no more than the first one did."""
    code = f"""
import os, re
from toe_async.agent.packing import pack
file, target = os.open({str(tmp_path / "big")!r}, os.O_RDWR | os.O_CREAT), os.open(os.devnull, os.O_WRONLY)
os.ftruncate(file, 64 << 20)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
pack(file, (0, 1 << 20), target, {method!r}, max_bytes=0, stopped=bool)
before = peak()
pack(file, (0, 64 << 20), target, {method!r}, max_bytes=0, stopped=bool)
print(peak() - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    print(f"{method}: {grown} KiB")
    assert grown < 4 << 10
