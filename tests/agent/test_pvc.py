"""Leaves into a claim that belongs to somebody else: whole, never over anything, and never anywhere else."""

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from toe_async.agent.faults import Lost, Stopped
from toe_async.agent.folders import open_folder
from toe_async.agent.packing import Packed
from toe_async.agent.pvc import PvcCopy, parts_below

CAPTURE = "abcdefghijklmnopqrstuvwxyz234567"
CONTENT = b"all that was seen" * 1000


class Rig:
    """A claim, and a leaf to be copied into it."""

    def __init__(self, tmp_path: Path) -> None:
        self.mount, self.leaves, self.elsewhere = (tmp_path / name for name in ("pvc", "leaves", "elsewhere"))
        for folder in (self.mount, self.leaves, self.elsewhere):
            folder.mkdir()
        self._folder = open_folder(str(self.leaves))
        (self.leaves / "dump.pcap").write_bytes(CONTENT)
        self.leaf = Packed("dump.pcap", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())

    def close(self) -> None:
        os.close(self._folder)

    def copy(self, path: str = "/toe/pvc/dumps/today", mount: Path | None = None) -> PvcCopy:
        return PvcCopy(CAPTURE, self._folder, path.replace("/toe/pvc", str(self.mount)), str(mount or self.mount))

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.mount)) for path in self.mount.rglob("*") if path.is_file())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_leaf_is_where_its_uri_says_and_nothing_else(rig: Rig) -> None:
    leaf = rig.copy().put(rig.leaf)
    assert (leaf.state, leaf.uri) == ("stored", "/dumps/today/abcdefghij-dump.pcap")
    assert rig.files() == ["dumps/today/abcdefghij-dump.pcap"]
    assert (rig.mount / leaf.uri[1:]).read_bytes() == CONTENT
    rig.copy().complete([leaf])


def test_the_same_leaf_again_is_stored_already(rig: Rig) -> None:
    first = rig.copy().put(rig.leaf)
    stamp = (rig.mount / first.uri[1:]).stat().st_mtime_ns
    assert rig.copy().put(rig.leaf) == first
    assert (rig.mount / first.uri[1:]).stat().st_mtime_ns == stamp


@pytest.mark.parametrize("what", ["file", "folder", "link to a file", "link to nothing", "pipe"])
def test_what_has_its_name_is_never_replaced(rig: Rig, what: str) -> None:
    taken = rig.mount / "dumps" / "today" / "abcdefghij-dump.pcap"
    taken.parent.mkdir(parents=True)
    (rig.elsewhere / "theirs").write_text("theirs")
    if what == "file":
        taken.write_text("theirs")
    elif what == "folder":
        taken.mkdir()
    elif what == "pipe":
        os.mkfifo(taken)
    else:
        taken.symlink_to(rig.elsewhere / ("theirs" if what == "link to a file" else "nothing"))
    before = taken.lstat()
    with pytest.raises(Lost, match="never replaced") as lost:
        rig.copy().put(rig.leaf)
    assert lost.value.reason == "Conflicted"
    assert taken.lstat() == before
    assert [path.name for path in rig.elsewhere.iterdir()] == ["theirs"]
    assert (rig.elsewhere / "theirs").read_text() == "theirs"


@pytest.mark.parametrize("at", ["dumps", "dumps/today", "."])
def test_a_planted_link_leads_nowhere(rig: Rig, tmp_path: Path, at: str) -> None:
    mount = rig.mount
    if at == ".":
        mount = tmp_path / "link"
        mount.symlink_to(rig.elsewhere)
    else:
        link = rig.mount / at
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(rig.elsewhere)
    with pytest.raises(Lost, match="a link") as lost:
        rig.copy("dumps/today", mount).put(rig.leaf)
    assert lost.value.reason == "UploadFailed"
    assert list(rig.elsewhere.iterdir()) == []
    assert rig.files() == []


def test_a_link_in_place_of_the_temporary_file_is_not_written_through(rig: Rig) -> None:
    (rig.mount / ".abcdefghij-dump.pcap.part").symlink_to(rig.elsewhere / "target")
    rig.copy("/").put(rig.leaf)
    assert rig.files() == ["abcdefghij-dump.pcap"]
    assert list(rig.elsewhere.iterdir()) == []


def test_a_file_system_without_hard_links_takes_leaves_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refused)
    leaf = rig.copy().put(rig.leaf)
    assert rig.files() == ["dumps/today/abcdefghij-dump.pcap"]
    assert (rig.mount / leaf.uri[1:]).read_bytes() == CONTENT


def test_what_comes_back_otherwise_is_not_stored(rig: Rig) -> None:
    with pytest.raises(Lost, match="other bytes"):
        rig.copy().put(Packed("dump.pcap", len(CONTENT), "0" * 64))
    assert rig.files() == []


def test_it_can_be_stopped_and_leaves_nothing(rig: Rig) -> None:
    copy = rig.copy()
    copy.abort()
    with pytest.raises(Stopped):
        copy.put(rig.leaf)
    assert rig.files() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_claim_is_called_by_its_name_and_left_as_it_was(rig: Rig) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "small", rig.mount], check=False).returncode != 0:
        pytest.skip("no right to mount")
    try:
        with pytest.raises(Lost, match="claim is full") as lost:
            rig.copy("/").put(rig.leaf)
        assert lost.value.reason == "StoreFull"
        assert rig.files() == []
    finally:
        subprocess.run(["umount", rig.mount], check=True)


@pytest.mark.parametrize(
    ("path", "parts"),
    [("", []), ("/", []), ("/toe/pvc", []), ("/toe/pvc/a/b", ["a", "b"]), ("a//b/./c", ["a", "b", "c"]), ("/x", ["x"]),
     ("/toe/pvcs", ["toe", "pvcs"])],
)  # fmt: skip
def test_a_path_is_always_inside_of_the_claim(path: str, parts: list[str]) -> None:
    assert parts_below(path) == parts


@pytest.mark.parametrize("path", ["..", "/toe/pvc/..", "a/../b", "a\0b", "x" * 256])
def test_a_path_that_could_lead_out_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path in the claim"):
        parts_below(path)
