"""The demo's target serves real profiles of itself."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from toe_async.profiles import pprof
from toe_async.profiles.top import top

pytestmark = pytest.mark.slow


@pytest.fixture
async def burner() -> AsyncIterator[str]:
    """The URL of a burner's profiles."""
    argv = (sys.executable, "-m", "toe_async.sandbox.burner", "--port", "0", "--leak-mib-per-second", "20")
    environment = {**os.environ, "POD_LOOPBACK": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, env=environment)
    assert process.stdout is not None
    port = (await process.stdout.readline()).split()[-1].decode()
    try:
        yield f"http://127.0.0.1:{port}/debug/pprof/"
    finally:
        process.kill()
        await process.communicate()


async def fetch(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.read()


async def test_the_burning_function_is_on_top_of_the_cpu_profile(burner: str) -> None:
    status, body = await fetch(f"{burner}profile?seconds=1")
    hottest = top(pprof.decode(body))
    assert status == 200
    assert body[:2] == b"\x1f\x8b"
    assert (hottest.kind.type, hottest.kind.unit) == ("cpu", "nanoseconds")
    assert hottest.rows[0].function == "toe_async.sandbox.burner.mix_bits"
    assert hottest.rows[0].flat > 0.8 * hottest.total
    assert {row.function for row in hottest.rows} >= {"toe_async.sandbox.burner.work"}


async def test_a_second_cpu_profile_at_a_time_is_refused_as_go_does(burner: str) -> None:
    answers = await asyncio.gather(*(fetch(f"{burner}profile?seconds=0.5") for _ in range(2)))
    served, refused = sorted(answers)
    assert served[0] == 200
    assert refused == (500, b"Could not enable CPU profiling: cpu profiling already in use\n")
    assert (await fetch(f"{burner}profile?seconds=0.1"))[0] == 200


async def test_the_leak_is_on_top_of_the_heap_profile(burner: str) -> None:
    await fetch(f"{burner}profile?seconds=0.5")
    for leaf in ("heap", "allocs"):
        status, body = await fetch(f"{burner}{leaf}")
        profile = pprof.decode(body)
        assert status == 200
        assert [one.type for one in profile.sample_types] == [
            "alloc_objects",
            "alloc_space",
            "inuse_objects",
            "inuse_space",
        ]
        assert top(profile, "inuse_space").rows[0].function == "toe_async.sandbox.burner.remember"


async def test_threads_are_counted_as_goroutines(burner: str) -> None:
    _, body = await fetch(f"{burner}goroutine")
    profile = pprof.decode(body)
    assert [(one.type, one.unit) for one in profile.sample_types] == [("goroutine", "count")]
    assert sum(sample.values[0] for sample in profile.samples) >= 3


async def test_what_python_has_no_equal_of_is_404(burner: str) -> None:
    for leaf in ("mutex", "block", "trace", "threadcreate"):
        assert (await fetch(f"{burner}{leaf}"))[0] == 404
