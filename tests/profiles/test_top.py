"""Flat and cumulative sums: rules by table, figures against Go."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType
from toe_async.profiles.pprof import decode
from toe_async.profiles.top import Row, top


def profile(*names: str, default: str = "") -> Profile:
    return Profile(sample_types=tuple(ValueType(name, "count") for name in names), samples=(), default_type=default)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        pytest.param(profile("samples", "cpu"), "cpu", id="cpu time, not the number of samples"),
        pytest.param(profile("cpu", "samples"), "cpu", id="by name, not by position"),
        pytest.param(
            profile("alloc_objects", "alloc_space", "inuse_space", "inuse_objects"), "inuse_space", id="live heap"
        ),
        pytest.param(
            profile("alloc_objects", "alloc_space", "inuse_objects", "inuse_space", default="alloc_space"),
            "alloc_space",
            id="what the profile asks for",
        ),
        pytest.param(profile("contentions", "delay"), "delay", id="the last one otherwise"),
        pytest.param(profile("a", "b", default="gone"), "b", id="a default that does not exist counts as none"),
    ],
)
def test_the_value_is_chosen_by_name(given: Profile, chosen: str) -> None:
    """Which of several values is summed when nobody says."""
    assert top(given).kind.type == chosen


def test_an_unknown_sample_type_is_refused_with_those_that_exist() -> None:
    """The sentence names the way out."""
    with pytest.raises(ProfileError, match="samples, cpu"):
        top(profile("samples", "cpu"), "heap")


def test_recursion_counts_once_a_stack_and_ties_are_ordered_by_name() -> None:
    """Cumulative is the share of stacks that a function is on, however often."""
    a, b, c = Frame("a"), Frame("b"), Frame("c")
    hot = Profile(
        sample_types=(ValueType("cpu", "nanoseconds"),),
        samples=(Sample((a, a, c), (10,)), Sample((b, c), (10,)), Sample((), (1,))),
    )
    found = top(hot)
    assert found.total == 21
    assert found.rows == (Row("a", 10, 10), Row("b", 10, 10), Row("c", 0, 20))
    assert top(hot, limit=1).rows == (Row("a", 10, 10),)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "unit"), [("cpu", "ns"), ("heap", "B"), ("goroutine", "")])
def test_figures_equal_those_of_go(name: str, unit: str, go_profiles: Path, go_tool: Callable[..., str]) -> None:
    """Every function that `go tool pprof -top` prints has our flat and cumulative value."""
    path = go_profiles / f"{name}.pprof"
    text = go_tool("-top", "-nodefraction=0", "-edgefraction=0", "-nodecount=10000", f"-unit={unit or 'count'}", path)
    theirs = {}
    for line in text.splitlines():
        found = re.fullmatch(rf"\s*(-?[\d.]+)(?:{unit})?\s+\S+%\s+\S+%\s+(-?[\d.]+)(?:{unit})?\s+\S+%\s+(.+)", line)
        if found:
            theirs[re.sub(r" \((partial-)?inline\)$", "", found[3])] = (float(found[1]), float(found[2]))
    ours = {row.function: (row.flat, row.cumulative) for row in top(decode(path.read_bytes()), limit=10_000).rows}
    assert len(theirs) >= 3
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.slow
def test_the_burning_function_is_on_top(go_profiles: Path) -> None:
    """The question that a user asks of a CPU profile and of a heap profile."""
    cpu = [row.function for row in top(decode((go_profiles / "cpu.pprof").read_bytes()), limit=3).rows]
    assert any(name in {"main.burn", "time.Now", "time.now", "runtime.nanotime1", "time.runtimeNow"} for name in cpu)
    heap = top(decode((go_profiles / "heap.pprof").read_bytes()), limit=1).rows[0]
    assert heap.function in {"bytes.Repeat", "internal/bytealg.MakeNoZero", "main.keep"}
    assert heap.cumulative >= 64 * (64 << 10)
