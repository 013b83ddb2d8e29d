"""How long a failing key has to wait."""

import pytest

from toe_async.runtime.ratelimit import RateLimiter, TokenBucket


def test_a_keys_own_wait_doubles_from_5_ms_to_1000_s() -> None:
    """client-go's figures."""
    limiter: RateLimiter[str] = RateLimiter()
    waits = [limiter.when("a", now=number * 2000.0) for number in range(20)]
    assert waits[:5] == [0.005, 0.01, 0.02, 0.04, 0.08]
    assert waits[17] == pytest.approx(655.36)
    assert waits[18:] == [1000, 1000]


def test_a_key_that_fails_for_ever_never_overflows() -> None:
    """A float has room for about 1,000 doublings."""
    limiter: RateLimiter[str] = RateLimiter()
    assert {limiter.when("a", now=number * 1000.0) for number in range(5000)} <= {
        *(0.005 * 2**power for power in range(18)),
        1000.0,
    }


def test_a_key_that_did_well_starts_anew() -> None:
    """And only that key."""
    limiter: RateLimiter[str] = RateLimiter()
    for key in ("a", "b", "a", "b"):
        limiter.when(key, 0)
    assert limiter.failures("a") == 2
    limiter.forget("a")
    assert (limiter.failures("a"), limiter.failures("b")) == (0, 2)
    assert limiter.when("a", 0) == 0.005
    limiter.forget("never failed")


def test_all_keys_together_get_100_at_once_and_then_10_a_second() -> None:
    """A thousand keys that fail in the same moment come back over 90 seconds."""
    limiter: RateLimiter[int] = RateLimiter()
    waits = [limiter.when(key, now=1.0) for key in range(1000)]
    assert waits[:100] == [0.005] * 100
    assert waits[100] == pytest.approx(0.1)
    assert waits[999] == pytest.approx(90.0)


def test_the_budget_comes_back_with_time_and_never_beyond_its_burst() -> None:
    """Ten a second, a hundred at most."""
    bucket = TokenBucket(10, 100)
    assert all(bucket.take(0) for _ in range(100))
    assert not bucket.take(0)
    assert not bucket.take(0.05)
    assert bucket.take(0.1)
    assert sum(bucket.take(1000) for _ in range(200)) == 100


def test_a_reservation_is_paid_back_before_anything_else_is_given() -> None:
    """What was promised ahead is not promised twice."""
    bucket = TokenBucket(10, 1)
    assert [bucket.reserve(0) for _ in range(3)] == pytest.approx([0, 0.1, 0.2])
    assert not bucket.take(0.2)
    assert bucket.take(0.35)
