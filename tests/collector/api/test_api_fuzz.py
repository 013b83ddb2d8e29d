"""Whatever is sent: an answer or a refusal, never a crash, and nothing but the hold ever changes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from hypothesis import example, given
from hypothesis import strategies as st

from tests.collector.api.shelf import manifest
from toe_async.collector.api.negotiation import MANY, form
from toe_async.collector.api.objects import HOLD, artifact
from toe_async.collector.api.options import delete_options
from toe_async.collector.api.patching import JSON_PATCH, MERGE, STRATEGIC, hold_after
from toe_async.collector.api.selection import selection
from toe_async.collector.errors import Refused

T = TypeVar("T")
OBJECT = artifact(manifest(0, hold="case 1"), 7)
NOW = datetime(2026, 1, 1, tzinfo=UTC)

keys = st.sampled_from(
    ["metadata", "annotations", HOLD, "artifact", "labels", "app", "name", "resourceVersion", "kind", "size", "$patch",
     "directory", "0", "-", "", "a/b", "~"]
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["7", "case 1", "case 2", "", "x\ny", "cart"])
)
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=4), max_leaves=8
)
paths = st.lists(keys, max_size=4).map(lambda parts: "/".join(["", *parts]))
operations = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["add", "remove", "replace", "test", "move", "copy"]) | values,
        "path": st.sampled_from(["/metadata/annotations/toe.run~1hold", "/metadata/annotations"]) | paths | values,
        "value": values,
        "from": paths,
    },
)


def tried(call: Callable[[], T]) -> T | int:
    """What it returns, or the status of its refusal."""
    try:
        return call()
    except Refused as refused:
        return refused.status


def outcome(content_type: str, patch: Any) -> str | int:
    """The hold afterwards, or the status of the refusal."""
    before = json.dumps(OBJECT)
    after = tried(lambda: hold_after(OBJECT, content_type, json.dumps(patch).encode()))
    assert json.dumps(OBJECT) == before
    return after


@given(values, st.sampled_from([MERGE, STRATEGIC]))
@example({"metadata": {"annotations": {HOLD: "case 2"}}}, MERGE)
@example({"metadata": {"annotations": {HOLD: {"a": 1}}}}, MERGE)
@example({"metadata": {"annotations": {"": None}}}, MERGE)
def test_a_merge_patch_changes_the_hold_or_is_refused(patch: Any, content_type: str) -> None:
    """A patch that names nothing else gives exactly the hold that it names."""
    after = outcome(content_type, patch)
    named = {"metadata": {"annotations": {HOLD: after}}}
    if isinstance(after, str) and after not in {"case 1", ""}:
        assert json.dumps(named)[1:-2] in json.dumps(patch)
    assert isinstance(after, str) or after in {400, 409, 422}


@given(st.lists(operations, max_size=4) | values)
@example([{"op": {}, "path": "/a"}])
@example([{"op": "test", "path": "/metadata/annotations"}])
@example([{"op": "add", "path": "/", "value": 1}])
def test_a_json_patch_changes_the_hold_or_is_refused(patch: Any) -> None:
    """Also one that is no patch at all."""
    after = outcome(JSON_PATCH, patch)
    assert after in {"case 1", "case 2", "", "7", "cart", 400, 409, 422}


@given(st.dictionaries(
    st.sampled_from(["run", "since", "until", "q", "labelSelector", "fieldSelector", "limit", "continue"]),
    st.text(max_size=40) | st.text(alphabet="metadata.nartifc=!,\\()-0123456789hZT:+", max_size=40),
))  # fmt: skip
def test_a_query_is_read_or_is_400(query: dict[str, str]) -> None:
    """Within the bounds of a page."""
    found = tried(lambda: selection("shop", query, NOW))
    if isinstance(found, int):
        assert found == 400
    else:
        assert 1 <= found.limit <= 500
        assert found.query.namespace == "shop"


@given(st.text(max_size=60) | st.text(alphabet="application/json;as=Tblvg.k8qt0*, ", max_size=60))
def test_an_accept_header_is_read_or_is_406(accept: str) -> None:
    """In any case of nonsense."""
    assert tried(lambda: form(accept, MANY)) in {*MANY, 406}


@given(values)
@example({"dryRun": [1]})
@example({"dryRun": None, "preconditions": None})
def test_delete_options_are_read_or_refused(options: Any) -> None:
    """Nothing but All is a dry run."""
    found = tried(lambda: delete_options(json.dumps(options).encode(), ()))
    if isinstance(found, int):
        assert found in {400, 422}
    else:
        assert found.dry_run in {(), ("All",)}
