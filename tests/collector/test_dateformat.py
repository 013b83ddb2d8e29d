"""Date layouts: both styles, and nothing that could leave the store."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.collector.dateformat import DateLayout

WHEN = datetime(2026, 1, 4, 9, 5, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("2006/01/02", "2026/01/04"),
        ("2006-01-02", "2026-01-04"),
        ("20060102", "20260104"),
        ("2006/Jan/_2", None),
        ("06/1/2", "26/1/4"),
        ("2006/January/02-Mon", "2026/January/04-Sun"),
        ("2006/Monday", "2026/Sunday"),
        ("2006/Janx/01", "2026/Janx/01"),
        ("2006/002", "2026/004"),
        ("2006-01-02_15-04-05", "2026-01-04_09-05-07"),
        ("2006/01/02/03PM", "2026/01/04/09AM"),
        ("year=2006/month=01", "year=2026/month=01"),
        ("  2006/01/02\n", "2026/01/04"),
        ("%Y/%m/%d", "2026/01/04"),
        ("%y%j", "26004"),
        ("%G-W%V", "2026-W01"),
        ("%Y/%b/%d-%a", "2026/Jan/04-Sun"),
        ("%B/%A/%I%p/%H%M%S", "January/Sunday/09AM/090507"),
        ("%Y-2006", "2026-2006"),
        ("", None),
        ("/2006/01", None),
        ("2006/01/", None),
        ("2006//01", None),
        ("2006/../01", None),
        ("../2006", None),
        ("./2006", None),
        (".2006", None),
        ("%Y/%Q", None),
        ("%Y/%", None),
        ("%Y %m", None),
        ("2006\x0001", None),
        ("2006\\01", None),
        ("fixed", None),
        ("%%", None),
        ("2006/" * 9 + "01", None),
        ("2006" + "-" * 80, None),
        ("२००६/2006", None),
    ],
)
def test_a_layout_renders_or_is_refused(layout: str, path: str | None) -> None:
    """None: refused with a sentence."""
    if path is None:
        with pytest.raises(ValueError, match="date layout"):
            DateLayout(layout)
    else:
        assert "/".join(DateLayout(layout).segments(WHEN)) == path


def test_dates_are_in_utc_wherever_the_instant_comes_from() -> None:
    """Half past midnight in Berlin is still yesterday."""
    berlin = datetime(2026, 1, 4, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert DateLayout("2006/01/02").segments(berlin) == ("2026", "01", "03")


@given(
    layout=st.text(alphabet="20061PJanMo%Ymdj./\\ -_=+\0\n ~é", max_size=24),
    when=st.datetimes(timezones=st.just(UTC), min_value=datetime(1900, 1, 1)),  # noqa: DTZ001
)
def test_whatever_layout_is_taken_gives_plain_visible_segments(layout: str, when: datetime) -> None:
    """No dots alone, nothing hidden, no separators, at any instant."""
    try:
        segments = DateLayout(layout).segments(when)
    except ValueError:
        return
    assert 1 <= len(segments) <= 8
    assert all(re.fullmatch(r"[A-Za-z0-9=+_-][A-Za-z0-9._=+-]*", segment) for segment in segments)
