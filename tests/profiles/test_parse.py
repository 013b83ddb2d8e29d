"""Profiles of unknown origin: told apart by content, refused in words, and cheap to refuse whatever they are."""

import gzip
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.profiles.limits import Limits
from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType
from toe_async.profiles.parse import parse
from toe_async.profiles.pprof import encode

CPU = Profile(
    sample_types=(ValueType("samples", "count"), ValueType("cpu", "nanoseconds")),
    samples=(Sample((Frame("work", "a.go", 3), Frame("main")), (2, 20)), Sample((Frame("main"),), (1, 10))),
)
FOLDED = b"main;work 2\nmain 1\n"


@pytest.mark.parametrize(
    ("raw", "stacks"),
    [
        pytest.param(encode(CPU), {("work", "main"): (2, 20), ("main",): (1, 10)}, id="pprof as it is stored"),
        pytest.param(
            zlib.decompress(encode(CPU), 31), {("work", "main"): (2, 20), ("main",): (1, 10)}, id="plain pprof"
        ),
        pytest.param(FOLDED, {("work", "main"): (2,), ("main",): (1,)}, id="folded stacks"),
        pytest.param(gzip.compress(FOLDED), {("work", "main"): (2,), ("main",): (1,)}, id="folded stacks in gzip"),
        pytest.param(b"\n\r\n a b;c d_[k] 7", {("c d_[k]", " a b"): (7,)}, id="spaces and annotations in frames"),
        pytest.param(b"a;b 3 5\na 0 2\n", {("b", "a"): (3, 5), ("a",): (0, 2)}, id="the differential form"),
        pytest.param(b"a;b 3 5\na 2\n", {("b 3", "a"): (5,), ("a",): (2,)}, id="two numbers on some lines only"),
        pytest.param("größe;日本 4\n".encode(), {("日本", "größe"): (4,)}, id="names beyond ASCII"),
        pytest.param(
            b"<module> (a.py:1);{main} 4\n", {("{main}", "<module> (a.py:1)"): (4,)}, id="no web page, no JSON"
        ),
        pytest.param(b"a\xff;b 1\n", {("b", "a�"): (1,)}, id="bytes that are no UTF-8"),
    ],
)
def test_each_form_is_told_by_its_content(raw: bytes, stacks: dict[tuple[str, ...], tuple[int, ...]]) -> None:
    """No file name and no content type is asked."""
    found = parse(raw)
    assert {tuple(frame.function for frame in one.stack): one.values for one in found.samples} == stacks


def test_folded_stacks_say_nothing_about_what_they_count() -> None:
    """So the type is the one that every reader shows, and the differential form names its columns."""
    assert parse(FOLDED).sample_types == (ValueType("samples", "count"),)
    assert [kind.type for kind in parse(b"a 1 2\n").sample_types] == ["before", "after"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(gzip.compress(b""), "empty", id="nothing in gzip"),
        pytest.param(b"\n  \n", "no line with text", id="blank lines"),
        pytest.param(b"PK\x03\x04rest", "zip", id="zip"),
        pytest.param(b"FLR\x00\x00", "JFR", id="Java flight recording"),
        pytest.param(b"PERFILE2\x00", "perf script", id="perf's own file"),
        pytest.param(b"\x28\xb5\x2f\xfd\x00", "zstd", id="zstd"),
        pytest.param(b'{"profiles": []}', "JSON", id="JSON"),
        pytest.param(b"<!doctype html>", "HTML", id="a web page"),
        pytest.param(b"goroutine profile: total 7\n7 @ 0x1\n", "debug=1", id="Go's own text form"),
        pytest.param(b"a;b 1\nno number\n", "line 2", id="a line without number"),
        pytest.param(bytes(200), "field number 0", id="zeros"),
        pytest.param(gzip.compress(gzip.compress(FOLDED)), "twice", id="gzip in gzip"),
        pytest.param(gzip.compress(FOLDED) + b"x", "follow", id="bytes behind gzip"),
        pytest.param(gzip.compress(FOLDED)[:-4], "ends early", id="gzip cut"),
        pytest.param(gzip.compress(b"a" * (3 << 20)), "250 times", id="more gzip than profiles ever have"),
    ],
)
def test_what_is_no_profile_is_refused_with_what_it_is(raw: bytes, words: str) -> None:
    """The sentence says what to do about it, in at most a line."""
    with pytest.raises(ProfileError, match=words) as refusal:
        parse(raw)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("limits", "raw", "words"),
    [
        pytest.param(Limits(inflated_bytes=10), FOLDED, "more than 10 bytes", id="bytes"),
        pytest.param(Limits(inflated_bytes=10), gzip.compress(FOLDED), "more than 10 bytes", id="inflated bytes"),
        pytest.param(Limits(samples=1), FOLDED, "more than 1 lines", id="lines"),
        pytest.param(Limits(depth=1), FOLDED, "more than 1 frames", id="depth"),
        pytest.param(Limits(frames=2), FOLDED, "more than 2 frames", id="frames"),
        pytest.param(Limits(functions=1), FOLDED, "more than 1 functions", id="functions"),
        pytest.param(Limits(samples=1), encode(CPU), "more than 1 samples", id="samples of pprof"),
    ],
)
def test_every_limit_of_the_caller_holds(limits: Limits, raw: bytes, words: str) -> None:
    """A renderer with less memory gives less."""
    with pytest.raises(ProfileError, match=words):
        parse(raw, limits)


@given(st.binary(max_size=60) | st.text(st.sampled_from("ab; 0123456789-\n\x00"), max_size=60).map(str.encode))
def test_any_bytes_are_a_profile_or_a_profile_error(raw: bytes) -> None:
    """No other exception ever comes out, gzip or not."""
    for form in (raw, gzip.compress(raw)):
        try:
            found = parse(form)
        except ProfileError:
            continue
        assert all(len(one.values) == len(found.sample_types) for one in found.samples)


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def block(field: int, body: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(body)) + body


HEAD = block(1, b"\x08\x01\x10\x02") + b"".join(block(6, text) for text in (b"", b"cpu", b"nanoseconds"))
MILLION = 1_000_000


def bomb(megabytes: int, head: bytes) -> bytes:
    """One KB of gzip for each MB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    return b"".join([packer.compress(head), *(packer.compress(zeros) for _ in range(megabytes)), packer.flush()])


HOSTILE: dict[str, Callable[[], bytes]] = {
    "gzip, 1 GB": lambda: bomb(1024, HEAD),
    "gzip, 100 MB of a stack": lambda: bomb(100, b"a;b 1\n"),
    "gzip in gzip in gzip": lambda: gzip.compress(gzip.compress(bomb(100, HEAD))),
    "ten million strings": lambda: HEAD + block(6, b"") * (8 * MILLION - 100),
    "ten million strings in gzip": lambda: gzip.compress(HEAD + block(6, b"") * 10 * MILLION, 1),
    "a stack a million deep": lambda: HEAD + block(2, block(1, b"\x01" * MILLION) + block(2, b"\x01")),
    "a stack a million deep, one by one": lambda: HEAD + block(2, b"\x08\x01" * MILLION + block(2, b"\x01")),
    "a million inlined calls": lambda: HEAD + block(4, b"\x08\x01" + block(4, b"\x08\x01") * MILLION),
    "ids that stand for themselves": lambda: HEAD + block(4, b"\x08\x01" + block(4, b"\x08\x01")) * 2 * 100_000,
    "unknown fields": lambda: b"\x68\x01" * (8 * MILLION - 100) + HEAD,
    "unknown fields in a sample": lambda: HEAD + block(2, b"\x28\x01" * 7 * MILLION),
    "folded, a stack a million deep": lambda: b"a;" * MILLION + b"b 1\n",
    "folded, empty lines": lambda: b"a 1\n" + b"\n" * 15 * MILLION,
    "folded, a million stacks": lambda: b"".join(b"a%d 1\n" % i for i in range(MILLION)),
    "folded, a million functions": lambda: b"".join(
        b";".join(b"%x" % (20 * i + k) for k in range(20)) + b" 1\n" for i in range(50_000)
    ),
    "folded, one endless line": lambda: b"a" * 15 * MILLION,
    "folded, an endless number": lambda: b"a " + b"1" * 15 * MILLION,
}
CHILD = """
import resource, sys, time
from toe_async.profiles.parse import parse
from toe_async.profiles.model import ProfileError
def kib(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
raw = open(sys.argv[1], "rb").read()
before = kib("VmRSS")
begun = time.process_time()
try:
    parse(raw)
except ProfileError as error:
    print(time.process_time() - begun, kib("VmHWM") - before, str(error).replace("\\n", " "))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_profile_is_refused_in_a_second_and_in_50_mb(name: str, tmp_path: Path) -> None:
    """H12, measured from outside, in a process of its own; the bound of time is doubled for a busy machine."""
    path = tmp_path / "profile"
    path.write_bytes(HOSTILE[name]())
    done = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True, timeout=30, check=True)
    seconds, kib, words = done.stdout.split(maxsplit=2)
    print(f"{name}: {path.stat().st_size:,} bytes, {float(seconds):.2f} s, {int(kib) / 1024:.1f} MB: {words.strip()}")
    assert float(seconds) < 2
    assert int(kib) < 50 << 10
