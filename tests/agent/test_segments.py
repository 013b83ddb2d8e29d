"""Which files of a running tool are finished, and where its stdout is cut."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from toe_async.agent.folders import Found
from toe_async.agent.segments import QUIET_SECONDS, Cutter, Rotation, punch


def file(number: int, size: int = 1, at: int | None = None) -> Found:
    return Found(f"dump{number}", size, (1, number), (size, number if at is None else at))


def names(found: list[Found]) -> list[str]:
    return [one.path for one in found]


def test_a_file_is_finished_once_a_newer_one_is_there_and_nobody_writes_to_it() -> None:
    rotation, writing = Rotation(), {"dump1"}

    def look(*files: Found) -> list[str]:
        return names(rotation.closed(files, 0.0, lambda one: one.path in writing))

    assert look(file(1)) == []
    writing.clear()
    assert look(file(1)) == []
    writing.add("dump2")
    assert look(file(1), file(2)) == ["dump1"]
    writing.add("dump1")
    assert look(file(1), file(2)) == []
    writing.clear()
    assert look(file(2), file(3)) == ["dump2"]


def test_the_newest_is_the_one_that_came_last_though_an_older_is_written_to() -> None:
    rotation = Rotation()
    rotation.closed([file(1)], 0.0, lambda _: True)
    assert names(rotation.closed([file(1, at=9), file(2, at=5)], 1.0, lambda _: False)) == ["dump1"]


def test_a_new_file_with_the_number_of_a_removed_one_is_new() -> None:
    """File systems give a number out again at once."""
    rotation = Rotation()
    old, other = Found("a", 1, (1, 1), (1, 1)), Found("b", 1, (1, 2), (1, 2))
    assert names(rotation.closed([old, other], 0.0, lambda _: False)) == ["a"]
    reused = Found("c", 1, (1, 1), (1, 3))
    assert names(rotation.closed([other, reused], 1.0, lambda _: False)) == ["b"]


def test_where_the_kernel_cannot_tell_a_file_must_have_been_left_alone_for_a_while() -> None:
    rotation = Rotation()

    def look(now: float, size: int) -> list[str]:
        return names(rotation.closed([file(1, size), file(2)], now, lambda _: None))

    assert look(0.0, 1) == []
    assert look(QUIET_SECONDS - 0.1, 2) == []
    assert look(QUIET_SECONDS + 1, 2) == []
    assert look(2 * QUIET_SECONDS, 2) == ["dump1"]


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A file, to read and to append to."""
    writer = os.open(tmp_path / "stdout", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reader = os.open(tmp_path / "stdout", os.O_RDONLY)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_stdout_is_cut_when_it_is_time_at_the_end_of_a_line_and_nothing_is_lost(growing: tuple[int, int]) -> None:
    reader, writer = growing
    cutter, spans = Cutter(10.0, 100.0), []
    for now, text in ((105, b"one\n"), (110, b"two\nthr"), (115, b"ee\n"), (121, b"four"), (131, b""), (141, b"\n")):
        os.write(writer, text)
        if (span := cutter.cut(reader, now)) is not None:
            spans.append(span)
    if (last := cutter.rest(reader)) is not None:
        spans.append(last)
    parts = [os.pread(reader, end - first, first) for first, end in spans]
    assert parts == [b"one\ntwo\n", b"three\n", b"four", b"\n"]


def test_output_without_lines_is_cut_where_it_ends(growing: tuple[int, int]) -> None:
    """As a pcap stream, or a line that is longer than we look back for its beginning."""
    reader, writer = growing
    cutter = Cutter(10.0, 0.0)
    os.write(writer, b"a line\n" + bytes(100_000))
    assert cutter.cut(reader, 10.0) == (0, 100_007)
    assert cutter.cut(reader, 20.0) is None
    assert cutter.rest(reader) is None


def test_what_was_taken_gives_its_disk_space_back_while_the_writer_goes_on(growing: tuple[int, int]) -> None:
    reader, writer = growing
    os.write(writer, b"x" * (1 << 20))
    before = os.fstat(reader).st_blocks
    punch(writer, (0, 1 << 20))
    os.write(writer, b"more")
    assert os.fstat(reader).st_blocks < before / 4
    assert os.fstat(reader).st_size == (1 << 20) + 4
    assert os.pread(reader, 4, 1 << 20) == b"more"


def test_a_file_system_without_holes_is_no_error() -> None:
    reader, writer = os.pipe()
    punch(writer, (0, 1))
    os.close(reader)
    os.close(writer)
