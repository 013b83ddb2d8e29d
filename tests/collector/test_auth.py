"""Who is let in: the API server's word, how long it is believed, and what happens when it cannot be had."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from loopclock import LoopClock
from prometheus_client import CollectorRegistry

from tests.collector.rig import FakeApi
from toe_async.collector.auth import Gate, bearer, capture_audience, seconds_left
from toe_async.collector.errors import Refused
from toe_async.kube.errors import Forbidden, KubeError, ServerError, TransportError, UnexpectedAnswer
from toe_async.kube.requests import Request
from toe_async.telemetry.metrics import CollectorMetrics

UPLOADER = "system:serviceaccount:toe-agents:toe-uploader"
ALLOWED = frozenset({UPLOADER})
ID, OTHER = "abcdefghijklmnopqrstuvwxyz234567", "b" * 32
AUDIENCE = capture_audience(ID)


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


@pytest.fixture
def metrics() -> CollectorMetrics:
    return CollectorMetrics(CollectorRegistry())


@pytest.fixture
async def gate(api: FakeApi, clock: LoopClock, metrics: CollectorMetrics) -> AsyncIterator[Gate]:
    async with Gate(api, clock, metrics, 10.0) as made:
        yield made


async def answer(gate: Gate, token: str, audience: str = AUDIENCE) -> int:
    """200 when let in, else the status of the refusal."""
    try:
        await gate.service(token, audience, ALLOWED)
    except Refused as refused:
        return refused.status
    return 200


@pytest.mark.parametrize(
    ("username", "audience", "status"),
    [
        (UPLOADER, AUDIENCE, 200),
        (UPLOADER, capture_audience(OTHER), 401),
        (UPLOADER, "toe-collector", 401),
        (UPLOADER, AUDIENCE + "x", 401),
        (UPLOADER, "https://kubernetes.default.svc", 401),
        ("system:serviceaccount:shop:default", AUDIENCE, 403),
        ("system:serviceaccount:toe-system:toe-operator", AUDIENCE, 403),
        ("system:serviceaccount:toe-agents:toe-uploader2", AUDIENCE, 403),
        ("", AUDIENCE, 401),
    ],
)
async def test_a_token_must_be_for_this_capture_and_of_the_uploader(
    gate: Gate, api: FakeApi, username: str, audience: str, status: int
) -> None:
    """Audience and username, both exactly."""
    assert await answer(gate, api.token(username, audience)) == status


async def test_a_review_without_audiences_is_a_refusal(
    gate: Gate, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authenticator that knows no audiences leaves them out, and then has judged another question."""

    async def careless(request: Request) -> bytes:
        return b'{"status":{"authenticated":true,"user":{"username":"%s"}}}' % UPLOADER.encode()

    monkeypatch.setattr(api, "send", careless)
    assert await answer(gate, "a.b.c-and-some-more") == 401


async def test_made_up_and_revoked_tokens_are_refused(gate: Gate, api: FakeApi) -> None:
    """Whatever they look like."""
    token = api.token(UPLOADER, AUDIENCE)
    api.revoke(token)
    assert await answer(gate, token) == 401
    assert await answer(gate, "x" * 40) == 401


@pytest.mark.looptime
async def test_one_token_costs_one_review_in_ten_seconds_for_yes_and_no(gate: Gate, api: FakeApi) -> None:
    """Five hundred requests a second of one token."""
    good, bad = api.token(UPLOADER, AUDIENCE), "no.such.token"
    for _ in range(10):
        answers = await asyncio.gather(*(answer(gate, token) for token in (good, bad) for _ in range(500)))
        assert answers == [200] * 500 + [401] * 500
        await asyncio.sleep(0.99)
    assert api.token_reviews == 2
    await asyncio.sleep(0.2)
    await answer(gate, good)
    assert api.token_reviews == 3


@pytest.mark.looptime
async def test_a_revoked_token_is_refused_ten_seconds_later_at_most(gate: Gate, api: FakeApi) -> None:
    """What our cache adds to the API server's own."""
    token = api.token(UPLOADER, AUDIENCE)
    assert await answer(gate, token) == 200
    api.revoke(token)
    await asyncio.sleep(10.01)
    assert await answer(gate, token) == 401


async def test_a_yes_never_outlives_the_token(api: FakeApi, metrics: CollectorMetrics) -> None:
    """Three seconds before its end it is believed for three seconds, not ten."""
    clock = StepClock()
    async with Gate(api, clock, metrics, 10.0) as gate:
        token = api.token(UPLOADER, AUDIENCE, seconds=3)
        assert await answer(gate, token) == 200
        clock.step(3.01)
        api.tokens[token]["exp"] += 1000  # even an API server whose clock is late
        assert await answer(gate, token) == 401
        assert api.token_reviews == 1


class StepClock:
    """Clocks that stand until they are stepped."""

    def __init__(self) -> None:
        self._base, self._passed = datetime.now(UTC), 0.0

    def now(self) -> datetime:
        return self._base + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    def step(self, seconds: float) -> None:
        self._passed += seconds


@pytest.mark.parametrize(
    "trouble",
    [
        TransportError("connection refused", sent=False),
        ServerError(503, "ServiceUnavailable", "etcd"),
        Forbidden(403, "Forbidden", "tokenreviews is forbidden"),
        UnexpectedAnswer("a login page"),
    ],
)
async def test_nobody_is_let_in_while_the_api_server_cannot_be_asked(
    gate: Gate, api: FakeApi, trouble: KubeError
) -> None:
    """503 whatever the reason, our own missing rights included; and no refusal is remembered from it."""
    token = api.token(UPLOADER, AUDIENCE)
    api.down = trouble
    assert await asyncio.gather(*(answer(gate, token) for _ in range(50))) == [503] * 50
    assert gate.trouble is not None
    api.down = None
    assert await answer(gate, token) == 200
    assert gate.trouble is None


@pytest.mark.looptime
async def test_an_outage_of_a_minute_lets_nobody_in_without_a_review(gate: Gate, api: FakeApi) -> None:
    """A verdict that was had before is believed for its ten seconds and not longer."""
    token = api.token(UPLOADER, AUDIENCE)
    assert await answer(gate, token) == 200
    api.down = TransportError("no route")
    got = []
    for _ in range(60):
        got.append(await answer(gate, token))
        await asyncio.sleep(1)
    assert got == [200] * 10 + [503] * 50


async def test_who_gives_up_waiting_does_not_end_the_review_for_others(
    gate: Gate, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One review, two waiters, one of them cancelled."""
    asked, go = asyncio.Event(), asyncio.Event()
    send = api.send

    async def slow(request: Request) -> bytes:
        asked.set()
        await go.wait()
        return bytes(await send(request))

    monkeypatch.setattr(api, "send", slow)
    token = api.token(UPLOADER, AUDIENCE)
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(answer(gate, token)) for _ in range(2))
        await asked.wait()
        first.cancel()
        go.set()
    assert first.cancelled()
    assert second.result() == 200
    assert api.token_reviews == 1


@pytest.mark.slow
async def test_a_flood_of_tokens_asks_few_at_a_time_and_is_forgotten(
    gate: Gate, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reviews at once and verdicts kept are both bounded."""
    at_once = most = 0
    send = api.send

    async def counted(request: Request) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return bytes(await send(request))

    monkeypatch.setattr(api, "send", counted)
    await asyncio.gather(*(answer(gate, f"made.up.{number}") for number in range(10_500)))
    assert most <= 32
    assert len(gate._verdicts) <= 10_000


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        (["Bearer abcdefgh"], "abcdefgh"),
        (["bearer  a.b-c_d~e+f/g=="], "a.b-c_d~e+f/g=="),
        ([], None),
        (["Bearer"], None),
        (["Bearer "], None),
        (["Bearer a b c d e f"], None),
        (["Basic dXNlcjpwYXNz"], None),
        (["Bearer abcdefgh", "Bearer abcdefgh"], None),
        (["Bearer abcdefgh, Bearer ijklmnop"], None),
        (["Bearer ábcdefgh"], None),
    ],
)
def test_only_one_plain_bearer_token_is_read(headers: list[str], token: str | None) -> None:
    """None: 401."""
    if token is not None:
        assert bearer(headers) == token
        return
    with pytest.raises(Refused) as refused:
        bearer(headers)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    "token", ["opaque-token", "a.b.c", "a.!!!.c", "a..c", "a.W10.c", "a.eyJleHAiOiJ4In0.c", "é.é.é"]
)
def test_a_token_that_tells_no_end_has_none_of_its_own(token: str) -> None:
    """Opaque tokens are the API server's business."""
    assert seconds_left(token, 0) == float("inf")


async def test_rights_are_the_api_servers_business(gate: Gate, api: FakeApi) -> None:
    """Each verb, resource and namespace by itself."""
    api.grant("ada", "shop", "list", "get")
    user = await gate.user(api.token("ada"))
    await gate.may(user, "list", "shop")

    refusals: list[tuple[str, str, str]] = [("list", "bank", ""), ("delete", "shop", ""), ("get", "shop", "content")]
    for verb, namespace, subresource in refusals:
        with pytest.raises(Refused) as refused:
            await gate.may(user, verb, namespace, subresource=subresource)
        assert refused.value.status == 403
    api.down = TransportError("gone")
    with pytest.raises(Refused) as refused:
        await gate.may(user, "list", "shop")
    assert refused.value.status == 503


async def test_no_refusal_repeats_a_token_or_the_api_servers_words(gate: Gate, api: FakeApi) -> None:
    """Errors go to whoever asked, which may be anybody."""
    api.down = Forbidden(403, "Forbidden", "secret words")
    token = api.token(UPLOADER, AUDIENCE)
    for attempt in (token, "no.such.token"):
        with pytest.raises(Refused) as refused:
            await gate.service(attempt, AUDIENCE, ALLOWED)
        assert attempt not in refused.value.message
        assert "secret" not in refused.value.message
