"""Registrations: what is taken, and what a second one may change."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from toe_async.apis.meta import encode
from toe_async.collector import captures, paths
from toe_async.collector.captures import Capture, Registration, State
from toe_async.collector.dateformat import DateLayout

NOW = datetime(2026, 1, 4, 12, 0, tzinfo=UTC)
GOOD = Registration(
    id="abcdefghijklmnopqrstuvwxyz234567", namespace="shop", labels={"app": "cart"}, run="hot.carts", run_uid="u-1",
    kind="ProfilingConfig", pod="cart-0", pod_uid="u-2", container="server", node="node-1", service="cart",
    tool="pprof", reason="on-demand", trigger="slot 7 — every 35 s", triggered_at=NOW,
    leaves=("heap.pprof", "cpu.pprof"), max_bytes=1000, expires=NOW + timedelta(hours=1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, None),
        ({"labels": {}}, None),
        ({"labels": {"empty": ""}}, None),
        ({"labels": {"a.b/c_d": "E.f-1"}}, None),
        ({"id": "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"}, "id"),
        ({"id": "../../../../../../../etc/passwd"}, "id"),
        ({"id": "a" * 31}, "id"),
        ({"namespace": ".."}, "namespace"),
        ({"namespace": "a/b"}, "namespace"),
        ({"namespace": ".toe"}, "namespace"),
        ({"namespace": ""}, "namespace"),
        ({"run": "../up"}, "run"),
        ({"run": "a..b"}, "run"),
        ({"run": "Upper"}, "run"),
        ({"pod": "a\0b"}, "pod"),
        ({"pod": "a/b"}, "pod"),
        ({"container": "a.b"}, "container"),
        ({"labels": {"../x": "y"}}, "labels"),
        ({"labels": {"a": "../y"}}, "labels"),
        ({"labels": {"a": "y\n"}}, "labels"),
        ({"node": "n\r\nX: y"}, "text"),
        ({"tool": "naïve"}, "text"),
        ({"trigger": "\x1b]52;c;x\x07"}, "text"),
        ({"leaves": ("heap.pprof", "../up")}, "leaves"),
        ({"leaves": ("a.manifest.json",)}, "leaves"),
        ({"leaves": ("heap.pprof", "heap.pprof")}, "twice"),
        ({"leaves": ()}, "leafGlobs"),
        ({"leaves": (), "leaf_globs": ("*.pcap*",)}, None),
        ({"leaf_globs": ("",)}, "leafGlobs"),
        ({"leaf_globs": ("[a",)}, "leafGlobs"),
        ({"leaf_globs": ("a*a*a*a*a*",)}, "leafGlobs"),
        ({"leaf_globs": ("x" * 101,)}, "leafGlobs"),
        ({"details": {"argv": "tcpdump -i any", "imageDigest": "sha256:1"}}, None),
        ({"details": {"../x": "y"}}, "details"),
        ({"details": {"argv": "a\x1b]52;c;x"}}, "details"),
        ({"details": {f"a{n}": "é" * 1000 for n in range(5)}}, "details"),
        ({"expires": NOW}, "expires"),
        ({"expires": NOW + timedelta(days=8)}, "expires"),
        ({"triggered_at": NOW.replace(tzinfo=None)}, "zone"),
    ],
)
def test_a_registration_is_checked_field_by_field(changes: dict[str, Any], word: str | None) -> None:
    """None: taken; else a sentence that names the field."""
    fault = captures.faults(replace(GOOD, **changes), NOW)
    assert fault is None if word is None else word in (fault or "")


OPEN = captures.open_capture(GOOD, DateLayout("2006/01/02"), 1 << 30)


def test_the_date_of_a_path_is_the_triggers() -> None:
    """Registered a day later, it is the same path."""
    assert OPEN.directory == ("shop", "app-cart", "hot.carts", "2026", "01", "04")


@pytest.mark.parametrize(
    ("held", "changes", "leaves", "hours"),
    [
        (OPEN, {}, 2, 1),
        (OPEN, {"expires": NOW + timedelta(hours=3)}, 2, 3),
        (OPEN, {"expires": NOW + timedelta(minutes=1)}, 2, 1),
        (OPEN, {"leaves": ("mutex.pprof",)}, 3, 1),
        (OPEN, {"max_bytes": 5}, 2, 1),
        (OPEN, {"leaf_globs": ("*.pcap",)}, 2, 1),
        (OPEN, {"details": {"argv": "another"}}, 2, 1),
        (replace(OPEN, state=State.COMPLETE), {"expires": NOW + timedelta(hours=3)}, 2, 1),
        (replace(OPEN, state=State.CANCELLED), {"leaves": ("mutex.pprof",)}, 2, 1),
        (OPEN, {"pod": "cart-1"}, None, None),
        (OPEN, {"run_uid": "other"}, None, None),
        (OPEN, {"namespace": "bank"}, None, None),
    ],
)
def test_registering_again_prolongs_and_adds_but_never_becomes_another_capture(
    held: Capture, changes: dict[str, Any], leaves: int | None, hours: int | None
) -> None:
    """None: it is another capture's id."""
    again = captures.register_again(held, replace(GOOD, **changes))
    if leaves is None or hours is None:
        assert again is None
        return
    assert again is not None
    assert (again.state, again.directory) == (held.state, held.directory)
    assert len(again.registration.leaves) == leaves
    assert again.registration.expires == NOW + timedelta(hours=hours)
    assert again.registration.max_bytes == 1000
    assert again.registration.details == (changes.get("details", {}) if held.state is State.OPEN else {})


def test_details_that_come_later_are_added() -> None:
    """An image's digest is known once the container runs. Too many are left out, and the capture goes on."""
    held = captures.open_capture(replace(GOOD, details={"argv": "x", "image": "a"}), DateLayout("2006"), 1 << 30)
    again = captures.register_again(held, replace(GOOD, details={"imageDigest": "sha256:1", "image": "b"}))
    assert again is not None
    assert again.registration.details == {"argv": "x", "image": "b", "imageDigest": "sha256:1"}
    many = captures.register_again(held, replace(GOOD, details={f"a{n}": "x" for n in range(31)}))
    assert many is not None
    assert many.registration.details == held.registration.details


GLOBBED = replace(OPEN, registration=replace(GOOD, leaves=("tool.log",), leaf_globs=("*.pcap*", "out/../*")))


@pytest.mark.parametrize(
    ("leaf", "allowed"),
    [
        ("tool.log", True),
        ("dump.pcap", True),
        ("dump.0001.pcap.gz", True),
        ("dump.txt", False),
        ("out/../x", False),
        ("../x.pcap", False),
        (".pcap", False),
        ("a.pcap.manifest.json", False),
        ("a.pcap.part", False),
        ("é.pcap", False),
        ("x" * 101 + ".pcap", False),
        ("", False),
    ],
)
def test_a_glob_allows_safe_names_and_no_others(leaf: str, allowed: bool) -> None:
    """Whatever the glob says."""
    assert captures.allows(GLOBBED, leaf) is allowed


def test_a_capture_has_no_more_than_its_number_of_leaves() -> None:
    """A tool that writes files without end fills no catalog; those it has may still be sent again."""
    most = captures.MOST_LEAVES - 1
    full = replace(GLOBBED, matched=tuple(f"{n}.pcap" for n in range(most)))
    assert captures.allows(full, "7.pcap")
    assert not captures.allows(full, "more.pcap")
    assert captures.allows(replace(full, matched=full.matched[1:]), "more.pcap")


def test_two_leaves_never_share_a_name_in_the_read_api() -> None:
    """One that is called as another one's changed name would be the same artifact there."""
    changed = paths.artifact_name(GOOD.id, "A_b.pcap")
    clash = changed.removeprefix(GOOD.id[:10] + "-")
    assert captures.allows(GLOBBED, clash)
    assert not captures.allows(replace(GLOBBED, matched=("A_b.pcap",)), clash)


def test_no_capture_is_allowed_more_than_the_collector() -> None:
    """An operator with a larger limit of its own is cut down, not turned away."""
    assert captures.open_capture(GOOD, DateLayout("2006"), 7).registration.max_bytes == 7


def test_a_record_survives_its_trip_to_disk() -> None:
    """Whatever is in it."""
    assert captures.decode_capture(encode(OPEN)) == OPEN
    manifest = captures.manifest_of(OPEN, "heap.pprof", 7, "a" * 64, NOW)
    assert captures.decode_manifest(encode(manifest)) == manifest
    assert manifest.run_uid == "u-1"
    assert b'"runUID":"u-1"' in encode(manifest)
    assert b'"podUID":"u-2"' in encode(manifest)
