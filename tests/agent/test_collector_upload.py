"""A tool's output to a real collector: through broken connections, refusals and absences, whole or not at all."""

import asyncio
import os
import random
import ssl
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from faultproxy import Cut, How, faulty

from tests.agent.uploading import CAPTURE, MIB, Need, Rig, orders, rigged, run, state_folder
from tests.sinks.fake_s3 import serving
from tests.sinks.test_collector import FakeApi, collector
from toe_async.agent import httpclient, upload
from toe_async.agent.outputs import Outputs
from toe_async.agent.supervisor import CollectingError
from toe_async.lib.clock import SystemClock
from toe_async.sandbox.certificates import Authority, server_context

PIECE = 256 << 10
CUTS = int(os.environ.get("TOE_UPLOAD_CUTS", "25"))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(httpclient, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(httpclient, "CONNECT_SECONDS", 1.0)


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def test_all_that_a_tool_left_is_stored_and_the_capture_closed(tmp_path: Path) -> None:
    big = random_bytes(2 * MIB + 12_345)
    files = {"out/dump.pcap": big, "out/sub/notes é.txt": b"n", "stdout": b"said", "log": b"warned", "out/empty": b""}
    async with rigged(tmp_path) as rig:
        folder = state_folder(tmp_path, files)
        leaves = await rig.upload(folder)
        assert sorted(rig.stored().values()) == sorted([big, b"n", b"said", b"warned"])
        assert {leaf.state for leaf in leaves} == {"stored"}
        assert all(rig.stored()[leaf.name] and leaf.uri.startswith("/apis/artifacts.toe.run/") for leaf in leaves)
        assert {leaf.name for leaf in leaves} >= {"dump.pcap", "tcpdump.out", "tcpdump.log"}
        status, record = await rig.register()
        assert (status, record["state"]) == (200, "Complete")
        assert {(one["leaf"], one["uri"], one["sha256"]) for one in record["artifacts"]} == {
            (leaf.name, leaf.uri, leaf.sha256) for leaf in leaves
        }
        assert [path for path in folder.rglob("*") if path.is_file() and path.name not in {"empty", "log"}] == []


@pytest.mark.parametrize("how", list(How), ids=lambda how: how.value)
@pytest.mark.parametrize("at", [100_000, PIECE + 5_000, 2 * MIB], ids=["first piece", "a later one", "near the end"])
async def test_what_came_before_a_cut_is_not_sent_again(tmp_path: Path, how: How, at: int) -> None:
    body = random_bytes(2 * MIB + 12_345)
    async with rigged(tmp_path, Cut(at, how)) as rig:
        await rig.upload(state_folder(tmp_path, {"out/a.pcap": body}))
        assert rig.proxy.happened == 1
        assert rig.stored() == {"a.pcap": body}
        # What was on the wire or in a buffer when it broke is lost: a piece at the very most.
        assert rig.proxy.sent <= len(body) + PIECE + 64 * 1024


async def test_cuts_at_random_places_cost_a_tenth_at_most(tmp_path: Path) -> None:
    """TOE_UPLOAD_CUTS=500 is the long form."""
    seed = random.Random(20261121)
    size = 64 * MIB if CUTS > 100 else 16 * MIB
    body = seed.randbytes(size)
    cuts = [Cut(seed.randrange(size), seed.choice([How.CLOSE, How.RESET])) for _ in range(CUTS)]
    async with rigged(tmp_path, *cuts) as rig:
        began = time.monotonic()
        leaves = await rig.upload(state_folder(tmp_path, {"out/a.pcap": body}), seconds=50)
        print(f"{rig.proxy.happened} cuts, {rig.proxy.sent / size:.4f} x the size, {time.monotonic() - began:.1f} s")
        assert rig.stored() == {"a.pcap": body}
        assert leaves[0].sha256 == sha256(body).hexdigest()
        assert rig.proxy.happened == CUTS
        assert rig.proxy.sent <= 1.1 * size


async def test_without_a_good_token_one_is_asked_for_and_waited_for(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        outputs, need = Outputs(), Need()
        folder = state_folder(tmp_path, {"stdout": b"said"})
        told = orders(endpoint=rig.front)
        storing = asyncio.get_running_loop().create_task(asyncio.to_thread(run, outputs, told, folder, need=need))
        await asyncio.to_thread(need.first.wait)
        assert rig.proxy.sent == 0
        need.first.clear()
        outputs.token("a-token-of-somebody-else")
        await asyncio.to_thread(need.first.wait)
        assert rig.stored() == {}
        outputs.token(rig.token())
        (leaf,) = await storing
        assert (leaf.state, rig.stored()) == ("stored", {"tcpdump.out": b"said"})
        assert need.asked == 2


async def test_a_token_that_ends_in_the_middle_is_replaced_and_nothing_sent_twice(tmp_path: Path) -> None:
    body = random_bytes(2 * MIB)
    async with rigged(tmp_path, Cut(MIB, How.STALL)) as rig:
        outputs, need = Outputs(), Need()
        outputs.token(rig.token())
        folder = state_folder(tmp_path, {"out/a": body})
        told = orders(endpoint=rig.front)
        storing = asyncio.get_running_loop().create_task(asyncio.to_thread(run, outputs, told, folder, need=need))
        await rig.proxy.cut.wait()
        outputs.token("an-ended-token")
        await asyncio.to_thread(need.first.wait)
        outputs.token(rig.token())
        await storing
        assert rig.stored() == {"a": body}
        assert rig.proxy.sent <= len(body) + PIECE + 64 * 1024


async def test_what_the_collector_finds_too_large_is_lost_before_a_byte_of_it(tmp_path: Path) -> None:
    async with rigged(tmp_path, register=False) as rig:
        await rig.register(maxBytes=MIB)
        folder = state_folder(tmp_path, {"out/large": random_bytes(2 * MIB), "out/small": b"s"})
        with pytest.raises(CollectingError, match="413 TooBig") as error:
            await rig.upload(folder)
        assert error.value.reason == "TooLarge"
        assert {leaf.name: leaf.state for leaf in error.value.leaves} == {"large": "lost", "small": "stored"}
        assert rig.stored() == {"small": b"s"}
        assert rig.proxy.sent < 16_384


async def test_a_cancelled_capture_is_given_up_at_once(tmp_path: Path) -> None:
    async with rigged(tmp_path, Cut(MIB, How.STALL)) as rig:
        folder = state_folder(tmp_path, {"out/a": random_bytes(2 * MIB)})
        storing = asyncio.get_running_loop().create_task(rig.upload(folder))
        await rig.proxy.cut.wait()
        await rig.cancel()
        with pytest.raises(CollectingError, match="403 Cancelled") as error:
            await storing
        assert error.value.reason == "Cancelled"
        assert rig.stored() == {}


async def test_a_leaf_of_another_content_is_never_replaced(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        headers = {"Authorization": f"Bearer {rig.token()}"}
        path = f"{rig.url}/v1/captures/{CAPTURE}/artifacts/a"
        async with aiohttp.ClientSession() as http, http.put(path, data=b"first", headers=headers) as answer:
            assert answer.status == 201
        with pytest.raises(CollectingError, match="409 Taken") as error:
            await rig.upload(state_folder(tmp_path, {"out/a": b"second"}))
        assert error.value.reason == "Conflicted"
        assert rig.stored() == {"a": b"first"}


async def test_what_is_stored_already_is_told_again_without_its_bytes(tmp_path: Path) -> None:
    """The supervisor of a restarted container may find that its answer was lost."""
    body = random_bytes(MIB)
    async with rigged(tmp_path, Cut(MIB + 500, How.MUTE)) as rig:
        (leaf,) = await rig.upload(state_folder(tmp_path, {"out/a": body}))
        assert leaf.uri
        assert rig.proxy.happened == 1
        assert rig.proxy.sent <= len(body) + PIECE


Handler = Callable[[web.Request], web.Response]


class FakeCollector:
    """Says what it is told to, for refusals that the real one is hard to bring to."""

    def __init__(self, answer: Handler, *, head: Handler | None = None) -> None:
        self._answer, self._head = answer, head
        self.body_bytes = 0
        self.requests: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request.method)
        if request.method == "HEAD":
            offset = {"Upload-Offset": "0", "Upload-Complete": "?0"}
            return self._head(request) if self._head is not None else web.Response(headers=offset)
        self.body_bytes += len(await request.read())
        return self._answer(request)

    def app(self) -> web.Application:
        made = web.Application(client_max_size=1 << 30)
        made.router.add_route("*", "/{tail:.*}", self.handle)
        return made


async def fails(tmp_path: Path, fake: FakeCollector, seconds: float) -> CollectingError:
    async with serving(fake.app()) as url:
        outputs = Outputs()
        outputs.token("a-token")
        folder = state_folder(tmp_path, {"out/a": b"content"})
        with pytest.raises(CollectingError) as error:
            await asyncio.to_thread(run, outputs, orders(endpoint=url), folder, seconds=seconds)
        assert [leaf.state for leaf in error.value.leaves] == ["lost"]
        return error.value


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (lambda _: web.Response(status=500), "UploadFailed", "answers 500"),
        (lambda _: web.Response(status=507, headers={"Retry-After": "60"}), "StoreFull", "is full"),
        (lambda _: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "UploadFailed", "302"),
        (lambda _: web.Response(status=401), "UploadFailed", "401"),
        (lambda _: web.json_response({"uri": "/x", "size": 7, "sha256": "0" * 64}), "UploadFailed", "other bytes"),
        (lambda _: web.json_response({"size": 7}), "UploadFailed", "receipt cannot be read"),
        (lambda _: web.Response(body=b"x" * 70_000), "UploadFailed", "more than 65536 bytes"),
        (lambda _: web.json_response({"reason": "a\x1b[31m <b>"}, status=400), "UploadFailed", "answers 400"),
        (lambda _: web.Response(status=202, headers={"Upload-Offset": "99"}), "UploadFailed", "offset cannot be read"),
        (lambda _: web.Response(status=202, headers={"Upload-Offset": "0"}), "UploadFailed", "no more of the leaf"),
    ],
    ids=["500", "507", "redirect", "401", "other digest", "no receipt", "long", "escape", "bad offset", "stuck"],
)
async def test_nothing_counts_as_stored_without_a_receipt_for_it(
    tmp_path: Path, answer: Handler, reason: str, words: str
) -> None:
    began = time.monotonic()
    fault = await fails(tmp_path, FakeCollector(answer), seconds=0.7)
    assert fault.reason == reason
    assert words in str(fault)
    assert str(fault).isprintable()
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("status", [416, 202])
async def test_a_collector_that_goes_to_and_fro_is_not_pressed(tmp_path: Path, status: int) -> None:
    """Each turn without progress costs a second at least."""
    offsets = iter([4, 2] * 1000)

    def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Upload-Offset": str(next(offsets))})

    def head(_: web.Request) -> web.Response:
        return web.Response(headers={"Upload-Offset": str(next(offsets)), "Upload-Complete": "?0"})

    fake = FakeCollector(answer, head=head)
    await fails(tmp_path, fake, seconds=0.7)
    assert len(fake.requests) < 8


async def test_an_outage_of_the_store_is_outlasted(tmp_path: Path) -> None:
    answers = iter([503])

    def answer(request: web.Request) -> web.Response:
        status = next(answers, 0)
        if status:
            return web.Response(status=status)
        digest = request.headers.get("X-Toe-Sha256", "")
        return web.json_response({"uri": "/u", "size": 7, "sha256": digest})

    fake = FakeCollector(answer)
    async with serving(fake.app()) as url:
        outputs = Outputs()
        outputs.token("a-token")
        folder = state_folder(tmp_path, {"out/a": b"content"})
        (leaf,) = await asyncio.to_thread(run, outputs, orders(endpoint=url), folder, seconds=15)
        assert leaf.state == "stored"
        assert fake.body_bytes < 200


async def test_a_leaf_that_shrinks_while_it_is_sent_is_lost_and_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpclient, "_CHUNK", 16 << 10)
    async with rigged(tmp_path, Cut(MIB, How.RESET)) as rig:
        folder = state_folder(tmp_path, {"out/a": random_bytes(2 * MIB)})
        storing = asyncio.get_running_loop().create_task(rig.upload(folder))
        await rig.proxy.cut.wait()
        os.truncate(folder / "leaves" / "a", MIB // 2)
        with pytest.raises(CollectingError, match="was changed") as error:
            await storing
        assert error.value.reason == "SpoolDamaged"
        assert rig.stored() == {}


async def test_a_collector_that_vanishes_before_it_is_told_that_this_is_all_keeps_what_it_has(tmp_path: Path) -> None:
    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.Response(status=503)
        return web.json_response({"uri": "/u", "size": 7, "sha256": request.headers["X-Toe-Sha256"]})

    async with serving(FakeCollector(answer).app()) as url:
        outputs = Outputs()
        outputs.token("a-token")
        folder = state_folder(tmp_path, {"out/a": b"content"})
        (leaf,) = await asyncio.to_thread(run, outputs, orders(endpoint=url), folder, seconds=0.5)
        assert leaf.state == "stored"
        assert "could not be told" in outputs.note


async def test_an_upload_over_tls_to_the_server_of_our_ca(tmp_path: Path) -> None:
    authority = Authority("ours", SystemClock().now())
    pair = authority.server("collector", ["127.0.0.1"])
    (tmp_path / "tls.crt").write_bytes(pair.certificate)
    (tmp_path / "tls.key").write_bytes(pair.key)
    api = FakeApi()
    certificate = (tmp_path / "tls.crt", tmp_path / "tls.key")
    async with collector(api, tmp_path / "store", certificate=certificate) as url, faulty(0, ()) as (_, proxy):
        trusting = await asyncio.to_thread(ssl.create_default_context, cadata=authority.certificate.decode())
        rig = Rig(api, tmp_path / "store", url, url, proxy)
        assert (await rig.register(tls=trusting))[0] == 201
        body = random_bytes(MIB)
        told = orders(endpoint=url, ca=authority.certificate.decode())
        (leaf,) = await rig.upload(state_folder(tmp_path, {"out/a": body}), told)
        assert (leaf.state, rig.stored()) == ("stored", {"a": body})


@pytest.mark.parametrize("trusted", ["another CA", "no CA"])
async def test_a_server_that_the_ca_did_not_certify_gets_no_token_and_no_byte(tmp_path: Path, trusted: str) -> None:
    ours, other = (Authority(name, SystemClock().now()) for name in ("ours", "other"))
    context = await asyncio.to_thread(server_context, other.server("collector", ["127.0.0.1"]), other.certificate)
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        outputs = Outputs()
        outputs.token("a-token")
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        told = orders(endpoint=url, ca=ours.certificate.decode() if trusted == "another CA" else "")
        folder = state_folder(tmp_path, {"out/a": b"content"})
        with pytest.raises(CollectingError, match=r"certificate of 127\.0\.0\.1:"):
            await asyncio.to_thread(run, outputs, told, folder, seconds=0.5)
        assert seen == []
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1 cannot be reached (ConnectionRefusedError)"),
        ("http://collector.invalid:8080", "the name collector.invalid of collector.invalid:8080 cannot be resolved"),
        ("http://192.0.2.1:8443", "192.0.2.1:8443 cannot be reached"),
    ],
)
def test_a_collector_that_cannot_be_reached_is_named_with_the_likely_cause(
    tmp_path: Path, endpoint: str, words: str
) -> None:
    outputs = Outputs()
    outputs.token("a-token")
    folder = state_folder(tmp_path, {"out/a": b"content"})
    with pytest.raises(CollectingError) as error:
        run(outputs, orders(endpoint=endpoint), folder, seconds=1.6)
    assert words in str(error.value)
    assert "NetworkPolicy or a mesh" in str(error.value)
    assert error.value.reason == "UploadFailed"


async def test_a_cancel_returns_within_a_second_though_the_collector_takes_nothing(tmp_path: Path) -> None:
    async with rigged(tmp_path, Cut(100_000, How.STALL)) as rig:
        outputs = Outputs()
        outputs.token(rig.token())
        folder = state_folder(tmp_path, {"out/a": random_bytes(MIB)})
        told = orders(endpoint=rig.front)
        storing = asyncio.get_running_loop().create_task(asyncio.to_thread(run, outputs, told, folder))
        await rig.proxy.cut.wait()
        began = time.monotonic()
        outputs.cancel()
        with pytest.raises(CollectingError, match="cancelled") as error:
            await storing
        assert time.monotonic() - began < 1
        assert error.value.reason == "Cancelled"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"endpoint": "ftp://x"}, "http or https"),
        ({"endpoint": "https://x", "ca": "no certificate"}, "holds no certificate"),
        ({"endpoint": "http://x", "outputs": ("[a",)}, "never closes"),
        ({"mode": "elsewhere"}, "mode"),
        ({"mode": "s3"}, "fetch key"),
        ({"mode": "pvc", "pvc_path": "/toe/pvc/../etc"}, "path in the claim"),
    ],
)
def test_orders_that_cannot_be_followed_are_refused_at_the_start(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(CollectingError, match=words) as error:
        Outputs().start(orders(**changes), str(state_folder(tmp_path, {})))
    assert error.value.reason == "InvalidSpec"
    assert CAPTURE not in str(error.value)
