"""A folder that somebody else fills: only its own regular files are ever seen or opened."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toe_async.agent.folders import is_being_written, open_file, open_folder, regular_files, unlink


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "out").mkdir()
    folder = open_folder(str(tmp_path / "out"))
    yield folder
    os.close(folder)


def test_links_and_special_files_are_not_seen(tmp_path: Path, out: int) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("k")
    inner = tmp_path / "out" / "sub"
    inner.mkdir()
    (inner / "mine").write_text("m")
    (tmp_path / "out" / "link").symlink_to(secret / "key")
    (tmp_path / "out" / "folder").symlink_to(secret)
    os.mkfifo(tmp_path / "out" / "pipe")
    assert [found.path for found in regular_files(out)] == ["sub/mine"]


@pytest.mark.parametrize("path", ["link", "folder/key", "pipe", "gone", "sub"])
def test_nothing_is_opened_through_a_link_and_no_pipe_holds_us_up(tmp_path: Path, out: int, path: str) -> None:
    """Though it was a file when it was listed."""
    (tmp_path / "key").write_text("k")
    (tmp_path / "out" / "sub").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "key")
    (tmp_path / "out" / "folder").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "out" / "pipe")
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's to say
        open_file(out, path)


def test_many_files_are_seen_and_a_deep_tree_ends(tmp_path: Path, out: int) -> None:
    for number in range(1_000):
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=out))
    deep = tmp_path / "out" / "/".join(["d"] * 40)
    deep.mkdir(parents=True)
    (deep / "lost").touch()
    assert len(list(regular_files(out))) == 1_000


def test_a_file_that_is_gone_can_be_removed_again(tmp_path: Path, out: int) -> None:
    (tmp_path / "out" / "a").touch()
    unlink(out, "a")
    unlink(out, "a")
    assert list(regular_files(out)) == []


def test_a_file_that_somebody_writes_to_is_told_from_one_that_is_left(tmp_path: Path, out: int) -> None:
    """Also when the writer is another process, and without a signal that would end us."""
    opened: list[int] = []
    signal.signal(signal.SIGIO, lambda *_: opened.append(-1))
    path = tmp_path / "out" / "a"
    code = "import sys; f = open(sys.argv[1], 'w'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        writer.stdout.readline()
        file = open_file(out, "a")
        assert is_being_written(file) is True
        writer.stdin.close()
        writer.wait()
    assert is_being_written(file) is False
    with path.open("a") as again:
        again.write("somebody may write again at once")
    os.close(file)
    assert opened == []
