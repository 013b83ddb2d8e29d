"""A status is written where it differs, on what was seen, and what we wrote counts until the watch has it."""

from typing import Any

import msgspec
import pytest

from toe_async.apis.kinds import POWER_TOOLS
from toe_async.apis.meta import ObjectMeta, Wire
from toe_async.kube.requests import MERGE_PATCH, Request
from toe_async.runtime.statuses import OwnWrites, StatusWriter, differences


class State(Wire, frozen=True, kw_only=True):
    phase: str = ""
    active: dict[str, str] = msgspec.field(default_factory=dict)
    rows: tuple[str, ...] = ()


class Thing(Wire, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    status: State = State()


class Server:
    """Answers every request with the next version of the thing."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request) -> bytes:
        self.requests.append(request)
        return msgspec.json.encode(
            Thing(metadata=ObjectMeta(name="a", namespace="shop", uid="u", resource_version="8"))
        )


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {}, {"a": None}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "z": 3}}, {"a": {"y": None, "z": 3}}),
        ({"a": {"x": 1}}, {"a": {"x": 1}, "b": [1]}, {"b": [1]}),
        ({"a": [1, 2]}, {"a": [2]}, {"a": [2]}),
        ({"a": {"x": 1}}, {"a": 5}, {"a": 5}),
    ],
)
def test_differences_are_a_merge_patch(before: dict[str, Any], after: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7396: what left a map is null, lists are sent whole."""
    assert differences(before, after) == patch


async def test_a_write_names_version_and_incarnation_and_sends_only_what_differs() -> None:
    """Fields that nobody changed, and those that our types do not know, are in no patch."""
    server = Server()
    writer = StatusWriter(server, POWER_TOOLS, msgspec.json.Decoder(Thing).decode, "toe-test")
    old = State(phase="Running", active={"a": "1", "b": "2"}, rows=("x",))
    thing = Thing(metadata=ObjectMeta(name="a", namespace="shop", uid="u", resource_version="7"), status=old)
    new = State(phase="Running", active={"b": "2"}, rows=("x", "y"))
    written = await writer.write(thing, old, new)
    (request,) = server.requests
    assert (request.method, request.content_type, dict(request.query)) == (
        "PATCH", MERGE_PATCH, {"fieldManager": "toe-test"}
    )  # fmt: skip
    assert request.path.endswith("/namespaces/shop/powertools/a/status")
    assert msgspec.json.decode(request.body or b"") == {
        "metadata": {"resourceVersion": "7", "uid": "u"},
        "status": {"active": {"a": None}, "rows": ["x", "y"]},
    }
    assert written.metadata.resource_version == "8"


async def test_an_equal_status_is_no_write() -> None:
    """The object comes back as it was."""
    server = Server()
    writer = StatusWriter(server, POWER_TOOLS, msgspec.json.Decoder(Thing).decode, "toe-test")
    thing = Thing()
    assert await writer.write(thing, State(phase="a"), State(phase="a")) is thing
    assert server.requests == []


def thing_of(version: str, uid: str = "u") -> Thing:
    return Thing(metadata=ObjectMeta(name="a", uid=uid, resource_version=version))


@pytest.mark.parametrize(
    ("cached", "newest"),
    [
        (thing_of("6"), thing_of("7")),  # the watch is behind
        (thing_of("7"), thing_of("7")),
        (thing_of("9"), thing_of("9")),
        (thing_of("6", uid="other"), thing_of("6", uid="other")),  # made anew under the same name
        (thing_of("opaque"), thing_of("opaque")),  # nothing can be said about the order
        (None, None),
    ],
)
def test_our_own_write_counts_until_the_watch_has_it(cached: Thing | None, newest: Thing | None) -> None:
    """And never longer: what the watch shows later, or another incarnation, wins."""
    own: OwnWrites[str, Thing] = OwnWrites()
    own.wrote("a", thing_of("7"))
    assert own.newest("a", cached) == newest
    if cached is not None and newest == cached:
        assert own.newest("a", thing_of("1")) == thing_of("1"), "what was overtaken is forgotten"
