"""A kept result: listed, fetched from any byte on by another process, ended by word or by time."""

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.uploading import orders, state_folder
from toe_async.agent import keeping
from toe_async.agent.fetching import NotKept, fetch, listing
from toe_async.agent.outputs import Outputs
from toe_async.agent.protocol import Leaf
from toe_async.agent.supervisor import CollectingError

BODY = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.02)


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Outputs]:
    """A finished run in mode ephemeral, with a file, stdout and a log."""
    folder = state_folder(tmp_path, {"out/dump.pcap": BODY, "stdout": b"said", "log": b"warned"})
    made = Outputs()
    made.start(orders(mode="ephemeral"), str(folder))
    made.finish(time.monotonic() + 5, lambda: None)
    yield made
    made.cancel()
    made.keep(time.monotonic())


def read(leaf: str, offset: int, root: Path) -> bytes:
    to = io.BytesIO()
    fetch(leaf, offset, to, str(root))
    return to.getvalue()


def test_what_is_kept_is_listed_and_fetched_from_any_byte_on(outputs: Outputs, tmp_path: Path) -> None:
    said = listing(str(tmp_path))
    assert {one["name"]: one["size"] for one in said["leaves"]} == {
        "dump.pcap": len(BODY), "tcpdump.out": 4, "tcpdump.log": 6,
    }  # fmt: skip
    assert read("dump.pcap", 0, tmp_path) == BODY
    assert read("dump.pcap", 1_000_001, tmp_path) == BODY[1_000_001:]
    assert read("dump.pcap", len(BODY), tmp_path) == b""


@pytest.mark.parametrize(
    ("leaf", "offset", "words"),
    [
        ("gone", 0, "there are: .*dump.pcap"),
        ("../kept.json", 0, "no leaf of that name"),
        ("dump.pcap", len(BODY) + 1, "1024000 bytes"),
        ("dump.pcap", -1, "none at offset"),
    ],
)
def test_what_is_not_there_is_told(outputs: Outputs, tmp_path: Path, leaf: str, offset: int, words: str) -> None:
    with pytest.raises(NotKept, match=words):
        read(leaf, offset, tmp_path)


def test_a_leaf_that_became_a_link_is_not_followed(outputs: Outputs, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    (tmp_path / "toe-run" / "leaves" / "dump.pcap").unlink()
    (tmp_path / "toe-run" / "leaves" / "dump.pcap").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        read("dump.pcap", 0, tmp_path)


def keeping_in_thread(outputs: Outputs, seconds: float) -> threading.Thread:
    thread = threading.Thread(target=lambda: outputs.keep(time.monotonic() + seconds), daemon=True)
    thread.start()
    return thread


def test_the_word_of_whoever_has_it_all_ends_the_keeping(outputs: Outputs, tmp_path: Path) -> None:
    thread = keeping_in_thread(outputs, 60)
    code = "import sys; from toe_async.agent.fetching import fetched; fetched(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    thread.join(5)
    assert not thread.is_alive()
    assert list((tmp_path / "toe-run" / "leaves").iterdir()) == []
    with pytest.raises(NotKept, match="nothing is kept"):
        listing(str(tmp_path))


def test_its_time_ends_it_too(outputs: Outputs, tmp_path: Path) -> None:
    began = time.monotonic()
    outputs.keep(time.monotonic() + 0.1)
    assert 0.1 <= time.monotonic() - began < 1
    assert list((tmp_path / "toe-run" / "leaves").iterdir()) == []


def test_a_cancel_ends_it_at_once(outputs: Outputs) -> None:
    thread = keeping_in_thread(outputs, 60)
    outputs.cancel()
    thread.join(1)
    assert not thread.is_alive()


def test_a_fetch_under_way_is_waited_for(outputs: Outputs, tmp_path: Path) -> None:
    """The container would end under it."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as to:
        slow = threading.Thread(target=fetch, args=("dump.pcap", 0, to, str(tmp_path)), daemon=True)
        slow.start()
        got = os.read(read_end, 10)
        thread = keeping_in_thread(outputs, 0.05)
        thread.join(0.3)
        assert thread.is_alive()
        with os.fdopen(read_end, "rb") as rest:
            got += rest.read(len(BODY) - len(got))
        slow.join(5)
        thread.join(5)
    assert not thread.is_alive()
    assert got == BODY


def test_more_than_may_be_kept_is_lost_with_a_word(tmp_path: Path) -> None:
    folder = state_folder(tmp_path, {"out/a": b"x" * 600, "out/b": b"y" * 600, "out/c": b"z" * 100})
    outputs = Outputs()
    outputs.start(orders(mode="ephemeral", max_bytes=1000), str(folder))
    with pytest.raises(CollectingError, match="1 of 3 artifacts are lost: all that is kept") as error:
        outputs.finish(time.monotonic() + 5, lambda: None)
    assert error.value.reason == "TooLarge"
    assert {leaf.name: leaf.state for leaf in error.value.leaves} == {"a": "kept", "b": "lost", "c": "kept"}
    assert [one["name"] for one in listing(str(tmp_path))["leaves"]] == ["a", "c"]
    outputs.cancel()


def test_a_folder_that_somebody_else_made_is_not_ours(outputs: Outputs, tmp_path: Path) -> None:
    forged = tmp_path / "toe-a"
    (forged / "leaves").mkdir(parents=True)
    (forged / "kept.json").symlink_to(tmp_path / "toe-run" / "kept.json")
    assert len(listing(str(tmp_path))["leaves"]) == 3
    assert all(Leaf(**one).state == "kept" for one in listing(str(tmp_path))["leaves"])


def test_what_cannot_be_offered_is_lost_and_not_called_kept(tmp_path: Path) -> None:
    folder = state_folder(tmp_path, {"stdout": b"said"})
    (folder / ".kept.json").mkdir()
    outputs = Outputs()
    outputs.start(orders(mode="ephemeral"), str(folder))
    with pytest.raises(CollectingError, match="EISDIR") as error:
        outputs.finish(time.monotonic() + 5, lambda: None)
    assert [leaf.state for leaf in error.value.leaves] == ["lost"]
