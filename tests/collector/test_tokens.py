"""Some three hundred ways to have the wrong credential, at every call that changes something: refused, nothing written.

The columns are what the calls of an uploader and those of the operator answer; a right credential is none of the rows.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collector.rig import (
    API_AUDIENCE,
    CAPTURE,
    OPERATOR,
    PATH,
    UPLOADER,
    Collector,
    FakeApi,
    outage,
    registration,
)
from toe_async.kube.errors import Forbidden, ServerError, UnexpectedAnswer
from toe_async.kube.requests import Request

OTHER = "b" * 32
OF_CAPTURE, OF_OTHER, OF_OPERATOR = f"toe-collector/{CAPTURE}", f"toe-collector/{OTHER}", "toe-collector"

UPLOADER_CALLS = ["put", "put piece", "put last piece", "head", "complete"]
OPERATOR_CALLS = ["register", "cancel"]
CALLS = [*UPLOADER_CALLS, *OPERATOR_CALLS]

# username, audience, status for an uploader's call, status for an operator's call
TOKENS: list[tuple[str, str, int, int]] = [
    (UPLOADER, OF_OTHER, 401, 401),
    (UPLOADER, OF_OPERATOR, 401, 403),
    (UPLOADER, API_AUDIENCE, 401, 401),
    (UPLOADER, OF_CAPTURE.upper(), 401, 401),
    (UPLOADER, OF_CAPTURE + "/", 401, 401),
    (UPLOADER, OF_CAPTURE + "/heap.pprof", 401, 401),
    (UPLOADER, "toe-collector/", 401, 401),
    (UPLOADER, f"toe-collector//{CAPTURE}", 401, 401),
    (UPLOADER, CAPTURE, 401, 401),
    (UPLOADER, f"toe-collector/{CAPTURE[:10]}", 401, 401),
    (UPLOADER, "", 401, 401),
    (UPLOADER, "*", 401, 401),
    (OPERATOR, OF_CAPTURE, 403, 401),
    (OPERATOR, OF_OTHER, 401, 401),
    (OPERATOR, API_AUDIENCE, 401, 401),
    (OPERATOR, OF_OPERATOR + "/", 401, 401),
    ("system:serviceaccount:shop:default", OF_CAPTURE, 403, 401),
    ("system:serviceaccount:shop:default", OF_OPERATOR, 401, 403),
    ("system:serviceaccount:shop:toe-uploader", OF_CAPTURE, 403, 401),
    ("system:serviceaccount:toe-agents:default", OF_CAPTURE, 403, 401),
    ("system:serviceaccount:toe-agents:toe-uploader2", OF_CAPTURE, 403, 401),
    ("system:serviceaccount:toe-agents:TOE-uploader", OF_CAPTURE, 403, 401),
    ("system:serviceaccount:toe-agents:toe-uploader ", OF_CAPTURE, 403, 401),
    ("toe-uploader", OF_CAPTURE, 403, 401),
    ("system:serviceaccount:shop:toe-operator", OF_OPERATOR, 401, 403),
    ("system:admin", OF_CAPTURE, 403, 401),
    ("system:admin", OF_OPERATOR, 401, 403),
    ("system:node:node-1", OF_CAPTURE, 403, 401),
    ("ada", API_AUDIENCE, 401, 401),
    ("ada", OF_CAPTURE, 403, 401),
    ("", OF_CAPTURE, 401, 401),
    ("", OF_OPERATOR, 401, 401),
]

HEADERS: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer {token}, Bearer {token}"},
    {"Authorization": "Bearer {token} {token}"},
    {"Authorization": "Basic {token}"},
    {"Authorization": "{token}"},
    {"Authorization": "Bearer made.up.token"},
    {"X-Authorization": "Bearer {token}"},
    {"Cookie": "token={token}"},
    {"X-Remote-User": UPLOADER, "X-Remote-Group": "system:masters"},
    {"Impersonate-User": UPLOADER, "X-Forwarded-User": OPERATOR},
]

USER = f'"user":{{"username":"{UPLOADER}"}}'
AUDIENCES = f'"audiences":["{OF_CAPTURE}","{OF_OPERATOR}"]'
REVIEWS = [
    f'{{"status":{{"authenticated":true,{USER}}}}}',
    f'{{"status":{{"authenticated":true,{USER},"audiences":[]}}}}',
    f'{{"status":{{"authenticated":true,{USER},"audiences":["{API_AUDIENCE}"]}}}}',
    f'{{"status":{{"authenticated":true,{USER},"audiences":["{OF_OTHER}"]}}}}',
    f'{{"status":{{"authenticated":false,{USER},{AUDIENCES}}}}}',
    f'{{"status":{{{USER},{AUDIENCES}}}}}',
    f'{{"status":{{"authenticated":true,{AUDIENCES}}}}}',
    f'{{"status":{{"authenticated":true,"user":{{"username":""}},{AUDIENCES}}}}}',
    '{"status":{"error":"token has been invalidated"}}',
    "{}",
]
OUTAGES = [
    outage(),
    ServerError(503, "ServiceUnavailable", "etcd leader changed"),
    ServerError(429, "TooManyRequests", "slow down"),
    Forbidden(403, "Forbidden", "tokenreviews is forbidden"),
    UnexpectedAnswer("a login page"),
]


def digest(root: Path) -> str:
    """Every name and content below the root, except the index of what is stored."""

    def lines() -> Iterator[str]:
        for path in sorted(root.rglob("*")):
            if not path.name.startswith("index.sqlite"):
                yield f"{path} {hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''}"

    return hashlib.sha256("\n".join(lines()).encode()).hexdigest()


async def attempt(collector: Collector, call: str, headers: dict[str, str], path: str = PATH) -> int:
    """Make a call that would do something if it were let in; the status."""
    match call:
        case "put":
            what: tuple[str, str, dict[str, Any]] = "PUT", path, {"data": b"bytes"}
        case "put piece":
            what, headers = ("PUT", path, {"data": b"bytes"}), headers | {"Content-Range": "bytes 0-4/*"}
        case "put last piece":
            what, headers = ("PUT", path, {"data": b"bytes"}), headers | {"Content-Range": "bytes 0-4/5"}
        case "head":
            what = "HEAD", path, {}
        case "complete":
            what = "POST", path.rpartition("/artifacts/")[0] + "/complete", {"json": {"artifacts": []}}
        case "register":
            what = "POST", "/v1/captures", {"json": registration(id="c" * 32)}
        case _:
            what = "DELETE", path.rpartition("/artifacts/")[0], {}
    method, where, more = what
    async with collector.call(method, where, headers=headers, **more) as reply:
        body = await reply.read()
        if method != "HEAD":
            assert set(json.loads(body)) == {"error", "reason"}
        assert reply.status != 401 or reply.headers["WWW-Authenticate"] == "Bearer"
        return reply.status


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def registered(collector: Collector) -> Collector:
    """Two captures, and a store where nothing happens by itself: the first pass of the janitor makes a folder."""
    async with asyncio.timeout(10):
        while not await asyncio.to_thread((collector.root / ".toe" / "orphans").exists):
            await asyncio.sleep(0.001)
    for capture in (CAPTURE, OTHER):
        assert (await collector.register(id=capture))[0] == 201
    return collector


def right(api: FakeApi, call: str, **changes: Any) -> str:
    """A token that is right for a call, apart from the changes."""
    username, audience = (UPLOADER, OF_CAPTURE) if call in UPLOADER_CALLS else (OPERATOR, OF_OPERATOR)
    return api.token(username, audience, **changes)


@pytest.mark.parametrize("call", CALLS)
async def test_a_token_that_is_not_for_this_call_is_refused(registered: Collector, call: str) -> None:
    """Of another account, for another capture or audience, of a user: by the API server's word alone."""
    before = digest(registered.root)
    for username, audience, uploading, operating in TOKENS:
        token = registered.api.token(username, audience)
        wanted = uploading if call in UPLOADER_CALLS else operating
        assert await attempt(registered, call, bearing(token)) == wanted, (username, audience)
    assert digest(registered.root) == before


@pytest.mark.parametrize("call", CALLS)
async def test_a_token_that_is_over_or_revoked_or_made_up_is_refused(registered: Collector, call: str) -> None:
    """Expired by the API server's clock or by its own claim, its Secret deleted, its signature or claims changed."""
    api, before = registered.api, digest(registered.root)
    revoked, stretched = right(api, call), right(api, call)
    api.revoke(revoked)
    late = right(api, call, seconds=-5)
    api.tokens[late]["exp"] += 1000  # an API server whose clock is late lets it through; we do not
    head, _, signature = stretched.split(".")
    claims = right(api, call).split(".")[1]
    for token in (right(api, call, seconds=-5), late, revoked, f"{head}.{claims}.{signature}x", stretched + "x"):
        assert await attempt(registered, call, bearing(token)) == 401
    assert digest(registered.root) == before


@pytest.mark.parametrize("call", CALLS)
async def test_a_right_token_in_a_wrong_place_is_no_token(registered: Collector, call: str) -> None:
    """Only one Authorization header of one form counts; nobody is believed who merely says a name."""
    before, token = digest(registered.root), right(registered.api, call)
    for headers in HEADERS:
        given = {key: value.format(token=token) for key, value in headers.items()}
        assert await attempt(registered, call, given) == 401, headers
    assert digest(registered.root) == before


@pytest.mark.parametrize("call", CALLS)
async def test_only_a_whole_and_fitting_review_lets_in(
    registered: Collector, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authenticator that knows no audiences leaves them out; then it has judged another question."""
    before = digest(registered.root)
    for number, review in enumerate(REVIEWS):

        async def careless(request: Request, review: str = review) -> bytes:
            return review.encode()

        monkeypatch.setattr(registered.api, "send", careless)
        assert await attempt(registered, call, bearing(f"token-number-{number}")) == 401, review
    assert digest(registered.root) == before


@pytest.mark.parametrize("call", CALLS)
async def test_nobody_is_let_in_when_nobody_can_tell(registered: Collector, call: str) -> None:
    """503 for each kind of outage, also for a right token, and yes again after it."""
    before = digest(registered.root)
    for trouble in OUTAGES:
        registered.api.down = trouble
        assert await attempt(registered, call, bearing(right(registered.api, call))) == 503
    assert digest(registered.root) == before


async def closed(collector: Collector, how: str) -> None:
    """Bring the capture into a state in which its own token is of no use."""
    capture = f"/v1/captures/{CAPTURE}"
    match how:
        case "Complete":
            await collector.ask("POST", f"{capture}/complete", collector.uploader(), json={"artifacts": []})
        case "Cancelled":
            await collector.ask("DELETE", capture, collector.operator)
        case "Expired":
            file = collector.root / ".toe" / "captures" / f"{CAPTURE}.json"
            record = json.loads(file.read_bytes())
            record["registration"]["expires"] = "2026-01-24T21:44:08Z"
            file.write_text(json.dumps(record))
        case _:
            (collector.root / ".toe" / "captures" / f"{CAPTURE}.json").unlink()


OVER = [
    (how, call)
    for how in ("Complete", "Cancelled", "Expired", "NotRegistered")
    for call in UPLOADER_CALLS
    if call != "complete" or how in {"Cancelled", "NotRegistered"}  # it may be repeated, or come after the end
]


@pytest.mark.parametrize(("how", "call"), OVER)
async def test_a_right_token_of_a_capture_that_is_over_uploads_nothing(
    registered: Collector, how: str, call: str
) -> None:
    """404 when it is not registered, 403 when it is closed."""
    await closed(registered, how)
    before = digest(registered.root)
    status = await attempt(registered, call, bearing(registered.uploader()))
    assert status == (404 if how == "NotRegistered" else 403)
    assert digest(registered.root) == before


def test_the_table_is_as_long_as_it_says() -> None:
    """So that nobody shortens it unnoticed."""
    rows = len(TOKENS) + 5 + len(HEADERS) + len(REVIEWS) + len(OUTAGES)
    assert rows * len(CALLS) + len(OVER) >= 300
