"""Reading of /proc, against this machine's own."""

import os
import subprocess
import sys
import time

import pytest

from toe_async.agent.procfs import below, command, descendants, parse_stat, processes, read_process

LINE = b"42 (%s) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5555 1000 25 18446744073709551615 0 0"


@pytest.mark.parametrize("name", [b"cat", b"a b", b"(x)", b") S 1 (", b"\xff", b""])
def test_a_name_may_hold_anything(name: bytes) -> None:
    process = parse_stat(LINE % name)
    assert (process.pid, process.parent, process.group, process.state) == (42, 7, 42, "S")
    assert (process.cpu, process.started) == (127, 5555)
    assert process.rss == 25 * os.sysconf("SC_PAGE_SIZE")
    assert process.name == name.decode(errors="replace")


@pytest.mark.parametrize("text", [b"", b"42", b"42 (x)", b"(x) S 1 2", b"x" * 100])
def test_what_is_no_stat_line_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"stat|invalid"):
        parse_stat(text)


def test_a_process_that_has_gone_is_simply_not_there() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    assert read_process(child.pid) is None
    assert command(child.pid) == ()


def test_descendants_are_found_through_every_generation() -> None:
    text = "import os, time; os.fork(); os.fork(); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-S", "-c", text], stdout=subprocess.PIPE, process_group=0) as child:
        assert child.stdout is not None
        for _ in range(4):
            child.stdout.readline()
        found = descendants(os.getpid())
        try:
            assert child.pid in found
            assert len(below(found, child.pid)) == 3
            assert below(processes(), child.pid).keys() == below(found, child.pid).keys()
            assert command(child.pid)[2] == "-c"
        finally:
            os.killpg(child.pid, 9)


def test_a_dead_process_that_waits_for_its_parent_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    deadline = time.monotonic() + 10
    while (seen := read_process(child.pid)) is not None and not seen.dead:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert seen is not None
    child.wait()
