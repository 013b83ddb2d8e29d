"""What has to go, by rule; and the policy file."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.collector.catalog.catalogrig import T0, manifest
from toe_async.collector.catalog import Entry
from toe_async.collector.catalog.policy import Policies, parse
from toe_async.collector.catalog.retention import Retention, RetentionPolicy, Standing, due, is_within, plan

DAY = timedelta(days=1)
NOW = T0 + 10 * DAY


def entries(*rows: tuple[str, float, int, int | None, str]) -> list[Entry]:
    """Name, days since it was stored, bytes, days of its own, hold."""
    return [
        Entry(manifest(name, (NOW - age * DAY - T0).total_seconds(), size=size, retention_days=days, hold=hold), number)
        for number, (name, age, size, days, hold) in enumerate(rows)
    ]


THREE = entries(("old", 9, 10, None, ""), ("mid", 5, 20, None, ""), ("new", 1, 40, None, ""))
OWN = entries(("short", 3, 10, 2, ""), ("long", 9, 10, 30, ""), ("plain", 8, 10, None, ""))
HELD = entries(
    ("old", 9, 10, None, ""), ("kept", 8, 1000, 1, "case 7"), ("mid", 5, 20, None, ""), ("new", 1, 40, None, "")
)

RULES = {
    "without limits nothing goes": (THREE, RetentionPolicy(), []),
    "what is older than the age goes": (THREE, RetentionPolicy(age=4 * DAY), ["old", "mid"]),
    "an age is over at its last instant": (THREE, RetentionPolicy(age=5 * DAY), ["old", "mid"]),
    "and not a moment earlier": (THREE, RetentionPolicy(age=5 * DAY + timedelta(microseconds=1)), ["old"]),
    "above the count the oldest go": (THREE, RetentionPolicy(count=1), ["old", "mid"]),
    "at the count none goes": (THREE, RetentionPolicy(count=3), []),
    "above the bytes the oldest go": (THREE, RetentionPolicy(bytes=60), ["old"]),
    "at the bytes none goes": (THREE, RetentionPolicy(bytes=70), []),
    "one that is too big alone goes too": (THREE, RetentionPolicy(bytes=39), ["old", "mid", "new"]),
    "age goes first and counts": (THREE, RetentionPolicy(age=8 * DAY, count=2), ["old"]),
    "count and bytes together": (THREE, RetentionPolicy(count=2, bytes=40), ["old", "mid"]),
    "a run's days replace the age, both ways": (OWN, RetentionPolicy(age=4 * DAY), ["plain", "short"]),
    "a run's days need no policy": (OWN, RetentionPolicy(), ["short"]),
    "a run's days do not save from the count": (OWN, RetentionPolicy(count=1), ["short", "long"]),
    "what is held stays whatever its age": (HELD, RetentionPolicy(age=2 * DAY), ["old", "mid"]),
    "what is held stays above the count and is not counted": (HELD, RetentionPolicy(count=2), ["old"]),
    "what is held stays above the bytes and is not counted": (HELD, RetentionPolicy(bytes=65), ["old"]),
}  # fmt: skip


@pytest.mark.parametrize(("held", "policy", "going"), RULES.values(), ids=RULES.keys())
def test_a_rule_of_retention(held: list[Entry], policy: RetentionPolicy, going: list[str]) -> None:
    """Whatever the order in which the artifacts come."""
    assert [one.manifest.name for one in plan(held, policy, NOW)] == going
    assert [one.manifest.name for one in plan(reversed(held), policy, NOW)] == going


_ROWS = st.lists(
    st.tuples(
        st.just(""),
        st.integers(0, 9),
        st.integers(0, 50),
        st.none() | st.integers(1, 12),
        st.sampled_from(["", "", "x"]),
    ),
    max_size=12,
)
_POLICIES = st.builds(
    RetentionPolicy,
    age=st.none() | st.integers(1, 10).map(timedelta),
    count=st.none() | st.integers(1, 8),
    bytes=st.none() | st.integers(1, 200),
)


@given(rows=_ROWS, policy=_POLICIES)
def test_what_is_left_is_within_the_policy_and_nothing_goes_without_need(
    rows: list[tuple[str, int, int, int | None, str]], policy: RetentionPolicy
) -> None:
    """Held or not; a second pass finds nothing more, and one surplus artifact less would have been too few."""
    held = entries(*((f"n{number}", *row[1:]) for number, row in enumerate(rows)))
    going = plan(held, policy, NOW)
    left = [one for one in held if one not in going]
    assert not [one for one in going if one.manifest.hold]
    assert plan(left, policy, NOW) == ()
    free = [one for one in left if not one.manifest.hold]
    assert is_within(policy, Standing(len(free), sum(one.manifest.size for one in free)))
    last = [one for one in going if one not in due(held, policy, NOW)][-1:]
    more = free + last
    assert not last or not is_within(policy, Standing(len(more), sum(one.manifest.size for one in more)))


POLICY = b"""
default: {age: 7d, count: 100000, bytes: 200Gi}
namespaces:
  payments: {age: 30d, bytes: none}
  scratch:
    age: 90m
    count: 5
"""


def test_a_policy_file_is_read_and_a_namespace_takes_what_it_does_not_name_from_the_default() -> None:
    """`none` takes a limit away."""
    read = parse(POLICY)
    assert read.default == RetentionPolicy(7 * DAY, 100_000, 200 << 30)
    assert read.of("payments") == RetentionPolicy(30 * DAY, 100_000, None)
    assert read.of("scratch") == RetentionPolicy(timedelta(minutes=90), 5, 200 << 30)
    assert read.of("shop") == read.default
    for nothing in (b"", b"# nothing yet\n", b"default:\n", b"namespaces: {}\n"):
        assert parse(nothing) == Retention()


BAD = [
    (b"defaults: {}", r"the file has 'defaults', which is unknown; there are default, namespaces"),
    (b"default: {ages: 7d}", r"default has 'ages', which is unknown; there are age, bytes, count"),
    (b"default: {age: 7}", r"default.age: '7' is no age of a minute or more; write it like 90m, 168h or 7d, or none"),
    (b"default: {age: 7 days}", r"default.age: '7 days'"),
    (b"default: {age: -7d}", r"default.age: '-7d'"),
    (b"default: {age: 0s}", r"default.age: '0s'"),
    (b"default: {age: 59s}", r"default.age: '59s'"),
    (b"default: {age: 999999999d}", r"default.age: '999999999d'"),
    (b"default: {age: }", r"default.age: ''"),
    (b"default: {age: [7d]}", r"default.age"),
    (b"default: {count: 0}", r"default.count: '0' is no whole number of 1 or more"),
    (b"default: {count: -5}", r"default.count: '-5'"),
    (b"default: {count: 1.5}", r"default.count: '1.5'"),
    (b"default: {count: true}", r"default.count: 'True'"),
    (b"default: {count: 99999999999999999999999999}", r"default.count"),
    (b"default: {bytes: -1Gi}", r"default.bytes: '-1Gi' is no size of a byte or more; write it like 500Mi or 10Gi"),
    (b"default: {bytes: 10G B}", r"default.bytes"),
    (b"default: {bytes: 100m}", r"default.bytes"),
    (b"default: {bytes: 1e999}", r"default.bytes"),
    (b"default: 7d", r"default must be a map"),
    (b"namespaces: [shop]", r"namespaces must be a map"),
    (b"namespaces: {Shop: {}}", r"namespaces: 'Shop' is no name of a namespace"),
    (b"namespaces: {shop: {age: x}}", r"namespaces.shop.age: 'x'"),
    (b"- default", r"the file must be a map"),
    (b"{1: 2}", r"the file must be a map"),
    (b"default: {age: 1d}\ndefault: {age: 2d}", r"cannot be read as YAML at line 1: a key is there twice"),
    (b"default: {", r"cannot be read as YAML at line"),
    (b"default: !!python/object/apply:os.system [ls]", r"cannot be read as YAML"),
    (b"default: !!bool maybe", r"cannot be read as YAML"),
    (b'default: !!int ""', r"cannot be read as YAML"),
    (b"default: !!timestamp soon", r"cannot be read as YAML"),
    (b"\xff\xfe\xff", r"cannot be read as YAML"),
    (b"[" * 1000, r"cannot be read as YAML"),
    (b"default: {age: 2026-99-99}", r"default.age|cannot be read as YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "trouble"), BAD)
def test_a_policy_that_makes_no_sense_is_refused_with_its_place(text: bytes, trouble: str) -> None:
    """What is guessed wrong here deletes evidence."""
    with pytest.raises(ValueError, match=trouble):
        parse(text)


def _unreadable(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("spoil", [_unreadable, lambda file: file.write_bytes(b"default: {age: soon}")])
def test_a_bad_policy_keeps_the_last_good_one_and_says_so(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Until it is mended."""
    file, policies = tmp_path / "retention", Policies(tmp_path)
    policies.reload()
    assert (policies.current, policies.trouble) == (Retention(), None)
    file.write_bytes(b"default: {age: 7d}")
    policies.reload()
    good = policies.current
    assert good.default.age == 7 * DAY
    spoil(file)
    for _ in range(2):
        policies.reload()
        assert policies.current is good
        assert policies.trouble is not None
        assert policies.trouble.endswith("the policy before it stays in force")
    if file.is_dir():
        file.rmdir()
    file.write_bytes(b"default: {age: 8d}")
    policies.reload()
    assert (policies.current.default.age, policies.trouble) == (8 * DAY, None)


def test_a_policy_whose_file_goes_removes_nothing_any_more(tmp_path: Path) -> None:
    """No file is no limit, with and without a folder."""
    policies = Policies(None)
    policies.reload()
    assert policies.current == Retention()
    (tmp_path / "retention").write_bytes(b"default: {age: 7d}")
    policies = Policies(tmp_path)
    policies.reload()
    (tmp_path / "retention").unlink()
    policies.reload()
    assert (policies.current, policies.trouble) == (Retention(), None)
