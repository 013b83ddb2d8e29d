"""pprof files: what Go writes is read, what is written Go reads, and hostile bytes cost little and raise one error."""

import gzip
import io
import re
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType
from toe_async.profiles.pprof import Limits, decode, encode

CPU = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, body: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(body)) + body


STRINGS = b"".join(block(6, text) for text in (b"", b"cpu", b"nanoseconds", b"main.work", b"main.go"))
TYPES = block(1, number(1, 1) + number(2, 2))
FUNCTION = block(5, number(1, 1) + number(2, 3) + number(4, 4))
LOCATION = block(4, number(1, 1) + block(4, number(1, 1) + number(2, 12)))
SAMPLE = block(2, block(1, varint(1)) + block(2, varint(5)))
WHOLE = TYPES + SAMPLE + LOCATION + FUNCTION + STRINGS


def raw_stacks(text: str) -> Counter[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Stacks and values as `go tool pprof -raw` prints them."""
    samples, _, rest = text.partition("Locations\n")
    names: dict[int, list[str]] = {}
    place = 0
    for line in rest.partition("Mappings\n")[0].splitlines():
        found = re.match(r"\s*(\d+): (0x[0-9a-f]+) (?:M=\d+ )?(.*)", line)
        body = line
        if found:
            place, body = int(found[1]), found[3]
            names[place] = []
        function = re.match(r"\s*(.+) \S+:\d+:\d+ s=\d+", body)
        if function:
            names[place].append(function[1])
        elif found:
            names[place].append(found[2])
    counted: Counter[tuple[tuple[str, ...], tuple[int, ...]]] = Counter()
    for line in samples.splitlines():
        found = re.fullmatch(r"\s*((?:-?\d+\s+)*-?\d+): ((?:\d+ ?)+)", line)
        if found:
            stack = tuple(name for place in found[2].split() for name in names[int(place)])
            counted[stack, tuple(int(value) for value in found[1].split())] += 1
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "heap", "allocs", "goroutine", "threadcreate"])
def test_stacks_of_a_go_process_are_read_as_go_itself_reads_them(
    name: str, go_profiles: Path, go_tool: Callable[..., str]
) -> None:
    """Every stack with every value, inlined calls included, equals `go tool pprof -raw`."""
    path = go_profiles / f"{name}.pprof"
    profile = decode(path.read_bytes())
    ours = Counter((tuple(frame.function for frame in sample.stack), sample.values) for sample in profile.samples)
    theirs = raw_stacks(go_tool("-raw", path))
    assert sum(theirs.values()) > 0
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "heap"])
def test_go_reads_what_we_encode(name: str, go_profiles: Path, go_tool: Callable[..., str], tmp_path: Path) -> None:
    """A Go profile, decoded and encoded again, gives the same stacks in Go's own reader."""
    again = tmp_path / "again.pprof"
    again.write_bytes(encode(decode((go_profiles / f"{name}.pprof").read_bytes())))
    assert raw_stacks(go_tool("-raw", again)) == raw_stacks(go_tool("-raw", go_profiles / f"{name}.pprof"))


def test_the_smallest_whole_profile_is_read() -> None:
    """The hand-made message that the refusals below are made from is itself taken."""
    profile = decode(WHOLE)
    assert profile.samples == (Sample((Frame("main.work", "main.go", 12),), (5,)),)


def test_numbers_may_come_one_by_one_instead_of_packed() -> None:
    """proto3 readers take both forms of a repeated number."""
    loose = block(2, number(1, 1) + number(2, 5))
    assert decode(TYPES + loose + LOCATION + FUNCTION + STRINGS) == decode(WHOLE)


def test_negative_values_survive() -> None:
    """A difference of two heap profiles holds negative values."""
    profile = Profile(sample_types=CPU, samples=(Sample((Frame("a"),), (-1, -(1 << 63))),))
    assert decode(encode(profile)) == profile


def test_a_place_without_symbols_is_named_by_its_address() -> None:
    """Stripped binaries show hex addresses."""
    bare = block(4, number(1, 1) + number(3, 0x4A10))
    assert decode(TYPES + SAMPLE + bare + STRINGS).samples[0].stack == (Frame("0x4a10"),)


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [
        pytest.param(b"", "string table", id="nothing"),
        pytest.param(b"<html>", "wire type|over the end", id="a web page"),
        pytest.param(STRINGS, "no sample type", id="no sample types"),
        pytest.param(TYPES, "string table", id="no strings"),
        pytest.param(TYPES + block(6, b"x"), "string table", id="first string is not empty"),
        pytest.param(TYPES + SAMPLE + STRINGS, "location id 1", id="location that is not there"),
        pytest.param(
            TYPES + block(2, block(1, varint(0)) + block(2, varint(5))) + STRINGS, "location id 0", id="location 0"
        ),
        pytest.param(TYPES + SAMPLE + LOCATION + STRINGS, "function id 1", id="function that is not there"),
        pytest.param(WHOLE + LOCATION, "twice", id="location defined twice"),
        pytest.param(WHOLE + FUNCTION, "twice", id="function defined twice"),
        pytest.param(WHOLE + block(5, number(2, 3)), "zero", id="function without id"),
        pytest.param(WHOLE + block(5, number(1, 9) + number(2, 99)), "string 99", id="string that is not there"),
        pytest.param(
            WHOLE + block(2, block(1, varint(1)) + block(2, varint(5) + varint(6))), "numbers", id="too many values"
        ),
        pytest.param(WHOLE + block(2, block(1, varint(1))), "0 values", id="too few values"),
        pytest.param(WHOLE + b"\x0a\x05ab", "over the end", id="field longer than the file"),
        pytest.param(WHOLE + b"\x48", "middle", id="ends inside a field"),
        pytest.param(WHOLE + b"\x48" + b"\xff" * 10 + b"\x01", "64 bits", id="endless number"),
        pytest.param(WHOLE + b"\x0b", "wire type 3", id="group"),
        pytest.param(WHOLE + b"\x00\x00", "field number 0", id="field 0"),
        pytest.param(WHOLE + number(2, 7), "should be a message", id="sample that is a number"),
        pytest.param(WHOLE + block(12, b""), "should be a number", id="period that is a message"),
        pytest.param(
            WHOLE + block(2, block(1, b"\x80")) + SAMPLE, "over the end", id="packed number that runs over its field"
        ),
        pytest.param(gzip.compress(WHOLE)[:-3], "ends early", id="gzip cut in its trailer"),
        pytest.param(gzip.compress(WHOLE)[:-8] + bytes(8), "damaged", id="gzip with a wrong checksum"),
        pytest.param(gzip.compress(WHOLE) + b"x", "follow", id="bytes behind the gzip stream"),
        pytest.param(b"\x1f\x8bnot gzip at all", "damaged", id="gzip magic alone"),
    ],
)
def test_bytes_that_are_no_profile_are_refused_in_words(bytes_: bytes, words: str) -> None:
    """Wrong references, wrong framing and wrong types all end in ProfileError, with a short sentence."""
    with pytest.raises(ProfileError, match=words) as refusal:
        decode(bytes_)
    assert len(str(refusal.value)) < 200


def bomb() -> bytes:
    """1 GiB of zeros behind a first string, in 1 MB of gzip."""
    out = io.BytesIO()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    out.write(packer.compress(WHOLE))
    zeros = bytes(16 << 20)
    for _ in range(64):
        out.write(packer.compress(zeros))
    out.write(packer.flush())
    return out.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "eight million strings": lambda: TYPES + STRINGS + block(6, b"") * 8_000_000,
    "a stack a million deep": lambda: TYPES + block(2, block(1, varint(1) * 1_000_000) + block(2, b"\x01")) + STRINGS,
    "a million inlined calls": lambda: TYPES + block(4, number(1, 1) + block(4, number(1, 1)) * 1_000_000) + STRINGS,
    "eight million samples": lambda: TYPES + b"\x12\x00" * 8_000_000 + STRINGS,
    "eight million unknown fields": lambda: b"\x68\x01" * 8_000_000 + WHOLE,
    "deep stacks of inlined calls": lambda: (
        TYPES
        + STRINGS
        + FUNCTION
        + block(4, number(1, 1) + block(4, number(1, 1)) * 500)
        + block(4, number(1, 2))
        + b"".join(block(2, block(1, varint(1) + varint(2) * count) + block(2, b"\x01")) for count in range(1, 1_500))
        + b"".join(block(2, block(1, varint(2) * count + varint(1)) + block(2, b"\x01")) for count in range(1, 1_500))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HOSTILE, "a gzip bomb"])
def test_hostile_profiles_are_refused_quickly_and_in_little_memory(name: str) -> None:
    """H12: each bomb is refused within two seconds of CPU (one is the target, one is for a busy machine), < 50 MB."""
    data = bomb() if name == "a gzip bomb" else HOSTILE[name]()
    if not data.startswith(b"\x1f\x8b"):
        data = gzip.compress(data, 1)
    begun = time.process_time()
    with pytest.raises(ProfileError, match="more than"):
        decode(data)
    assert time.process_time() - begun < 2
    tracemalloc.start()
    with pytest.raises(ProfileError, match="more than"):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


SMALL = Limits(
    inflated_bytes=4096,
    strings=50,
    locations=50,
    functions=50,
    samples=50,
    sample_types=4,
    depth=50,
    frames=500,
    fields=500,
)
PIECES = [WHOLE, TYPES, SAMPLE, LOCATION, FUNCTION, STRINGS, b"\x0a", b"\x12", b"\xff" * 9, b"\x80", b"\x00"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=12).map(b"".join))
@example(WHOLE)
def test_any_bytes_are_a_profile_or_a_profile_error(data: bytes) -> None:
    """Fuzz with fragments of real messages: no other exception ever comes out, and what is taken can be written."""
    try:
        profile = decode(data, SMALL)
    except ProfileError:
        return
    assert decode(encode(profile)) == profile


@given(st.integers(0, 400), st.integers(0, 255), st.binary(max_size=3))
def test_a_damaged_gzip_file_is_a_profile_or_a_profile_error(position: int, byte: int, more: bytes) -> None:
    """Every single-byte damage and every cut of a real file is survived."""
    data = bytearray(encode(Profile(sample_types=CPU, samples=(Sample((Frame("a"), Frame("b")), (1, 2)),))))
    position %= len(data)
    for hostile in (data[:position] + bytes([byte]) + data[position + 1 :] + more, data[:position]):
        try:
            profile = decode(bytes(hostile))
        except ProfileError:
            continue
        assert profile.samples


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(1 << 63), (1 << 63) - 1)
kinds = st.builds(ValueType, texts, texts)
frames = st.builds(Frame, texts.filter(bool), texts, numbers)
profiles = st.integers(1, 3).flatmap(
    lambda width: st.builds(
        Profile,
        sample_types=st.tuples(*[kinds] * width),
        samples=st.lists(
            st.builds(Sample, st.lists(frames, max_size=5).map(tuple), st.tuples(*[numbers] * width)), max_size=6
        ).map(tuple),
        default_type=texts,
        period_type=st.none() | kinds,
        period=numbers,
        time_nanos=numbers,
        duration_nanos=numbers,
    )
)


@given(profiles)
def test_what_is_encoded_is_decoded_again_and_always_to_the_same_bytes(profile: Profile) -> None:
    """encode is deterministic and loses nothing of the model."""
    data = encode(profile)
    assert decode(data) == profile
    assert encode(decode(data)) == data


@pytest.mark.parametrize(
    "values", [(1,), (1, 2, 3), (1, 1 << 63), (1, 1 << 2000)], ids=["too few", "too many", "too big", "far too big"]
)
def test_a_profile_that_cannot_be_written_is_refused(values: tuple[int, ...]) -> None:
    """One value for each sample type, each within 64 bits."""
    with pytest.raises(ProfileError):
        encode(Profile(sample_types=CPU, samples=(Sample((Frame("a"),), values),)))
