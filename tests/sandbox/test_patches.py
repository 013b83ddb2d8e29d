"""Patch types as pure functions."""

import copy
from typing import Any

import pytest

from toe_async.sandbox.patches import json_patch, merge, strategic
from toe_async.sandbox.status import Refusal


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        pytest.param({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="adds"),
        pytest.param({"a": {"x": 1, "y": 2}}, {"a": {"x": None}}, {"a": {"y": 2}}, id="null removes"),
        pytest.param({"a": [1, 2]}, {"a": [3]}, {"a": [3]}, id="lists are replaced"),
        pytest.param({"a": "x"}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}, id="an object replaces a scalar"),
    ],
)
def test_merge(target: Any, patch: Any, expected: Any) -> None:
    before = copy.deepcopy(target)
    assert merge(target, patch) == expected
    assert target == before


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        pytest.param([{"op": "add", "path": "/l/0", "value": 0}], {"l": [0, 1, 2], "m": {"a/b": 1}}, id="insert"),
        pytest.param([{"op": "add", "path": "/l/-", "value": 3}], {"l": [1, 2, 3], "m": {"a/b": 1}}, id="append"),
        pytest.param(
            [{"op": "replace", "path": "/l/1", "value": 9}], {"l": [1, 9], "m": {"a/b": 1}}, id="replace item"
        ),
        pytest.param([{"op": "remove", "path": "/m/a~1b"}], {"l": [1, 2], "m": {}}, id="escaped path"),
        pytest.param([{"op": "move", "from": "/l", "path": "/n"}], {"n": [1, 2], "m": {"a/b": 1}}, id="move"),
    ],
)
def test_json_patch(operations: Any, expected: Any) -> None:
    assert json_patch({"l": [1, 2], "m": {"a/b": 1}}, operations) == expected


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nope"},
        {"op": "test", "path": "/l", "value": []},
        {"op": "add", "path": "l", "value": 1},
        {"op": "fold", "path": "/l"},
        {"path": "/l"},
    ],
)
def test_a_json_patch_that_does_not_fit_is_422(operation: Any) -> None:
    with pytest.raises(Refusal) as refused:
        json_patch({"l": [1]}, [operation])
    assert refused.value.code == 422


ENV = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}, {"name": "b"}]}


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        pytest.param(
            ENV,
            {"containers": [{"name": "a", "env": [{"name": "X", "value": "9"}]}]},
            {
                "containers": [
                    {"name": "a", "env": [{"name": "X", "value": "9"}, {"name": "Y", "value": "2"}]},
                    {"name": "b"},
                ]
            },
            id="keyed lists join at every depth",
        ),
        pytest.param(
            ENV,
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b"}]},
            id="$patch delete",
        ),
        pytest.param(
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a", "image": "x"}],
            },
            {"containers": [{"name": "b"}, {"name": "a", "image": "x"}]},
            id="$setElementOrder",
        ),
        pytest.param(
            {"finalizers": ["a/a"]}, {"finalizers": ["b/b"]}, {"finalizers": ["a/a", "b/b"]}, id="finalizers are a set"
        ),
        pytest.param(
            {"finalizers": ["a/a", "b/b"]},
            {"$deleteFromPrimitiveList/finalizers": ["a/a"]},
            {"finalizers": ["b/b"]},
            id="$deleteFromPrimitiveList",
        ),
        pytest.param({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}, id="other lists are replaced"),
        pytest.param({"s": {"a": 1}}, {"s": {"$patch": "replace", "b": 2}}, {"s": {"b": 2}}, id="$patch replace"),
        pytest.param({"s": {"a": 1}}, {"s": {"$retainKeys": ["b"], "b": 2}}, {"s": {"b": 2}}, id="$retainKeys"),
    ],
)
def test_strategic(target: Any, patch: Any, expected: Any) -> None:
    assert strategic(copy.deepcopy(target), patch) == expected
