"""Samples become rates, rates become series of bounded size, and what explains slowness is said in sentences."""

import json
from typing import Any

import pytest

from toe_async.agent.sysreport import rates
from toe_async.agent.sysreport.findings import findings
from toe_async.agent.sysreport.series import LINES, SLOTS, Series

HEADER = {"interval": 1.0, "ticks": 100, "started": "2026-01-01T00:00:00Z", "missing": []}


def sample(t: float, **more: Any) -> dict[str, Any]:
    return {"t": t, "processes": [], **more}


def made(*samples: dict[str, Any], interval: float = 1.0) -> Series:
    series = Series({**HEADER, "interval": interval})
    for one in samples:
        series.add(one)
    return series


def lines(report: dict[str, Any], chart: str) -> dict[str, dict[str, Any]]:
    found: dict[str, Any] = next((one for one in report["charts"] if one["key"] == chart), {"lines": []})
    return {line["name"]: line for line in found["lines"]}


def ticks(user: int, system: int, idle: int, stolen: int = 0) -> dict[str, Any]:
    return {"ticks": {"cpu": [user, 0, system, idle, 0, 0, 0, stolen]}}


def figures(before: dict[str, Any], after: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(chart, name): value for chart, name, value in rates.figures(sample(0, **before), sample(2, **after))}


@pytest.mark.parametrize(
    ("before", "after", "chart", "name", "value"),
    [
        ({"cpu": ticks(0, 0, 0)}, {"cpu": ticks(30, 20, 50)}, "cpu", "user", 30.0),
        ({"cpu": ticks(0, 0, 0)}, {"cpu": ticks(30, 20, 50)}, "cpu", "system", 20.0),
        ({"cpu": {"switches": 10}}, {"cpu": {"switches": 30}}, "switches", "switches", 10.0),
        ({"pressure": {"io": {"some": 0}}}, {"pressure": {"io": {"some": 1_000_000}}}, "pressure", "io, some", 50.0),
        ({"virtual": {"pgmajfault": 1}}, {"virtual": {"pgmajfault": 5}}, "faults", "faults that read a disk", 2.0),
        ({"disks": {"vda": [0, 0, 0, 0, 0, 0, 0, 0, 0]}}, {"disks": {"vda": [3, 4096, 6, 1, 0, 2, 0, 500, 0]}},
         "disk-bytes", "vda read", 2048.0),
        ({"disks": {"vda": [0, 0, 0, 0, 0, 0, 0, 0, 0]}}, {"disks": {"vda": [3, 4096, 6, 1, 0, 2, 0, 500, 0]}},
         "disk-wait", "vda", 2.0),
        ({"disks": {"vda": [0, 0, 0, 0, 0, 0, 0, 0, 0]}}, {"disks": {"vda": [3, 4096, 6, 1, 0, 2, 0, 500, 0]}},
         "disk-busy", "vda", 25.0),
        ({"network": {"eth0": [0] * 8}}, {"network": {"eth0": [2000, 4, 0, 2, 0, 0, 0, 0]}},
         "network-bytes", "eth0 received", 1000.0),
        ({"network": {"eth0": [0] * 8}}, {"network": {"eth0": [2000, 4, 0, 2, 0, 0, 0, 0]}},
         "network-faults", "eth0 dropped", 1.0),
        ({"protocols": {"Tcp.RetransSegs": 1}}, {"protocols": {"Tcp.RetransSegs": 3}},
         "tcp-events", "Tcp RetransSegs", 1.0),
        ({"group": {"usage_usec": 0}}, {"group": {"usage_usec": 3_000_000}}, "group-cpu", "used", 1.5),
        ({"group": {"nr_periods": 0, "nr_throttled": 0}}, {"group": {"nr_periods": 20, "nr_throttled": 5}},
         "group-throttled", "periods in which it was held back", 25.0),
        ({"group": {}}, {"group": {"memory": 5}}, "group-memory", "in use", 5),
    ],
)  # fmt: skip
def test_counters_become_rates_of_the_time_between(
    before: dict[str, Any], after: dict[str, Any], chart: str, name: str, value: float
) -> None:
    assert figures(before, after)[chart, name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"group": {"usage_usec": 5}}, {"group": {"usage_usec": 1}}),
        ({"network": {"eth0": [9] * 8}}, {"network": {"eth0": [1] * 8}}),
        ({"disks": {"vda": [9] * 9}}, {"disks": {"vda": [1] * 9}}),
        ({}, {"protocols": {"Tcp.InSegs": 4}}),
        ({"cpu": {"switches": 9}}, {"cpu": {"switches": 1}}),
    ],
)
def test_a_counter_that_went_back_or_was_not_there_is_no_rate(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A container that started again, an interface that came later."""
    assert figures(before, after) == {}


def test_a_second_sample_at_the_same_instant_divides_by_nothing() -> None:
    assert not list(rates.figures(sample(1, load=[1, 1, 1]), sample(1, load=[1, 1, 1])))


def test_many_processors_are_shown_by_three_of_them() -> None:
    cpus = {f"cpu{number}": [number, 0, 0, 100 - number, 0, 0, 0, 0] for number in range(64)}
    start = {"ticks": {name: [0] * 8 for name in cpus}}
    found = figures({"cpu": start}, {"cpu": {"ticks": cpus}})
    assert found == {
        ("processors", "busiest"): 63.0,
        ("processors", "in the middle"): 32.0,
        ("processors", "idlest"): 0.0,
    }


def test_each_second_is_a_slot_until_there_are_too_many() -> None:
    report = made(*(sample(t, group={"memory": t}) for t in range(10))).report()
    assert (report["slots"], report["width"], report["samples"]) == (10, 1.0, 10)
    assert lines(report, "group-memory")["in use"]["values"][:3] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("count", [SLOTS, SLOTS + 1, 5 * SLOTS])
def test_a_record_of_any_length_has_a_page_of_one_size(count: int) -> None:
    """Averages and peaks are of all samples, however many came together in a slot."""
    report = made(*(sample(t, group={"memory": 1000 if t == 77 else 10}) for t in range(count))).report()
    line = lines(report, "group-memory")["in use"]
    assert SLOTS // 2 <= report["slots"] <= SLOTS
    assert report["slots"] * report["width"] >= report["seconds"]
    assert len(line["values"]) == report["slots"]
    assert line["peak"] == 1000
    assert line["average"] == pytest.approx(10 + 990 / (count - 1), rel=1e-3)
    assert len(json.dumps(report)) < 20_000


def test_a_gap_in_the_samples_is_filled_with_what_is_known_of_it() -> None:
    """The program was stopped for ten seconds: the counters tell the average of that time."""
    series = made(sample(0, group={"usage_usec": 0}), sample(10, group={"usage_usec": 5_000_000}))
    values = lines(series.report(), "group-cpu")["used"]["values"]
    assert values == [0.5] * 11


def test_a_chart_keeps_its_largest_lines_and_counts_the_others() -> None:
    def disks(t: int) -> dict[str, list[int]]:
        return {f"d{number}": [t, t * number, 0, 0, 0, 0, 0, 0, 0] for number in range(20)}

    report = made(sample(0, disks=disks(0)), sample(1, disks=disks(1000))).report()
    chart = next(one for one in report["charts"] if one["key"] == "disk-bytes")
    assert len(chart["lines"]) == LINES
    assert chart["more"] == 40 - LINES
    assert {line["name"] for line in chart["lines"]} == {f"d{number} read" for number in range(8, 20)}


def test_a_chart_in_which_nothing_happened_is_not_shown() -> None:
    report = made(sample(0, group={"swap": 0}), sample(1, group={"swap": 0})).report()
    assert report["charts"] == []


def process(pid: int, command: str, ticks_: int, started: int = 1) -> list[Any]:
    return [pid, started, command, ticks_, 4096, 2, 3, 10 * ticks_, ticks_]


def test_processes_are_listed_by_the_time_they_took() -> None:
    report = made(
        {"t": 0, "processes": [process(1, "web", 0), process(2, "job", 0)]},
        {"t": 2, "processes": [process(1, "web", 20), process(2, "job", 150)]},
    ).report()
    first, second = report["processes"]
    assert (first["command"], first["cpu"], first["switches"], first["forced"]) == ("job", 0.75, 750, 75)
    assert (second["command"], second["cpu"], second["files"]) == ("web", 0.1, 3)
    assert lines(report, "process-cpu")["job (2)"]["peak"] == 0.75


def test_a_process_whose_number_is_used_again_is_another_one() -> None:
    report = made(
        {"t": 0, "processes": [process(9, "old", 500)]},
        {"t": 1, "processes": [process(9, "new", 1, started=2)]},
    ).report()
    assert sorted(one["command"] for one in report["processes"]) == ["new", "old"]
    assert all(one["cpu"] == 0 for one in report["processes"])


def test_a_program_that_forks_without_end_fills_no_memory() -> None:
    series = made(*({"t": t, "processes": [process(t, "fork", 1)]} for t in range(2000)))
    assert len(series.report()["processes"]) == 100


def said(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    series = made(sample(0, **before), sample(1, **after))
    return findings(series.report(), series.first, series.last)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"group": {"memory_oom_kill": 0}}, {"group": {"memory_oom_kill": 2}}, "killed 2 of the container's processes"),
        ({"group": {"nr_periods": 0, "nr_throttled": 0}},
         {"group": {"nr_periods": 100, "nr_throttled": 40, "cpu_limit": 0.5}},
         "held back in 40 % of its scheduling periods: its limit of 0.5 cores"),
        ({"group": {}}, {"group": {"memory": 95, "memory_limit": 100}}, "came to 95 % of its limit"),
        ({"pressure": {"memory": {"some": 0}}}, {"pressure": {"memory": {"some": 50_000}}}, "waited for memory in 5 %"),
        ({"cpu": ticks(0, 0, 0)}, {"cpu": ticks(10, 0, 80, stolen=10)}, "gave 10 % of the processors' time to others"),
        ({"protocols": {"Tcp.OutSegs": 0, "Tcp.RetransSegs": 0}},
         {"protocols": {"Tcp.OutSegs": 1000, "Tcp.RetransSegs": 25}}, "2.5 % of the pod's TCP segments"),
        ({"protocols": {"TcpExt.ListenDrops": 0}}, {"protocols": {"TcpExt.ListenDrops": 3}}, "3 new connections"),
        ({"disks": {"vda": [0] * 9}}, {"disks": {"vda": [1, 0, 0, 0, 0, 0, 0, 980, 0]}}, "Disk vda was busy for 98 %"),
        ({"virtual": {"pgscan_direct": 0}}, {"virtual": {"pgscan_direct": 9}}, "look for free memory themselves"),
    ],
)  # fmt: skip
def test_what_explains_slowness_is_said(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    (sentence,) = said(before, after)
    assert words in sentence


def test_a_healthy_record_has_no_findings() -> None:
    calm = {
        "cpu": ticks(10, 5, 85), "group": {"nr_periods": 100, "nr_throttled": 0, "memory": 10, "memory_limit": 100},
        "pressure": {"cpu": {"some": 1000}}, "protocols": {"Tcp.OutSegs": 1000, "Tcp.RetransSegs": 2},
    }  # fmt: skip
    start = {"cpu": ticks(0, 0, 0), "group": {"nr_periods": 0, "nr_throttled": 0}, "pressure": {"cpu": {"some": 0}},
             "protocols": {"Tcp.OutSegs": 0, "Tcp.RetransSegs": 0}}  # fmt: skip
    assert said(start, calm) == []
