"""The collector client against the real collector, with an API server that makes and reviews tokens."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from tests.sinks.fake_s3 import serving
from toe_async.apis.captures import CaptureRecord, CollectorRef, Receipt
from toe_async.apis.reasons import Reason
from toe_async.collector.app import serve
from toe_async.collector.settings import CollectorSettings
from toe_async.kube.errors import AlreadyExists, Forbidden, NotFound, ServerError
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.sandbox.certificates import Authority
from toe_async.sinks import pieces, tickets
from toe_async.sinks.collector import CollectorAccess, CollectorSink
from toe_async.sinks.errors import SinkRefused, SinkUnavailable
from toe_async.sinks.spool import SpoolEntry
from toe_async.telemetry.metrics import CollectorMetrics

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]

OPERATOR = "system:serviceaccount:toe-system:toe-operator"
UPLOADER = "system:serviceaccount:toe-agents:toe-uploader"
OWN_TOKEN = "own-token-of-the-operator"
SECRETS = "/api/v1/namespaces/toe-agents/secrets"


class FakeApi:
    """Secrets, tokens that are bound to them, and reviews, as far as an upload needs them."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, tuple[str, str]] = {}  # token -> audience, Secret
        self.asked: list[str] = []
        self.most_secrets = 0
        self.errors: dict[str, Exception] = {}
        self.bodies: list[dict[str, Any]] = []

    async def send(self, request: Request) -> bytes:
        what = f"{request.method} {request.path}"
        if not request.path.endswith("tokenreviews"):
            self.asked.append(what)
        await asyncio.sleep(0)
        if (error := self.errors.get(request.method + " " + request.path.rpartition("/")[2])) is not None:
            raise error
        body = json.loads(request.body) if request.body else {}
        if request.path.endswith("tokenreviews"):
            return json.dumps(self.review(body)).encode()
        self.bodies.append(body)
        if what == f"POST {SECRETS}":
            name = body["metadata"]["name"]
            if name in self.secrets:
                raise AlreadyExists(409, "AlreadyExists", name)
            self.secrets[name] = body
            self.most_secrets = max(self.most_secrets, len(self.secrets))
            return json.dumps(body).encode()
        if request.method == "DELETE":
            name = request.path.rpartition("/")[2]
            if self.secrets.pop(name, None) is None:
                raise NotFound(404, "NotFound", name)
            return b"{}"
        assert what == "POST /api/v1/namespaces/toe-agents/serviceaccounts/toe-uploader/token"
        spec = body["spec"]
        token = f"upload-token-{len(self.tokens)}"
        self.tokens[token] = (spec["audiences"][0], spec["boundObjectRef"]["name"])
        return json.dumps(body | {"status": {"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"}}).encode()

    def review(self, body: dict[str, Any]) -> dict[str, Any]:
        token, audiences = body["spec"]["token"], body["spec"]["audiences"]
        if token == OWN_TOKEN and audiences == ["toe-collector"]:
            return body | {"status": {"authenticated": True, "user": {"username": OPERATOR}, "audiences": audiences}}
        audience, secret = self.tokens.get(token, ("", ""))
        good = audiences == [audience] and secret in self.secrets
        user = {"username": UPLOADER}
        return body | {"status": {"authenticated": good, "user": user, "audiences": audiences if good else []}}


class Rig:
    """A collector, its client, and what both talk to."""

    def __init__(self, api: FakeApi, root: Path, sink: CollectorSink, url: str, token_file: Path) -> None:
        self.api, self.root, self.sink, self.url, self.token_file = api, root, sink, url, token_file

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.pprof") if path.is_file())


@pytest.fixture
def api() -> FakeApi:
    """The API server of both sides."""
    return FakeApi()


def access(url: str, tmp_path: Path, ca: Path | None = None) -> CollectorAccess:
    """How the operator is configured."""
    token_file = tmp_path / "token"
    if not token_file.exists():
        token_file.write_text(OWN_TOKEN + "\n")
    return CollectorAccess(
        url=url,
        token_file=token_file,
        ca=ca,
        agents_namespace="toe-agents",
        uploader_account="toe-uploader",
        max_bytes=64 << 20,
    )


@asynccontextmanager
async def collector(
    api: FakeApi, root: Path, *, listen: str = "127.0.0.1:0", certificate: tuple[Path, Path] | None = None
) -> AsyncIterator[str]:
    """Serve the real collector."""
    settings = CollectorSettings(
        root=root,
        operator_users=frozenset({OPERATOR}),
        uploader_users=frozenset({UPLOADER}),
        listen=listen,
        insecure_http=certificate is None,
        tls_cert=certificate[0] if certificate else None,
        tls_key=certificate[1] if certificate else None,
    )
    async with serve(settings, api, SystemClock(), CollectorMetrics(CollectorRegistry())) as served:
        yield served.url


@pytest.fixture
async def rig(api: FakeApi, tmp_path: Path) -> AsyncIterator[Rig]:
    """Everything running, on plain HTTP."""
    root = tmp_path / "store"
    async with collector(api, root) as url, CollectorSink(api, access(url, tmp_path), SystemClock()) as sink:
        yield Rig(api, root, sink, url, tmp_path / "token")


@pytest.fixture
async def entry(spooled: MakeEntry, make_record: MakeRecord) -> SpoolEntry:
    """An artifact for the collector, larger than a chunk."""
    return await spooled(make_record(sink=CollectorRef(endpoint="")), bytes(range(256)) * 4000)


async def test_an_artifact_is_stored_with_one_token_and_nothing_stays_behind(rig: Rig, entry: SpoolEntry) -> None:
    """Register, Secret, token, upload, Secret gone; the receipt is the collector's."""
    receipt = await rig.sink.store(entry)
    assert isinstance(receipt, Receipt)
    assert (receipt.size, receipt.sha256) == (entry.artifact.size, entry.artifact.sha256)
    [path] = rig.files()
    assert path.read_bytes() == entry.path.read_bytes()
    assert path.name == f"web-0-app-{entry.record.id[:10]}-heap.pprof"
    name = f"toe-capture-{entry.record.id}"
    assert rig.api.asked == [
        f"POST {SECRETS}",
        "POST /api/v1/namespaces/toe-agents/serviceaccounts/toe-uploader/token",
        f"DELETE {SECRETS}/{name}",
    ]
    secret, request, _ = rig.api.bodies
    assert secret["type"] == "Opaque"
    assert "data" not in secret
    assert request["spec"] == {
        "audiences": [f"toe-collector/{entry.record.id}"],
        "expirationSeconds": 600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": ""},
    }


async def test_doing_it_again_gives_the_same_receipt(rig: Rig, entry: SpoolEntry) -> None:
    """A restart between the upload and the report; also when the capture was completed meanwhile."""
    first = await rig.sink.store(entry)
    assert await rig.sink.store(entry) == first
    await rig.sink.complete(entry.record, (entry.artifact,))
    assert await rig.sink.store(entry) == first
    await rig.sink.complete(entry.record, (entry.artifact,))
    assert len(rig.files()) == 1
    assert rig.api.secrets == {}


async def test_a_secret_that_a_killed_process_left_is_used(rig: Rig, entry: SpoolEntry) -> None:
    """409 at its creation is no error, and it is deleted in the end."""
    rig.api.secrets[f"toe-capture-{entry.record.id}"] = {}
    await rig.sink.store(entry)
    assert rig.api.secrets == {}


async def test_artifacts_of_a_capture_that_overlap_share_a_ticket(
    rig: Rig, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """Nobody's Secret is deleted while another one's upload needs it."""
    record = make_record(sink=CollectorRef(endpoint=""))
    entries = [await spooled(record, bytes([n]) * 300_000, type_) for n, type_ in enumerate(["heap", "cpu", "mutex"])]
    await asyncio.gather(*(rig.sink.store(entry) for entry in entries))
    assert len(rig.files()) == 3
    assert (rig.api.most_secrets, rig.api.secrets) == (1, {})
    await rig.sink.complete(record, tuple(entry.artifact for entry in entries))


async def test_a_token_that_grew_old_is_not_handed_on(
    rig: Rig, spooled: MakeEntry, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long upload shares its Secret with a later one, which gets a token of its own."""
    record = make_record(sink=CollectorRef(endpoint=""))
    entries = [await spooled(record, bytes([n]) * 300_000, type_) for n, type_ in enumerate(["heap", "cpu"])]
    monkeypatch.setattr(tickets, "_OLD_SECONDS", 0)
    await asyncio.gather(*(rig.sink.store(entry) for entry in entries))
    assert len(rig.api.tokens) == 2
    assert rig.api.secrets == {}


async def test_other_bytes_under_the_same_name_are_refused_for_good(
    rig: Rig, spooled: MakeEntry, make_record: MakeRecord, entry: SpoolEntry, tmp_path: Path
) -> None:
    """409: a stored artifact is never replaced, and no waiting changes that."""
    await rig.sink.store(entry)
    other_bytes = entry.path.read_bytes()[::-1]
    path = tmp_path / "other"
    path.write_bytes(other_bytes)
    changed = replace(entry.artifact, sha256=sha256(other_bytes).hexdigest())
    other = replace(entry, artifact=changed, path=path)
    with pytest.raises(SinkRefused, match="409 Taken") as caught:
        await rig.sink.store(other)
    assert caught.value.reason == Reason.CONFLICTED
    assert rig.api.secrets == {}


async def test_a_capture_completed_without_this_artifact_takes_it_no_more(
    rig: Rig, spooled: MakeEntry, make_record: MakeRecord, entry: SpoolEntry
) -> None:
    """A closed capture is final, and so is a completion that names what was not stored."""
    late = await spooled(entry.record, b"late", "cpu")
    await rig.sink.store(entry)
    with pytest.raises(SinkRefused, match="409"):
        await rig.sink.complete(entry.record, (entry.artifact, late.artifact))
    await rig.sink.complete(entry.record, (entry.artifact,))
    with pytest.raises(SinkRefused, match="403"):
        await rig.sink.store(late)


async def test_an_artifact_that_is_too_large_is_refused_before_its_bytes_are_sent(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry
) -> None:
    """Expect: 100-continue; it is retried, because an administrator can raise the limit."""
    async with (
        collector(api, tmp_path / "store") as url,
        CollectorSink(api, replace(access(url, tmp_path), max_bytes=1000), SystemClock()) as sink,
    ):
        with pytest.raises(SinkUnavailable, match="413 TooBig") as caught:
            await sink.store(entry)
    assert not caught.value.sink_wide
    assert api.secrets == {}


async def test_a_damaged_spool_file_is_no_lost_connection(rig: Rig, entry: SpoolEntry) -> None:
    """Its own reason, though aiohttp reports any fault of a body as the connection's."""
    data = bytearray(entry.path.read_bytes())
    data[-1] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(SinkRefused) as caught:
        await rig.sink.store(entry)
    assert caught.value.reason == Reason.SPOOL_DAMAGED
    assert (rig.files(), rig.api.secrets) == ([], {})


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("POST secrets", Forbidden(403, "Forbidden", "no"), "create on secrets"),
        ("POST token", Forbidden(403, "Forbidden", "no"), "serviceaccounts/token"),
        ("POST token", NotFound(404, "NotFound", "no"), "service account toe-uploader does not exist"),
        ("POST secrets", ServerError(500, "InternalError", "no"), "500 InternalError"),
        ("POST tokenreviews", ServerError(500, "InternalError", "no"), "503"),
    ],
)
async def test_what_the_api_server_refuses_is_said_and_the_secret_goes(
    rig: Rig, entry: SpoolEntry, fault: str, error: Exception, says: str
) -> None:
    """Also when there is no Secret yet: deleting what is not there is no error."""
    rig.api.errors[fault] = error
    with pytest.raises(SinkUnavailable, match=says):
        await rig.sink.store(entry)
    assert rig.api.secrets == {}
    rig.api.errors.clear()


async def test_a_secret_that_cannot_be_deleted_costs_no_artifact(rig: Rig, entry: SpoolEntry) -> None:
    """It is empty, and the token ends by itself."""
    rig.api.errors[f"DELETE toe-capture-{entry.record.id}"] = ServerError(500, "InternalError", "no")
    receipt = await rig.sink.store(entry)
    assert receipt.size == entry.artifact.size


async def test_the_operators_token_is_read_each_time(rig: Rig, entry: SpoolEntry) -> None:
    """A projected token is rotated under a running operator."""
    rig.token_file.write_text("not-the-token")
    with pytest.raises(SinkUnavailable, match="401"):
        await rig.sink.store(entry)
    rig.token_file.unlink()
    with pytest.raises(SinkUnavailable, match="mount a projected one"):
        await rig.sink.store(entry)
    rig.token_file.write_text(OWN_TOKEN)
    await rig.sink.store(entry)


async def test_cancelled_at_any_moment_no_secret_is_left(rig: Rig, entry: SpoolEntry) -> None:
    """D19: the token's life is the upload's."""
    cancelled = 0
    for turns in range(0, 400, 5):
        task = asyncio.get_running_loop().create_task(rig.sink.store(entry))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
        assert rig.api.secrets == {}, f"cancelled after {turns} turns"
    await rig.sink.store(entry)
    assert cancelled > 5
    assert len(rig.files()) == 1


async def test_no_token_is_in_any_message_or_log(
    rig: Rig, entry: SpoolEntry, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """G5, over good and bad answers."""
    caplog.set_level(logging.DEBUG)
    said = []
    await rig.sink.store(entry)
    for fault, words in (("POST tokenreviews", "no"), ("POST token", OWN_TOKEN)):
        rig.api.errors[fault] = ServerError(500, "InternalError", words)
        with pytest.raises(SinkUnavailable) as caught:
            await rig.sink.store(entry)
        said.append(repr(caught.value) + str(caught.value))
    everything = "".join(said) + caplog.text + "".join(capsys.readouterr())
    assert OWN_TOKEN not in everything
    assert "upload-token" not in everything


async def test_a_collector_that_is_away_is_waited_for(api: FakeApi, tmp_path: Path, entry: SpoolEntry) -> None:
    """Killed and started again: the next attempt stores it."""
    async with collector(api, tmp_path / "store") as url:
        pass
    async with CollectorSink(api, access(url, tmp_path), SystemClock()) as sink:
        with pytest.raises(SinkUnavailable, match="no answer"):
            await sink.store(entry)
        assert "no answer" in (await sink.probe() or "")
        async with collector(api, tmp_path / "store", listen=url.removeprefix("http://")):
            assert await sink.probe() is None
            await sink.store(entry)


async def test_the_ca_is_read_again_when_it_changes(api: FakeApi, tmp_path: Path, entry: SpoolEntry) -> None:
    """D22: a certificate of another CA is refused; with the new CA file the same process goes on."""
    old, new = (Authority(name, SystemClock().now()) for name in ("old", "new"))
    certificate = (tmp_path / "tls.crt", tmp_path / "tls.key")
    pair = new.server("collector", ["127.0.0.1"])
    certificate[0].write_bytes(pair.certificate)
    certificate[1].write_bytes(pair.key)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(old.certificate)
    async with (
        collector(api, tmp_path / "store", certificate=certificate) as url,
        CollectorSink(api, access(url, tmp_path, ca), SystemClock()) as sink,
    ):
        assert url.startswith("https:")
        with pytest.raises(SinkUnavailable, match="--collector-ca"):
            await sink.store(entry)
        replacement = tmp_path / "ca.new"
        replacement.write_bytes(new.certificate)
        replacement.replace(ca)
        await sink.store(entry)
        ca.write_text("no certificate")
        with pytest.raises(SinkUnavailable, match=r"ca\.crt"):
            await sink.store(entry)


# -- what is no collector ---------------------------------------------------------------------------------------------


def impostor(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AbstractAsyncContextManager[str]:
    """Serve something else under the collector's address."""
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handler)
    return serving(app)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (302, "", "302"),
        (307, "", "307"),
        (200, "<html>log in</html>", "receipt cannot be read"),
        (200, '{"uri":"x","size":1,"sha256":"0"}', "other bytes"),
        (200, "x" * 100_000, "longer than"),
        (403, '{"reason":"<script>"}', "403;"),
        (500, "[", "500"),
    ],
)
async def test_an_answer_that_no_collector_gives_is_no_receipt(
    api: FakeApi, tmp_path: Path, entry: SpoolEntry, status: int, body: str, says: str
) -> None:
    """A redirect is not followed, a wrong receipt not believed, a body not read without end."""
    seen: list[str] = []

    async def canary(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    async with impostor(canary) as elsewhere:

        async def answer(request: web.Request) -> web.Response:
            await request.read()
            return web.Response(status=status, text=body, headers={"Location": elsewhere})

        async with impostor(answer) as url, CollectorSink(api, access(url, tmp_path), SystemClock()) as sink:
            with pytest.raises(SinkUnavailable, match=says):
                await sink.store(entry)
    assert seen == []


async def test_a_collector_that_takes_no_bytes_is_left_after_a_while(
    api: FakeApi, tmp_path: Path, spooled: MakeEntry, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp itself would wait for ever on a peer that stops reading."""

    monkeypatch.setattr(pieces, "SILENCE_SECONDS", 0.3)
    entry = await spooled(make_record(), b"x" * (16 << 20))

    async def stop_reading(request: web.Request) -> web.Response:
        if request.method == "PUT":
            await request.content.readany()
            await asyncio.sleep(30)
        return web.Response(text="{}", headers={"Upload-Offset": "0"})

    async with impostor(stop_reading) as url, CollectorSink(api, access(url, tmp_path), SystemClock()) as sink:
        with pytest.raises(SinkUnavailable, match="took nothing for"):
            await sink.store(entry)
    assert api.secrets == {}
