"""Cron schedules: the language, the instants, and what becomes of them where clocks are changed."""

from datetime import UTC, date, datetime, timedelta, tzinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toe_async.lib.cron import Cron, parse, zone

BERLIN, NEW_YORK, LORD_HOWE, APIA = (
    zone(name) for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia")
)


def utc(text: str) -> datetime:
    """An instant from its text."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(text: str, since: str, count: int, where: tzinfo = UTC) -> list[str]:
    """The next slots as local times, those after a change of the clock with their offset."""
    found, after = [], utc(since)
    for _ in range(count):
        after = parse(text).next(after, where)
        found.append(after.astimezone(where).strftime("%m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("* * * * *", ["01-24 20:45", "01-24 20:46"], id="every minute"),
        pytest.param("*/20 * * * *", ["01-24 21:00", "01-24 21:20"], id="step"),
        pytest.param("5/20 * * * *", ["01-24 20:45", "01-24 21:05"], id="step from a number to the end"),
        pytest.param("10-20/5 3 * * *", ["01-25 03:10", "01-25 03:15", "01-25 03:20", "01-26 03:10"], id="range"),
        pytest.param("0 9,17 * * *", ["01-25 09:00", "01-25 17:00"], id="list"),
        pytest.param("30 2 * * mon-fri", ["01-26 02:30", "01-27 02:30"], id="weekdays by name"),
        pytest.param("0 0 * * 7", ["01-25 00:00", "02-01 00:00"], id="seven is Sunday"),
        pytest.param("0 0 * * SUN", ["01-25 00:00"], id="case does not count"),
        pytest.param("0 0 * * 5-7", ["01-25 00:00", "01-30 00:00", "01-31 00:00", "02-01 00:00"], id="range to Sunday"),
        pytest.param("0 0 1 * *", ["02-01 00:00", "03-01 00:00"], id="day of month"),
        pytest.param("0 0 31 * *", ["01-31 00:00", "03-31 00:00", "05-31 00:00"], id="months without a 31st"),
        pytest.param("0 0 13 * fri", ["01-30 00:00", "02-06 00:00", "02-13 00:00"], id="either of both days"),
        pytest.param("0 0 */10 * 1", ["05-11 00:00"], id="a step from the star restricts too, joined by and"),
        pytest.param("0 0 1 jan-mar/2 ?", ["03-01 00:00", "01-01 00:00"], id="months by name"),
        pytest.param("0 0 29 2 *", ["02-29 00:00"], id="29 February"),
        pytest.param("@hourly", ["01-24 21:00", "01-24 22:00"], id="hourly"),
        pytest.param("@daily", ["01-25 00:00", "01-26 00:00"], id="daily"),
        pytest.param("@midnight", ["01-25 00:00"], id="midnight"),
        pytest.param("@weekly", ["01-25 00:00", "02-01 00:00"], id="weekly"),
        pytest.param("@monthly", ["02-01 00:00"], id="monthly"),
        pytest.param("@yearly", ["01-01 00:00"], id="yearly"),
        pytest.param("@annually", ["01-01 00:00"], id="annually"),
    ],
)
def test_each_form_means_what_crontab_says(text: str, wanted: list[str]) -> None:
    """Fields, names, lists, ranges, steps and words; from Saturday 2026-01-24 20:44 on."""
    assert [one[:-5] for one in slots(text, "2026-01-24 20:44", len(wanted))] == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 fields, not five"),
        ("* * * *", "4 fields, not five"),
        ("* * * * * *", "6 fields, not five"),
        ("60 * * * *", "minute: '60' is not understood"),
        ("* 24 * * *", "hour: '24'"),
        ("* * 0 * *", "day of month: '0'"),
        ("* * * 13 *", "month: '13'"),
        ("* * * * 8", "day of week: '8'"),
        ("* * * foo *", "or jan to dec"),
        ("5-1 * * * *", "goes backwards"),
        ("*/0 * * * *", "step"),
        ("*/x * * * *", "step"),
        ("*/99 * * * *", "step"),
        ("1,,2 * * * *", "minute: ''"),
        ("-1 * * * *", "minute: '-1'"),
        ("* * L * *", "day of month: 'l'"),
        ("* * * * 1#2", "day of week"),
        ("0 0 30 2 *", "never due"),
        ("0 0 31 2,4,6 *", "never due"),
        ("@reboot", "@daily"),
        ("TZ=UTC * * * * *", "timeZone"),
        ("CRON_TZ=UTC * * * * *", "timeZone"),
        ("* " * 200, "longer than 256"),
        ("٣ * * * *", "minute"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_way_out(text: str, words: str) -> None:
    """The field, and what could be written instead."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "where", "since", "wanted"),
    [
        pytest.param(
            "30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:30+0200"], id="skipped, once"
        ),
        pytest.param(
            "*/20 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:00+0200"],
            id="several skipped, once together",
        ),
        pytest.param(
            "0 3 * * *", BERLIN, "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 03:00+0200"], id="the hour after",
        ),
        pytest.param(
            "0 * * * *", BERLIN, "2026-03-29 00:30", ["03-29 03:00+0200", "03-29 04:00+0200"],
            id="every hour, none left out and none twice",
        ),
        pytest.param(
            "30 2 * * *", BERLIN, "2026-10-24 12:00", ["10-25 02:30+0200", "10-26 02:30+0100"], id="repeated, once",
        ),
        pytest.param(
            "*/30 * * * *", BERLIN, "2026-10-24 23:45",
            ["10-25 02:00+0200", "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-25 03:00+0100"],
            id="every hour goes on through both",
        ),
        pytest.param(
            "*/30 0-22 * * *", BERLIN, "2026-10-25 00:15", ["10-25 02:30+0200", "10-25 03:00+0100"],
            id="hours that are chosen come once",
        ),
        pytest.param("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["03-08 03:00-0400"], id="another zone"),
        pytest.param(
            "15 2 * * *", LORD_HOWE, "2026-10-03 00:00", ["10-04 02:30+1100", "10-05 02:15+1100"], id="half an hour",
        ),
        pytest.param(
            "0 12 * * *", APIA, "2011-12-29 12:00", ["12-29 12:00-1000", "12-31 00:00+1400", "12-31 12:00+1400"],
            id="a whole day that never was",
        ),
    ],
)  # fmt: skip
def test_changes_of_the_clock_lose_no_slot_and_double_none(
    text: str, where: tzinfo, since: str, wanted: list[str]
) -> None:
    """The skipped time falls on the change, the repeated time counts once."""
    assert slots(text, since, len(wanted), where) == wanted


def brute(cron: Cron, since: datetime, minutes: int) -> list[datetime]:
    """Slots in UTC by trying every minute."""
    return [
        at
        for at in (since + timedelta(minutes=number + 1) for number in range(minutes))
        if at.minute in cron.minutes and at.hour in cron.hours and due(cron, at.date())
    ]


def due(cron: Cron, day: date) -> bool:
    """crontab(5) on the two fields of a day."""
    if day.month not in cron.months:
        return False
    both = day.day in cron.days, day.isoweekday() % 7 in cron.weekdays
    return all(both) if cron.any_day or cron.any_weekday else any(both)


NUMBERS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 28), "month": (1, 12), "weekday": (0, 7)}


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """One field in any of its forms."""
    number = st.integers(low, high)
    ends = st.tuples(number, number).map(sorted).map(lambda two: f"{two[0]}-{two[1]}")
    step = st.integers(1, high).map(lambda size: f"/{size}")
    one = st.just("*") | number.map(str) | ends | st.builds(str.__add__, st.just("*") | ends, step)
    return st.lists(one, min_size=1, max_size=2).map(",".join)


@given(
    st.tuples(*(field(*NUMBERS[name]) for name in NUMBERS)).map(" ".join),
    st.integers(0, 6 * 366 * 1440),
)
@settings(max_examples=40)
def test_next_and_latest_agree_with_trying_every_minute(text: str, at: int) -> None:
    """A day and a half of minutes against the two searches, forwards and backwards, somewhere in six years."""
    cron, since, minutes = parse(text), utc("2024-01-01") + timedelta(minutes=at), 2160
    wanted = brute(cron, since, minutes)
    end = since + timedelta(minutes=minutes)
    following = cron.next(since)
    assert following == wanted[0] if wanted else following > end
    assert cron.latest(end, since) == (wanted[-1] if wanted else None)


@pytest.mark.parametrize("where", [BERLIN, LORD_HOWE, APIA, UTC])
@pytest.mark.parametrize("text", ["17 * * * *", "30 2 * * *", "*/30 1-3 * * *"])
def test_a_slot_is_found_from_both_sides_over_years(text: str, where: tzinfo) -> None:
    """Each slot is the latest one until the next, also over every change of the clock."""
    cron = parse(text)
    at = utc("2011-12-28 00:00") if where is APIA else utc("2026-03-20 00:00")
    for _ in range(300):
        following = cron.next(at, where)
        assert following > at
        assert cron.latest(following, at, where) == following
        assert cron.latest(following - timedelta(seconds=1), at, where) is None
        at = following


def test_a_missed_slot_is_looked_for_no_further_back_than_asked() -> None:
    """Strictly later than the one instant, up to and with the other."""
    cron = parse("0 0 1 1 *")
    assert cron.latest(utc("2026-06-01"), utc("2026-01-01")) is None
    assert cron.latest(utc("2026-06-01"), utc("2025-12-31 23:59:59")) == utc("2026-01-01")
    assert cron.latest(utc("2026-01-01"), utc("2025-06-01")) == utc("2026-01-01")
    assert cron.latest(utc("2026-06-01"), utc("2000-01-01")) == utc("2026-01-01")


def test_the_rarest_day_is_found() -> None:
    """29 February, over a century that has none."""
    assert parse("0 0 29 2 *").next(utc("2096-03-01")) == utc("2104-02-29")


@pytest.mark.parametrize(
    "name", ["Mars/Base", "../etc/passwd", "/etc/passwd", "Europe", "x" * 200, "Europe/Berlin\0", "b"]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    """Nothing outside of the zone files is ever opened."""
    with pytest.raises(ValueError, match="IANA name"):
        zone(name)


@pytest.mark.parametrize("name", ["", "UTC", "Etc/UTC"])
def test_no_zone_is_utc(name: str) -> None:
    """As for CronJobs of a cluster that keeps UTC."""
    assert zone(name) is UTC


def test_a_zone_is_read_once() -> None:
    """Later questions touch no file."""
    assert zone("Europe/Berlin") is zone("Europe/Berlin")
