"""Real profiles, made by a real Go runtime, and Go's own reader for ours; a real browser for the page."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import browser
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAM = """
package main

import (
	"bytes"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

var kept [][]byte

//go:noinline
func burn(until time.Time) (sum int) {
	for time.Now().Before(until) {
		for i := 0; i < 1000; i++ {
			sum += i * i % 7
		}
	}
	return sum
}

//go:noinline
func keep(n int) {
	for i := 0; i < n; i++ {
		kept = append(kept, bytes.Repeat([]byte{1}, 64<<10))
	}
}

//go:noinline
func sleeper(done chan bool) { <-done }

func main() {
	runtime.MemProfileRate = 1
	cpu, _ := os.Create("cpu.pprof")
	pprof.StartCPUProfile(cpu)
	burn(time.Now().Add(400 * time.Millisecond))
	pprof.StopCPUProfile()
	cpu.Close()
	keep(64)
	done := make(chan bool)
	for i := 0; i < 7; i++ {
		go sleeper(done)
	}
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	runtime.GC()
	for _, name := range []string{"heap", "allocs", "goroutine", "threadcreate"} {
		out, _ := os.Create(name + ".pprof")
		pprof.Lookup(name).WriteTo(out, 0)
		out.Close()
	}
	runtime.KeepAlive(kept)
}
"""


@pytest.fixture(scope="session")
def go() -> str:
    """The go command, or a reason why nothing here can run."""
    found = shutil.which("go")
    if found is None:
        pytest.skip("there is no go command to compare with; install Go to run this test")
    return found


@pytest.fixture(scope="session")
def go_profiles(go: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cpu.pprof, heap.pprof, allocs.pprof, goroutine.pprof and threadcreate.pprof of one process."""
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(PROGRAM)
    subprocess.run([go, "build", "-o", "victim", "main.go"], cwd=folder, check=True, capture_output=True, timeout=300)
    subprocess.run([folder / "victim"], cwd=folder, check=True, timeout=60)
    return folder


@pytest.fixture(scope="session")
def go_tool(go: str) -> Callable[..., str]:
    """Run `go tool pprof` with arguments and give back what it prints."""

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [go, "tool", "pprof", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=120
        )
        return done.stdout

    return run


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """One browser for a module. Not for the session: while it runs, no asynchronous test can."""
    with browser.launch() as running:
        yield running
