"""The calls, over real sockets: what each answers, and what it leaves on disk."""

import asyncio
import gzip
import json
import stat
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.collector.rig import CAPTURE, OPERATOR, READ, UPLOADER, Collector, FakeApi, Start, outage, overload, sha256
from toe_async.collector.captures import MOST_LEAVES, Manifest
from toe_async.collector.catalog.catalog import Catalog
from toe_async.collector.catalog.policy import Policies
from toe_async.collector.errors import StoreError, StoreFull
from toe_async.collector.settings import Limits
from toe_async.collector.storage import FileReader

BODY = gzip.compress(b"profile " * 4000)
LIST, ONE = f"{READ}/shop/artifacts", f"{READ}/shop/artifacts/abcdefghij-heap.pprof"
OTHER = "b" * 32


# -- register ---------------------------------------------------------------------------------------------------------


async def test_a_capture_is_registered_once_and_registering_again_gives_the_same(collector: Collector) -> None:
    """201, 200, and 409 for somebody else's capture under the same id."""
    status, record = await collector.register()
    assert (status, record["state"]) == (201, "Open")
    status, again = await collector.register()
    assert (status, again["directory"]) == (200, record["directory"])
    status, error = await collector.register(pod="another")
    assert (status, error["reason"]) == (409, "Taken")


@pytest.mark.parametrize(
    "changes",
    [{"namespace": "../up"}, {"pod": None}, {"leaves": []}, {"maxBytes": 0}, {"expires": "2020-01-01T00:00:00Z"},
     {"triggeredAt": "today"}, {"labels": {"a": 1}}, {"leaves": ["x"] * 33}],
)  # fmt: skip
async def test_a_bad_registration_is_400_and_leaves_nothing(collector: Collector, changes: dict[str, Any]) -> None:
    """With a sentence about what is wrong."""
    status, error = await collector.register(**changes)
    assert (status, error["reason"]) == (400, "BadRegistration")
    assert not list((collector.root / ".toe" / "captures").iterdir())


async def test_registering_again_tells_what_is_stored(registered: Collector) -> None:
    """So a restarted operator learns what its tool has brought, without a right to read artifacts."""
    assert (await registered.register(leaves=["cpu.pprof"]))[1]["artifacts"] == []
    await registered.put(BODY)
    _, record = await registered.register()
    assert record["artifacts"] == [
        {"leaf": "heap.pprof", "name": "abcdefghij-heap.pprof", "uri": ONE, "size": len(BODY), "sha256": sha256(BODY)}
    ]
    await registered.ask("DELETE", f"/v1/captures/{CAPTURE}", registered.operator)
    _, record = await registered.register()
    assert (record["state"], len(record["artifacts"])) == ("Cancelled", 1)


async def test_a_glob_lets_leaves_in_that_nobody_listed(collector: Collector) -> None:
    """Whole and in pieces; each is in the record from its first byte on, so that a completion and a cancel find it."""
    await collector.register(leaves=None, leafGlobs=["*.pcap", "tool.log"], details={"argv": "tcpdump -i any"})
    assert (await collector.put(BODY, leaf="tool.log"))[0] == 201
    piece = {"Content-Range": "bytes 0-2/*", "Content-Length": "3"}
    assert (await collector.put(BODY[:3], leaf="a.pcap", headers=piece))[0] == 202
    rest = {"Content-Range": f"bytes 3-{len(BODY) - 1}/{len(BODY)}"}
    assert (await collector.put(BODY[3:], leaf="a.pcap", headers=rest))[0] == 201
    assert (await collector.put(BODY[:3], leaf="b.pcap", headers=piece))[0] == 202
    status, error = await collector.put(BODY, leaf="passwd")
    assert (status, error["reason"]) == (403, "LeafNotRegistered")
    _, record = await collector.register(leaves=None, leafGlobs=["*.pcap", "tool.log"])
    assert [one["leaf"] for one in record["artifacts"]] == ["tool.log", "a.pcap"]
    assert collector.parts()
    assert (await complete(collector, completion(name="a.pcap")))[0] == 200
    assert not collector.parts()


async def test_leaves_by_glob_have_a_bound(collector: Collector) -> None:
    """Nothing is left of the one too many, and the others may be sent again."""
    await collector.register(leaves=None, leafGlobs=["*"])
    token = collector.uploader()
    for number in range(MOST_LEAVES):
        assert (await collector.put(b"x", leaf=f"{number}.out", token=token))[0] == 201
    status, error = await collector.put(b"x", leaf="more.out", token=token)
    assert (status, error["reason"]) == (403, "LeafNotRegistered")
    assert (await collector.put(b"x", leaf="7.out", token=token))[0] == 200
    assert not [path for path in collector.files() if "more" in path]


async def test_looking_at_an_upload_takes_no_leaf(collector: Collector) -> None:
    """A HEAD asks and changes nothing."""
    await collector.register(leaves=None, leafGlobs=["*"])
    token = collector.uploader()
    for number in range(MOST_LEAVES + 1):
        async with collector.call("HEAD", f"/v1/captures/{CAPTURE}/artifacts/{number}.out", token) as reply:
            assert reply.status == 200
    assert (await collector.put(b"x", leaf="now.out", token=token))[0] == 201


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b'{"id":' * 5000, b"x" * 70_000, b'{"id":"\xff"}', b'{"new":' + b"[" * 50_000],
)
async def test_a_registration_that_is_no_json_is_refused(collector: Collector, body: bytes) -> None:
    """Also deeply nested or too long."""
    status, error = await collector.ask("POST", "/v1/captures", collector.operator, data=body)
    assert status == (413 if len(body) > 64 << 10 else 400), error


async def test_who_may_register_and_cancel_is_the_operator_alone(collector: Collector) -> None:
    """Right audience, wrong account; right account, wrong audience; nobody."""
    tokens = {
        collector.api.token("system:serviceaccount:shop:default", "toe-collector"): 403,
        collector.api.token(UPLOADER, "toe-collector"): 403,
        collector.api.token(OPERATOR): 401,
        collector.uploader(): 401,
        "made.up.token": 401,
        None: 401,
    }
    for token, status in tokens.items():
        assert (await collector.ask("POST", "/v1/captures", token, data=b"{}"))[0] == status
        assert (await collector.ask("DELETE", f"/v1/captures/{CAPTURE}", token))[0] == status


# -- upload -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def registered(collector: Collector) -> Collector:
    assert (await collector.register())[0] == 201
    return collector


async def chunked(data: bytes, piece: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), piece):
        yield data[at : at + piece]


@pytest.mark.parametrize("how", ["plain", "expect", "chunked", "chunked expect", "digest"])
async def test_an_upload_is_stored_whole_with_its_manifest(registered: Collector, how: str) -> None:
    """The same file however it is sent; the receipt says what the manifest says."""
    data = chunked(BODY) if "chunked" in how else BODY
    headers = {"X-Toe-Sha256": sha256(BODY)} if how == "digest" else {}
    status, receipt = await registered.put(data, expect100="expect" in how, headers=headers)
    assert status == 201
    assert (receipt["size"], receipt["sha256"], receipt["uri"]) == (len(BODY), sha256(BODY), ONE)
    stored = registered.root / receipt["path"]
    assert stored.read_bytes() == BODY
    manifest = json.loads((stored.parent / f"{stored.name}.manifest.json").read_bytes())
    assert (manifest["sha256"], manifest["pod"], manifest["runUID"]) == (
        sha256(BODY),
        "cart-7d9f-x2x4z",
        "11111111-2222-3333-4444-555555555555",
    )
    assert receipt["path"] == (
        "shop/app.kubernetes.io%2Fname-cart,tier-web/hot-carts/2026/01/24/cart-7d9f-x2x4z-server-abcdefghij-heap.pprof"
    )
    assert not registered.parts()


async def test_files_are_private_and_so_are_directories(registered: Collector) -> None:
    """0600 and 0700, the collector's own included."""
    await registered.put(BODY)
    for path in registered.root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_the_same_content_again_is_200_and_another_is_409(registered: Collector) -> None:
    """Nothing is ever replaced."""
    assert (await registered.put(BODY))[0] == 201
    before = registered.files()
    assert (await registered.put(BODY))[0] == 200
    status, error = await registered.put(BODY + b"!")
    assert (status, error["reason"]) == (409, "Taken")
    assert registered.files() == before
    assert (await registered.ask("GET", ONE, registered.reader))[1]["artifact"]["sha256"] == sha256(BODY)


@pytest.mark.parametrize("kind", ["same", "different", "both"])
async def test_of_two_hundred_writers_to_one_key_one_wins(registered: Collector, kind: str) -> None:
    """The others are told 200 or 409 by what they sent; the file is the winner's, whole."""
    bodies = [bytes([number % {"same": 1, "both": 2, "different": 200}[kind]]) * 10_000 for number in range(200)]
    token = registered.uploader()
    answers = await asyncio.gather(*(registered.put(body, token=token) for body in bodies))
    codes = [status for status, _ in answers]
    assert codes.count(201) == 1
    winner = bodies[codes.index(201)]
    assert codes.count(200) == bodies.count(winner) - 1
    assert codes.count(409) == 200 - bodies.count(winner)
    (file,) = [name for name in registered.files() if not name.endswith(".manifest.json")]
    assert (registered.root / file).read_bytes() == winner
    assert not registered.parts()


@pytest.mark.parametrize(
    ("more", "status", "reason"),
    [
        ({"leaf": "mutex.pprof"}, 403, "LeafNotRegistered"),
        ({"leaf": "..%2Fheap.pprof"}, 403, "LeafNotRegistered"),
        ({"capture": OTHER}, 404, "NotRegistered"),
        ({"capture": "UPPER"}, 400, "BadCaptureID"),
        ({"headers": {"X-Toe-Sha256": "a" * 64}}, 400, "DigestMismatch"),
        ({"headers": {"X-Toe-Sha256": "nonsense"}}, 400, "BadDigest"),
        ({"headers": {"Content-Encoding": "gzip"}}, 400, "Encoded"),
        ({"headers": {"Content-Range": "bytes 0-9/10"}}, 400, "BadRange"),
        ({"data": b""}, 400, "Empty"),
        ({"data": b"x" * ((1 << 20) + 1)}, 413, "TooBig"),
        ({"headers": {"Expect": "a-miracle"}}, 417, "UnknownExpectation"),
    ],
)
async def test_a_refused_upload_says_why_and_leaves_nothing(
    registered: Collector, more: dict[str, Any], status: int, reason: str
) -> None:
    """One status has one meaning; every body is JSON."""
    got, error = await registered.put(**({"data": BODY} | more))
    assert (got, error["reason"]) == (status, reason)
    assert error["error"]
    assert not registered.files()
    assert not registered.parts()


async def test_an_empty_or_oversized_chunked_body_leaves_nothing(registered: Collector) -> None:
    """Where no length was declared the bytes themselves are counted."""
    assert (await registered.put(chunked(b"")))[0] == 400
    assert (await registered.put(chunked(b"x" * (1 << 20) + b"y", 100_000), expect100=True))[0] == 413
    assert not registered.files()
    assert not registered.parts()


async def test_a_gzip_bomb_is_stored_as_it_is(registered: Collector) -> None:
    """Nothing is decompressed on the way in."""
    bomb = gzip.compress(b"\0" * (64 << 20))
    status, receipt = await registered.put(bomb)
    assert (status, receipt["size"]) == (201, len(bomb))


async def test_tokens_of_other_captures_accounts_and_times_are_refused(registered: Collector) -> None:
    """And no byte is written for any of them."""
    await registered.register(id=OTHER)
    revoked = registered.uploader()
    registered.api.revoke(revoked)
    tokens = {
        registered.uploader(OTHER): 401,
        registered.operator: 401,
        registered.reader: 401,
        registered.api.token("system:serviceaccount:shop:default", f"toe-collector/{CAPTURE}"): 403,
        registered.api.token(OPERATOR, f"toe-collector/{CAPTURE}"): 403,
        registered.api.token(UPLOADER, "toe-collector"): 401,
        registered.api.token(UPLOADER, f"toe-collector/{CAPTURE}", seconds=-1): 401,
        revoked: 401,
    }
    for token, status in tokens.items():
        assert (await registered.put(BODY, token=token))[0] == status
    async with registered.call("PUT", f"/v1/captures/{CAPTURE}/artifacts/heap.pprof", data=BODY) as reply:
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert not registered.files()
    assert not registered.parts()


@pytest.mark.parametrize("trouble", [outage(), overload()])
async def test_an_outage_of_the_api_server_is_503(registered: Collector, trouble: Exception) -> None:
    """Never 401, which would make a client give up, and never a yes."""
    registered.api.down = trouble
    status, error = await registered.put(BODY)
    assert (status, error["reason"]) == (503, "ReviewUnavailable")
    assert (await registered.ask("GET", LIST, registered.reader))[0] == 503
    async with registered.call("GET", "/healthz") as reply:
        assert reply.status == 200
    async with registered.call("GET", "/readyz?verbose") as reply:
        assert reply.status == 200
        assert "tokenReview" in await reply.text()


async def test_space_is_asked_for_before_a_byte_is_read(start: Start) -> None:
    """507 with nothing visible left."""
    async with start(limits=Limits(min_free_bytes=1 << 60)) as collector:
        await collector.register()
        status, error = await collector.put(BODY)
        assert (status, error["reason"]) == (507, "StoreFull")
        assert not collector.files()


# -- complete and cancel ----------------------------------------------------------------------------------------------


def completion(size: int = len(BODY), digest: str = sha256(BODY), name: str = "heap.pprof") -> dict[str, Any]:
    return {"artifacts": [{"name": name, "size": size, "sha256": digest}]}


async def complete(collector: Collector, body: Any, token: str | None = None) -> tuple[int, Any]:
    return await collector.ask("POST", f"/v1/captures/{CAPTURE}/complete", token or collector.uploader(), json=body)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (completion(), 200),
        ({"artifacts": []}, 200),
        (completion(size=1), 409),
        (completion(digest="a" * 64), 409),
        (completion(name="cpu.pprof"), 409),
        (completion(name="../heap.pprof"), 409),
        ({"artifacts": [{"name": "heap.pprof"}]}, 400),
        ({}, 400),
    ],
)
async def test_a_capture_is_completed_with_what_is_stored(registered: Collector, body: Any, status: int) -> None:
    """A list that is not true is 409 and completes nothing."""
    await registered.put(BODY)
    assert (await complete(registered, body))[0] == status
    assert (await registered.register())[1]["state"] == ("Complete" if status == 200 else "Open")


async def test_a_completed_capture_takes_nothing_more_and_answers_repetitions(registered: Collector) -> None:
    """The reply may have been lost: the same completion and the same artifact are 200, anything else is not."""
    await registered.put(BODY)
    token = registered.uploader()
    assert (await complete(registered, completion(), token))[0] == 200
    assert (await complete(registered, completion(), token))[0] == 200
    assert (await complete(registered, {"artifacts": []}, token))[0] == 409
    assert (await registered.put(BODY, token=token, headers={"X-Toe-Sha256": sha256(BODY)}))[0] == 200
    assert (await registered.put(BODY, token=token, leaf="cpu.pprof"))[0] == 403
    status, record = await registered.register()
    assert (status, record["state"]) == (200, "Complete")
    assert [(one["leaf"], one["sha256"]) for one in record["artifacts"]] == [("heap.pprof", sha256(BODY))]


async def test_cancelling_refuses_the_token_at_once_and_removes_what_is_half_there(registered: Collector) -> None:
    """Also for an upload that is under way; what was stored before stays."""
    await registered.put(BODY)
    token, begun = registered.uploader(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 300_000
        begun.set()
        await asyncio.Event().wait()

    async def upload() -> tuple[int, Any]:
        return await registered.put(endless(), leaf="cpu.pprof", token=token, expect100=True)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(upload())
        await begun.wait()
        async with asyncio.timeout(5):
            while not registered.parts():
                await asyncio.sleep(0.01)
        status, record = await registered.ask("DELETE", f"/v1/captures/{CAPTURE}", registered.operator)
        assert (status, record["state"]) == (200, "Cancelled")
        assert not registered.parts()
        status, error = await task
    assert (status, error["reason"]) == (403, "Cancelled")
    assert (await registered.put(BODY, token=token))[0] == 403
    assert (await complete(registered, completion(), token))[0] == 403
    assert (await registered.ask("DELETE", f"/v1/captures/{CAPTURE}", registered.operator))[0] == 200
    assert (await registered.ask("GET", ONE, registered.reader))[0] == 200
    assert (await registered.ask("DELETE", f"/v1/captures/{OTHER}", registered.operator))[0] == 404


async def test_records_and_artifacts_outlive_the_collector(start: Start) -> None:
    """A restarted one knows what is registered, cancelled and stored."""
    async with start() as first:
        await first.register()
        await first.register(id=OTHER)
        assert (await first.put(BODY))[0] == 201
        await first.ask("DELETE", f"/v1/captures/{OTHER}", first.operator)
    async with start() as second:
        assert (await second.put(BODY))[0] == 200
        assert (await second.put(BODY, leaf="cpu.pprof"))[0] == 201
        assert (await second.put(BODY, capture=OTHER))[0] == 403
        async with asyncio.timeout(5):
            while (got := await second.ask("GET", LIST, second.reader))[0] == 503:
                await asyncio.sleep(0.01)
        assert [item["metadata"]["name"] for item in got[1]["items"]] == [
            "abcdefghij-cpu.pprof",
            "abcdefghij-heap.pprof",
        ]
        async with second.call("GET", "/metrics") as reply:
            assert "toe_collector_captures_open 1.0" in await reply.text()


# -- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/ui.html"), ("POST", "/healthz"), ("GET", "/v1/captures"), ("GET", "/../etc/passwd"), ("GET", "/api")],
)
async def test_what_is_no_call_is_404_in_json(collector: Collector, method: str, path: str) -> None:
    """Without a token too: the list of calls is no secret."""
    status, error = await collector.ask(method, path, data=b"x" * 1000)
    assert (status, error["reason"]) == (404, "NotFound")


async def test_probes_and_metrics_have_an_address_of_their_own(start: Start) -> None:
    """In plain HTTP, and nothing else answers there."""
    async with start(metrics_address="127.0.0.1:0") as collector:
        base = f"http://127.0.0.1:{collector.served.metrics_port}"
        for path in ("/healthz", "/readyz", "/metrics"):
            async with collector.http.get(base + path) as reply:
                assert reply.status == 200, await reply.text()
        async with collector.http.get(base + LIST) as reply:
            assert reply.status == 404


async def test_a_store_that_cannot_be_written_is_not_ready_but_alive(start: Start) -> None:
    """Its own folder is gone, as after an unmount."""
    async with start() as collector:
        collector.root.joinpath(".toe").rename(collector.root / "elsewhere")
        collector.root.joinpath(".toe").touch()  # else the first tidying, still under way, may make it anew
        async with collector.call("GET", "/readyz?verbose") as reply:
            assert reply.status == 503
            assert "[-]store failed" in await reply.text()
        for path, status in {"/healthz": 200, "/readyz/store": 503, "/readyz/none": 404}.items():
            async with collector.call("GET", path) as reply:
                assert reply.status == status
        status, error = await collector.register()
        assert (status, error["reason"]) == (500, "StoreFailed")
        assert str(collector.root) not in json.dumps(error)


async def test_a_task_that_ends_by_an_error_ends_the_collector_s_life(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates would not be renewed any more, and nobody would see it until they expire."""
    ended = asyncio.Event()

    def broken(self: Policies) -> None:
        raise ZeroDivisionError("secret")

    async with start(limits=Limits(reload_seconds=0.01)) as collector:
        async with collector.call("GET", "/healthz") as reply:
            assert reply.status == 200
        monkeypatch.setattr(Policies, "reload", broken)
        asyncio.get_running_loop().call_later(5, ended.set)
        status, text = 200, ""
        while status == 200 and not ended.is_set():
            async with collector.call("GET", "/healthz") as reply:
                status, text = reply.status, await reply.text()
        assert (status, "reload files ended by ZeroDivisionError" in text, "secret" in text) == (500, True, False)


async def test_an_upload_whose_end_was_not_written_down_is_listed_when_it_comes_again(
    registered: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index was full: the artifact is stored, its sender heard 507, and sends it once more."""
    real = Catalog.add

    async def full(self: Catalog, manifests: Iterable[Manifest]) -> None:
        raise StoreFull("the index answered SQLITE_FULL")

    monkeypatch.setattr(Catalog, "add", full)
    assert (await registered.put(BODY))[0] == 507
    monkeypatch.setattr(Catalog, "add", real)
    assert (await registered.put(BODY, headers={"X-Toe-Sha256": sha256(BODY)}))[0] == 200
    status, page = await registered.ask("GET", LIST, registered.reader)
    assert (status, len(page["items"])) == (200, 1)


@pytest.mark.parametrize("failure", [StoreError("EIO"), ZeroDivisionError("a fault of ours")])
async def test_an_answer_that_began_is_cut_off_and_never_gone_on_with_by_another(
    registered: Collector, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Bytes of an error must not pass for bytes of an artifact."""
    body = bytes(1 << 20)
    assert (await registered.put(body))[0] == 201
    real = FileReader.read

    async def breaks(self: FileReader, offset: int, size: int) -> bytes:
        if offset:
            raise failure
        return await real(self, offset, size)

    monkeypatch.setattr(FileReader, "read", breaks)
    host, port = registered.served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {ONE}/content HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {registered.reader}\r\n\r\n".encode())
    with capture_logs():
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            rest = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
    assert b"200 OK" in head
    assert len(rest) < len(body)
    assert not rest.strip(b"\0")


async def test_stopping_lets_an_upload_finish_and_takes_no_new_one(start: Start, api: FakeApi) -> None:
    """A drain is bounded, and what is under way is stored."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield BODY[:10]
        begun.set()
        await go_on.wait()
        yield BODY[10:]

    running = start()
    collector = await running.__aenter__()
    await collector.register()
    async with asyncio.TaskGroup() as group:
        upload = group.create_task(collector.put(slow(), expect100=True))
        await begun.wait()
        while not collector.parts():
            await asyncio.sleep(0.01)
        stopping = group.create_task(running.__aexit__(None, None, None))
        while await _accepts(collector):
            await asyncio.sleep(0)
        go_on.set()
        assert (await upload)[0] == 201
        await stopping


async def test_stopping_does_not_wait_for_ever(start: Start) -> None:
    """An upload that does not end is ended; its part is removed."""
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        begun.set()
        await asyncio.Event().wait()

    running = start(limits=Limits(drain_seconds=0.05))
    collector = await running.__aenter__()
    await collector.register()
    async with asyncio.TaskGroup() as group:
        upload = group.create_task(asyncio.wait_for(_outcome(collector, endless()), 10))
        await begun.wait()
        while not collector.parts():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await running.__aexit__(None, None, None)
        assert await upload == "not stored"
    assert not collector.parts()
    assert not collector.files()


async def _accepts(collector: Collector) -> bool:
    try:
        _, writer = await asyncio.open_connection(collector.served.host, collector.served.port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def _outcome(collector: Collector, body: AsyncIterator[bytes]) -> str:
    try:
        status, _ = await collector.put(body, expect100=True)
    except aiohttp.ClientError:
        return "not stored"
    return "stored" if status < 300 else "not stored"


async def test_records_are_forgotten_an_hour_after_their_captures_end(start: Start) -> None:
    """By then no token lives; the artifact and its manifest stay."""
    async with start() as first:
        await first.register()
        await first.put(BODY)
        (file,) = (first.root / ".toe" / "captures").iterdir()
    record = json.loads(file.read_bytes())
    record["registration"]["expires"] = "2026-01-24T21:44:08Z"
    file.write_text(json.dumps(record))
    async with start() as second:
        async with asyncio.timeout(5):
            while file.exists():
                await asyncio.sleep(0.01)
        assert (await second.ask("GET", ONE, second.reader))[0] == 200
        assert (await second.put(BODY))[0] == 404


async def test_a_record_that_cannot_be_read_is_an_error_of_the_store_and_stays(start: Start) -> None:
    """Not a crash, not a silent second registration."""
    async with start() as collector:
        await collector.register()
        (file,) = (collector.root / ".toe" / "captures").iterdir()
        file.write_bytes(b"{broken")
        assert (await collector.register())[0] == 500
        assert (await collector.put(BODY))[0] == 500
        assert file.read_bytes() == b"{broken"
    async with start() as again:
        assert (await again.register())[0] == 500


async def test_an_upload_that_is_overtaken_by_the_completion_is_not_stored(registered: Collector) -> None:
    """The list that completed the capture stays true."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield BODY
        begun.set()
        await go_on.wait()
        yield BODY

    async with asyncio.TaskGroup() as group:
        upload = group.create_task(registered.put(slow(), expect100=True))
        await begun.wait()
        assert (await complete(registered, {"artifacts": []}))[0] == 200
        go_on.set()
    status, error = upload.result()
    assert (status, error["reason"]) == (403, "Complete")
    assert not registered.files()
    assert not registered.parts()
