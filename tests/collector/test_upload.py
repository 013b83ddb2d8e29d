"""Which uploads are taken, decided before a byte is read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from toe_async.collector import upload
from toe_async.collector.captures import Capture, Registration, State
from toe_async.collector.errors import Refused
from toe_async.collector.upload import Accept, Already, Bounds, Facts, Held, Pace, Span, judge, read_span

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)
A, B = "a" * 64, "b" * 64
RECORD = Capture(
    registration=Registration(
        id="abcdefghijklmnopqrstuvwxyz234567", namespace="shop", run="hot", pod="cart-0", container="server",
        triggered_at=NOW, leaves=("heap.pprof",), max_bytes=1000, expires=NOW + timedelta(hours=1),
    ),
    directory=("shop", "no-labels", "hot", "2026"),
)  # fmt: skip
FACTS = Facts(
    now=NOW,
    leaf="heap.pprof",
    record=RECORD,
    size=1000,
    declared_sha256="",
    stored_sha256="",
    held=Held(free_bytes=10_000),
)
COMPLETE, CANCELLED = replace(RECORD, state=State.COMPLETE), replace(RECORD, state=State.CANCELLED)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, "accept"),
        ({"size": None}, "accept"),
        ({"size": 1001}, "413 TooBig"),
        ({"size": 0}, "400 Empty"),
        ({"record": None}, "404 NotRegistered"),
        ({"leaf": "cpu.pprof"}, "403 LeafNotRegistered"),
        ({"leaf": "../heap.pprof"}, "403 LeafNotRegistered"),
        ({"record": CANCELLED}, "403 Cancelled"),
        ({"record": COMPLETE}, "403 Complete"),
        ({"now": NOW + timedelta(hours=1)}, "403 Expired"),
        ({"held": Held(free_bytes=999)}, "507 StoreFull"),
        ({"held": Held(free_bytes=0), "size": None}, "507 StoreFull"),
        ({"declared_sha256": "nonsense"}, "400 BadDigest"),
        ({"declared_sha256": "A" * 64}, "400 BadDigest"),
        ({"declared_sha256": A}, "accept"),
        ({"declared_sha256": A, "stored_sha256": A}, "already"),
        ({"declared_sha256": A, "stored_sha256": B}, "409 Taken"),
        ({"stored_sha256": A}, "accept"),
        ({"declared_sha256": A, "stored_sha256": A, "record": COMPLETE}, "already"),
        ({"declared_sha256": A, "stored_sha256": A, "held": Held(free_bytes=0)}, "already"),
        ({"declared_sha256": A, "stored_sha256": A, "record": CANCELLED}, "403 Cancelled"),
    ],
)
def test_an_upload_is_judged_by_the_record(changes: dict[str, Any], answer: str) -> None:
    """One row a rule."""
    verdict = judge(replace(FACTS, **changes))
    match verdict:
        case Accept(max_bytes=1000):
            said = "accept"
        case Already():
            said = "already"
        case Refused():
            said = f"{verdict.status} {verdict.reason}"
        case _:
            said = str(verdict)
    assert said == answer


def test_checks_run_from_whose_it_is_to_whether_it_fits() -> None:
    """The order is part of the contract: it decides which of two reasons a client is told."""
    assert [check.__name__.strip("_") for check in (*upload.CHECKS, *upload.ROOM)] == [
        "digest_is_one",
        "leaf_is_registered",
        "not_cancelled",
        "stored_before",
        "open",
        "not_empty",
        "small_enough",
        "capture_is_small_enough",
        "namespace_has_room",
        "store_has_room",
        "fits",
    ]


FULL = Held(free_bytes=10_000, capture_bytes=50, namespace_bytes=100, namespace_artifacts=3, store_bytes=200)


@pytest.mark.parametrize(
    ("bounds", "size", "written", "answer"),
    [
        ({"capture_bytes": 150}, 100, 0, None),
        ({"capture_bytes": 149}, 100, 0, "413 CaptureTooBig"),
        ({"capture_bytes": 50}, None, 0, "413 CaptureTooBig"),
        ({"capture_bytes": 51}, None, 0, None),
        ({"namespace_bytes": 200}, 100, 0, None),
        ({"namespace_bytes": 199}, 100, 0, "507 QuotaExceeded"),
        ({"namespace_bytes": 199}, None, 99, "507 QuotaExceeded"),
        ({"namespace_bytes": 199}, None, 98, None),
        ({"namespace_artifacts": 4}, 100, 0, None),
        ({"namespace_artifacts": 3}, 100, 0, "507 QuotaExceeded"),
        ({"store_bytes": 300}, 100, 0, None),
        ({"store_bytes": 299}, 100, 0, "507 StoreFull"),
        ({}, 1000, 0, None),
    ],
)
def test_what_is_kept_has_bounds(bounds: dict[str, int], size: int | None, written: int, answer: str | None) -> None:
    """Per capture, namespace and store; what others set aside counts as kept."""
    verdict = upload.room(replace(FACTS, size=size, written=written, held=FULL, bounds=Bounds(**bounds)), RECORD)
    assert (verdict and f"{verdict.status} {verdict.reason}") == answer


def test_what_is_on_disk_already_needs_no_room_again() -> None:
    """An upload in pieces asks for its rest."""
    assert upload.room(replace(FACTS, written=600, held=Held(free_bytes=400)), RECORD) is None
    refused = upload.room(replace(FACTS, written=600, held=Held(free_bytes=399)), RECORD)
    assert refused is not None
    assert refused.reason == "StoreFull"


@pytest.mark.parametrize(
    ("header", "length", "answer"),
    [
        ([], 10, None),
        (["bytes 0-9/*"], 10, Span(0, 10, None)),
        (["bytes 10-19/20"], 10, Span(10, 20, 20)),
        (["bytes 0-9/20"], 10, Span(0, 10, 20)),
        (["bytes */20"], 0, Span(20, 20, 20)),
        (["bytes 0-99/100"], 100, Span(0, 100, 100)),
        (["bytes 0-99/*"], 100, 413),
        (["bytes 0-99/200"], 100, 413),
        (["bytes 0-9/*"], None, 411),
        (["bytes 0-9/10"], None, 411),
        (["bytes 0-9/*"], 9, 400),
        (["bytes 0-9/*"], 0, 400),
        (["bytes 0-9/9"], 10, 400),
        (["bytes 9-0/*"], 10, 400),
        (["bytes 9-0/*"], 0, 400),
        (["bytes */20"], 1, 400),
        (["bytes */0"], 0, 400),
        (["bytes */*"], 0, 400),
        (["bytes 0-/10"], 10, 400),
        (["bytes -9/10"], 10, 400),
        (["lines 0-9/10"], 10, 400),
        (["bytes=0-9/10"], 10, 400),
        (["bytes 0-9"], 10, 400),
        ([""], 10, 400),
        (["bytes 0-9/*", "bytes 0-9/*"], 10, 400),
        (["bytes 0-9/*, bytes 0-9/*"], 10, 400),
        (["bytes +0-9/*"], 10, 400),
        (["bytes \u0660-\u0669/*"], 10, 400),
        (["bytes 0-9999999999999999/*"], 10, 400),
    ],
)
def test_which_piece_a_request_carries(header: list[str], length: int | None, answer: Span | int | None) -> None:
    """Only what cannot be read in two ways; a piece that is not the last has a largest size, here 50 bytes."""
    try:
        got: Span | int | None = read_span(header, length, 50)
    except Refused as refused:
        got = refused.status
    assert got == answer


def test_a_sender_that_never_begins_has_the_grace() -> None:
    """Ten seconds for the first byte."""
    assert Pace(1024, 10, 30).patience == 10


def test_a_fast_sender_may_fall_silent_for_the_idle_time_and_no_longer() -> None:
    """A gibibyte sent buys thirty seconds, not twelve days."""
    pace = Pace(1024, 10, 30)
    pace.received(1 << 30, 1)
    assert pace.patience == 30


@pytest.mark.parametrize("per_second", [0.5, 1, 10, 100, 1000])
def test_a_dribble_below_the_rate_ends_within_grace_and_idle(per_second: float) -> None:
    """However the bytes are spread, a sender below the rate is cut off; the slower, the sooner."""
    pace, waited, gap = Pace(1024, 10, 30), 0.0, 1 / per_second
    while pace.patience > gap and waited < 3600:
        pace.received(1, gap)
        waited += gap
    assert waited + pace.patience <= 10 / (1 - per_second / 1024) + gap


def test_a_sender_at_the_rate_is_never_cut_off() -> None:
    """An hour of exactly 1 KiB/s."""
    pace = Pace(1024, 10, 30)
    for _ in range(3600):
        pace.received(1024, 1.0)
        assert pace.patience >= 10


def test_a_burst_and_then_a_dribble_ends_in_45_seconds() -> None:
    """What was sent before buys no slow body."""
    pace, waited = Pace(1024, 10, 30), 0.0
    pace.received(1 << 20, 0.1)
    while pace.patience > 1:
        pace.received(1, 1.0)
        waited += 1
    assert waited + pace.patience < 45
