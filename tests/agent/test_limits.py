"""The caps as rules over time: simulated tools, no process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.agent.limits import (
    FLOOR,
    WINDOW,
    Caps,
    DutyCycle,
    Sample,
    Strikes,
    overhead_percent,
    too_much_memory,
)


def simulate(cores: float, threads: float, seconds: float, tick: float = 0.01) -> tuple[float, DutyCycle, int]:
    """The share of one core that a tool of so many busy threads gets, measured by the kernel's ticks."""
    now = used = 0.0
    duty = DutyCycle(now)
    looks = 0
    while now < seconds:
        wait = duty.step(now, used // tick * tick, cores)
        looks += 1
        used += 0 if duty.stopped else threads * wait
        now += wait
    return used / now, duty, looks


@pytest.mark.parametrize("threads", [0.3, 1, 4, 16])
@pytest.mark.parametrize("cores", [0.05, 0.1, 0.25, 0.5, 0.9])
def test_a_busy_tool_gets_its_share_and_no_more(cores: float, threads: float) -> None:
    share, _, looks = simulate(cores, threads, 120)
    assert share == pytest.approx(min(cores, threads), abs=0.05)
    assert looks / 120 < 25


def test_a_tool_below_its_cap_is_never_stopped() -> None:
    _, duty, _ = simulate(0.5, 0.4, 60)
    assert duty.stopped_seconds == 0


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 5), st.floats(0.001, 2)), max_size=60))
def test_the_next_look_is_always_soon_and_never_at_once(steps: list[tuple[float, float, float]]) -> None:
    now = used = 0.0
    duty = DutyCycle(now)
    for passed, spent, cores in steps:
        now, used = now + passed, used + spent
        assert 0.02 <= duty.step(now, used, cores) <= 1.0


def run_strikes(uses: list[float], caps: Caps, targets: list[float] | None = None, window: float = WINDOW) -> list[str]:
    strikes, now, used, target, said = Strikes(0.0), 0.0, 0.0, 0.0, []
    for index, share in enumerate(uses):
        now, used = now + window, used + share * window
        target += targets[index] * window if targets else 0
        said.append(strikes.step(Sample(now, used, target=target if targets else None), caps))
    return said


def test_three_windows_in_a_row_above_the_cap_end_a_tool_that_may_not_be_stopped() -> None:
    said = run_strikes([0.9, 0.9, 0.1, 0.9, 0.9, 0.9], Caps(cpu=0.5))
    assert said[:5] == [""] * 5
    assert "90% of a core" not in said[4]
    assert "more than the 50%" in said[5]


def test_looks_that_come_too_soon_are_no_windows() -> None:
    assert run_strikes([5.0] * 50, Caps(cpu=0.5), window=0.01)[:20] == [""] * 20


def test_overhead_counts_against_the_targets_own_use_over_the_run() -> None:
    said = run_strikes([0.1] * 30, Caps(overhead=0.05), [0.5] * 30)
    assert not any(said[:14]), "no verdict before three seconds"
    assert "20.0% of the target's CPU" not in said[13]
    assert any("more than the 5.0%" in one for one in said)


def test_overhead_below_the_cap_is_left_alone() -> None:
    assert not any(run_strikes([0.02] * 60, Caps(overhead=0.05), [0.5] * 60))


def test_an_idle_target_counts_as_using_a_little() -> None:
    assert Caps(overhead=0.5).cores(0.0) == pytest.approx(0.5 * FLOOR)
    assert not any(run_strikes([0.01] * 60, Caps(overhead=0.5), [0.0] * 60))


def test_the_tighter_of_both_caps_holds() -> None:
    assert Caps(cpu=0.5, overhead=0.1).cores(1.0) == pytest.approx(0.1)
    assert Caps(cpu=0.05, overhead=0.1).cores(1.0) == pytest.approx(0.05)
    assert Caps().cores(1.0) == 0


def test_memory_above_the_bound_ends_the_tool() -> None:
    caps = Caps(rss=64 << 20)
    assert too_much_memory(Sample(0, 0, 64 << 20), caps) == ""
    assert "65 MiB" in too_much_memory(Sample(0, 0, 65 << 20), caps)
    assert too_much_memory(Sample(0, 0, 1 << 40), Caps()) == ""


def test_overhead_is_unknown_without_a_measure() -> None:
    assert overhead_percent(1.0, None) is None
    assert overhead_percent(1.0, 0.0) is None
    assert overhead_percent(0.5, 20.0) == 2.5
