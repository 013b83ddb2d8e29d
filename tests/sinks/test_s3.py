"""S3 against a server that can be told to misbehave."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.sinks.fake_s3 import CANARY, Answer, FakeS3, failure, hang_up, serving
from toe_async.apis.captures import CaptureRecord, S3Ref
from toe_async.apis.reasons import Reason
from toe_async.kube.errors import Forbidden, NotFound, TransportError
from toe_async.kube.requests import Request
from toe_async.sinks.allow import Allowed
from toe_async.sinks.endpoints import parse_endpoint
from toe_async.sinks.errors import SinkRefused, SinkUnavailable
from toe_async.sinks.s3 import S3Sink
from toe_async.sinks.s3requests import MOST_PARTS, PART, part_size
from toe_async.sinks.spool import SpoolEntry

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]
BIG = PART * 2 + 12_345


class FakeApi:
    """An API server that has Secrets."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.error: Exception | None = None
        self.asked: list[str] = []

    async def send(self, request: Request) -> bytes:
        self.asked.append(str(request))
        if self.error is not None:
            raise self.error
        name = request.path.rpartition("/")[2]
        if name not in self.secrets:
            raise NotFound(404, "NotFound", f'secrets "{name}" not found')
        data = {key: base64.b64encode(value.encode()).decode() for key, value in self.secrets[name].items()}
        return json.dumps({"metadata": {"name": name}, "data": data}).encode()


@pytest.fixture
def api() -> FakeApi:
    """The API server."""
    return FakeApi()


@pytest.fixture(autouse=True)
def operators_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The operator's own identity: a mounted credentials file, and no other source."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "credentials"
    write_credentials(path, "AKIAOPERATOR")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    return path


def write_credentials(path: Path, access_key: str) -> None:
    """Write a shared credentials file."""
    path.write_text(
        f"[default]\naws_access_key_id={access_key}\naws_secret_access_key=geheim\naws_session_token={CANARY}\n"
    )


@pytest.fixture
async def sink(api: FakeApi) -> AsyncIterator[S3Sink]:
    """The sink under test."""
    async with S3Sink(api) as sink:
        yield sink


class Store:
    """Calls the sink as delivery does."""

    def __init__(self, sink: S3Sink, s3: FakeS3) -> None:
        self.sink, self.s3 = sink, s3

    async def __call__(self, entry: SpoolEntry, *, again: bool = False, secret: str = "") -> str:
        ref = S3Ref(bucket="profiles", prefix="hot", endpoint=self.s3.url, credentials_secret=secret)
        receipt = await self.sink.store(entry, ref, self.allowed(secret), again=again)
        assert (receipt.size, receipt.sha256) == (entry.artifact.size, entry.artifact.sha256)
        key = receipt.uri.removeprefix("s3://profiles/")
        assert self.s3.objects[key][0] == entry.path.read_bytes()
        return key

    async def probe(self, url: str = "") -> str | None:
        ref = S3Ref(bucket="profiles", prefix="hot", endpoint=url or self.s3.url)
        return await self.sink.probe(ref, Allowed(parse_endpoint(ref.endpoint), use_operator_identity=True), "shop")

    def allowed(self, secret: str) -> Allowed:
        return Allowed(parse_endpoint(self.s3.url), use_operator_identity=not secret)


@pytest.fixture
def store(sink: S3Sink, s3: FakeS3) -> Store:
    """Store an entry, check receipt and bytes, return the key."""
    return Store(sink, s3)


@pytest.fixture
async def small(spooled: MakeEntry, make_record: MakeRecord) -> SpoolEntry:
    """An artifact of one part."""
    return await spooled(make_record(), b"\x1f\x8bprofile")


@pytest.fixture
async def big(spooled: MakeEntry, make_record: MakeRecord) -> SpoolEntry:
    """An artifact of three parts."""
    return await spooled(make_record("big"), bytes(range(256)) * (BIG // 256) + b"x" * (BIG % 256))


async def test_an_artifact_and_its_manifest_are_stored(store: Store, s3: FakeS3, small: SpoolEntry) -> None:
    """Two creates, a look before and after; the manifest has the whole context."""
    key = await store(small)
    assert s3.requests == [("Head", key), ("Put", key), ("Head", key), ("Put", f"{key}.json")]
    assert [headers.get("If-None-Match") for headers in s3.headers] == [None, "*", None, "*"]
    manifest = json.loads(s3.objects[f"{key}.json"][0])
    assert manifest["uri"] == f"s3://profiles/{key}"
    assert manifest["capture"]["trigger"] == small.record.trigger
    assert manifest["artifact"]["sha256"] == small.artifact.sha256
    assert s3.objects[key][1]["capture-id"] == small.record.id


async def test_a_large_artifact_goes_in_parts(store: Store, s3: FakeS3, big: SpoolEntry) -> None:
    """Three parts, completed with If-None-Match, metadata given at the creation."""
    key = await store(big)
    assert [operation for operation, _ in s3.requests] == [
        "Head", "Create", "Part", "Part", "Part", "Complete", "Head", "Put",
    ]  # fmt: skip
    assert s3.headers[5]["If-None-Match"] == "*"
    assert s3.objects[key][1]["sha256"] == big.artifact.sha256
    assert s3.uploads == {}


@pytest.mark.parametrize(("size", "part"), [(1, PART), (PART * MOST_PARTS, PART), (PART * MOST_PARTS + 1, PART + 1)])
def test_no_artifact_has_too_many_parts(size: int, part: int) -> None:
    """S3 takes 10,000."""
    assert part_size(size) == part
    assert -(-size // part_size(size)) <= MOST_PARTS


@pytest.mark.parametrize("data", [b"x", b"x" * BIG])
async def test_days_of_retention_are_a_tag_of_the_object_and_its_manifest(
    store: Store, s3: FakeS3, spooled: MakeEntry, make_record: MakeRecord, data: bytes
) -> None:
    """For a lifecycle rule; who asks for none needs no right to tag."""
    await store(await spooled(make_record("plain"), b"plain"))
    assert not any("x-amz-tagging" in headers for headers in s3.headers)
    await store(await spooled(replace(make_record("kept", pod="web-1"), retention_days=7), data))
    tagged = [name for (name, _), held in zip(s3.requests, s3.headers, strict=True) if "x-amz-tagging" in held]
    assert tagged == ["Create" if len(data) == BIG else "Put", "Put"]
    assert {held["x-amz-tagging"] for held in s3.headers if "x-amz-tagging" in held} == {"toe-retention-days=7"}


async def test_a_custom_endpoint_gets_no_checksum_that_old_stores_refuse(
    store: Store, s3: FakeS3, big: SpoolEntry
) -> None:
    """Mode auto means `when_required` there; the payload itself is signed over http."""
    await store(big)
    for headers in s3.headers:
        assert not [name for name in headers if name.lower().startswith(("x-amz-checksum", "x-amz-trailer"))]
        assert headers.get("Content-Encoding") != "aws-chunked"
        assert len(headers["x-amz-content-sha256"]) == 64


@pytest.mark.parametrize("fixture", ["small", "big"])
async def test_a_lost_reply_is_recognised_and_nothing_is_stored_twice(
    store: Store, s3: FakeS3, fixture: str, request: pytest.FixtureRequest, small: SpoolEntry, big: SpoolEntry
) -> None:
    """The store has it, the connection broke: the next attempt finds its own object and adds the manifest."""
    entry = {"small": small, "big": big}[fixture]
    final = {"small": "Put", "big": "Complete"}[fixture]

    async def drop(operation: str, key: str) -> Answer:
        if operation == final and not key.endswith(".json"):
            s3.after = s3.nothing
            return await hang_up()
        return None

    s3.after = drop
    with pytest.raises(SinkUnavailable):
        await store(entry)
    assert len(s3.objects) == 1
    writes = s3.count(final)
    key = await store(entry, again=True)
    assert s3.count(final) == writes + (1 if final == "Put" else 0)  # only the manifest
    assert set(s3.objects) == {key, f"{key}.json"}
    assert s3.uploads == {}


async def test_a_lost_reply_under_the_second_name_is_found_there(
    store: Store, s3: FakeS3, small: SpoolEntry, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """The first name may have become free since; it is still the same artifact that must not be stored twice."""
    first = await store(small)
    other = await spooled(make_record("other", pod="web-1"))
    second = await store(other)
    assert second.endswith("-heap-web-1.pprof")
    del s3.objects[first]
    assert await store(other, again=True) == second


async def test_a_taken_name_is_never_overwritten(
    store: Store, s3: FakeS3, small: SpoolEntry, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """Plain, with the pod, with the capture id; then it is said."""
    keys = [await store(small)]
    keys += [await store(await spooled(make_record(f"other {n}"))) for n in range(2)]
    assert keys[1] == keys[0].replace("-heap", "-heap-web-0")
    assert len(set(keys)) == 3
    before = dict(s3.objects)
    entry = await spooled(make_record("last"))
    from toe_async.sinks.keys import candidates

    for key in candidates("hot", entry.record, entry.artifact):
        s3.objects[key] = (b"somebody else's", {})
    with pytest.raises(SinkUnavailable, match="all three names"):
        await store(entry)
    assert all(s3.objects[key][0] in {data[0] for data in before.values()} | {b"somebody else's"} for key in before)


@pytest.mark.parametrize("fixture", ["small", "big"])
async def test_two_writers_that_both_saw_the_name_free_do_not_meet(
    store: Store, s3: FakeS3, fixture: str, small: SpoolEntry, big: SpoolEntry
) -> None:
    """Another replica stores under the name after our HEAD: 412, and our artifact gets its second name."""
    entry = {"small": small, "big": big}[fixture]

    async def race(operation: str, key: str) -> Answer:
        if operation in {"Put", "Create"}:
            s3.objects.setdefault(key, (b"theirs", {"capture-id": "other"}))
            s3.before = s3.nothing
        return None

    s3.before = race
    key = await store(entry)
    assert "-heap-web-0" in key
    assert s3.objects[key.replace("-web-0", "")][0] == b"theirs"
    assert s3.uploads == {}


async def test_a_store_that_lets_two_writers_win_costs_a_name_and_no_artifact(
    store: Store, s3: FakeS3, big: SpoolEntry
) -> None:
    """Condition and write are two steps in some stores: we were told "stored", yet another object is there."""

    async def overwrite(operation: str, key: str) -> Answer:
        if operation == "Complete":
            s3.objects[key] = (b"theirs", {"capture-id": "other"})
            s3.after = s3.nothing
        return None

    s3.after = overwrite
    key = await store(big)
    assert "-heap-web-0" in key


async def test_writers_of_one_process_take_different_names_at_once(
    store: Store, s3: FakeS3, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """The name is reserved while it is being written, so nobody uploads in vain."""
    entries = [await spooled(make_record(f"{n}", pod=f"web-{n}")) for n in range(3)]
    keys = await asyncio.gather(*(store(entry) for entry in entries))
    assert len(set(keys)) == 3
    assert s3.count("Put") == 6


async def test_without_the_right_to_list_a_free_name_looks_denied(store: Store, s3: FakeS3, small: SpoolEntry) -> None:
    """AWS answers HEAD with 403 then; the conditional write decides."""

    async def no_list(operation: str, key: str) -> Answer:
        return web.Response(status=403) if operation == "Head" and key not in s3.objects else None

    s3.before = no_list
    key = await store(small, again=True)
    assert await store(small, again=True) == key


async def test_only_the_three_rights_are_used(store: Store, s3: FakeS3, small: SpoolEntry, big: SpoolEntry) -> None:
    """H26: PutObject, GetObject, AbortMultipartUpload, on the prefix only."""
    await store(small)
    await store(big, again=True)
    assert await store.probe() is None
    assert {operation for operation, _ in s3.requests} <= {"Head", "Get", "Put", "Create", "Part", "Complete", "Abort"}
    assert all(key.startswith("hot/") for _, key in s3.requests)


async def test_a_busy_store_is_asked_later(store: Store, s3: FakeS3, small: SpoolEntry) -> None:
    """503 is not retried here but by delivery, after the time that the store named."""

    async def busy(operation: str, key: str) -> Answer:
        return failure(503, "SlowDown", **{"Retry-After": "7"}) if operation == "Put" else None

    s3.before = busy
    with pytest.raises(SinkUnavailable) as caught:
        await store(small)
    assert caught.value.retry_after == 7
    assert caught.value.sink_wide
    assert s3.count("Put") == 1
    assert "503 SlowDown" in str(caught.value)


async def test_a_part_whose_connection_breaks_is_sent_again_alone(store: Store, s3: FakeS3, big: SpoolEntry) -> None:
    """The others need not be sent anew for it."""

    async def drop(operation: str, key: str) -> Answer:
        if operation == "Part":
            s3.before = s3.nothing
            return await hang_up()
        return None

    s3.before = drop
    await store(big)
    assert (s3.count("Create"), s3.count("Part"), s3.count("Abort")) == (1, 4, 0)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AccessDenied", "grant PutObject"),
        (403, "InvalidAccessKeyId", "access key"),
        (403, "SignatureDoesNotMatch", "access key"),
        (404, "NoSuchBucket", "make the bucket"),
        (400, "AuthorizationHeaderMalformed", "access key"),
        (501, "NotImplemented", "If-None-Match"),
        (409, "ConditionalRequestConflict", "409"),
        (507, "InsufficientStorage", "507"),
        (418, f"{CANARY}!<>", "418"),
    ],
)
async def test_a_refusal_is_told_with_the_way_out_and_never_in_the_stores_own_words(
    store: Store, s3: FakeS3, big: SpoolEntry, status: int, code: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A hostile store may put what it was sent into its message: nothing of it reaches an error, a cause or a log."""
    caplog.set_level(logging.DEBUG, "toe_async")

    async def refuse(operation: str, key: str) -> Answer:
        return failure(status, code) if operation != "Head" else None

    s3.before = refuse
    with pytest.raises(SinkUnavailable) as caught:
        await store(big)
    assert says in str(caught.value)
    assert s3.url in str(caught.value)
    assert CANARY not in str(caught.value) + repr(caught.value) + caplog.text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(store: Store, s3: FakeS3, small: SpoolEntry, status: int) -> None:
    """H19: the key's session token and the profile would go to whoever the endpoint names."""
    seen: list[str] = []

    async def canary(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", canary)
    async with serving(app) as elsewhere:

        async def redirect(operation: str, key: str) -> Answer:
            return web.Response(status=status, headers={"Location": f"{elsewhere}/profiles/{key}"})

        s3.before = redirect
        with pytest.raises(SinkUnavailable, match="redirects elsewhere"):
            await store(small)
    assert seen == []


async def test_another_region_is_told(store: Store, s3: FakeS3, small: SpoolEntry) -> None:
    """AWS's redirect by body and header, without a Location: the client must not wander off either."""

    async def elsewhere(operation: str, key: str) -> Answer:
        return failure(301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-central-1"})

    s3.before = elsewhere
    with pytest.raises(SinkUnavailable):
        await store(small)


async def test_a_dead_endpoint_is_said(store: Store, small: SpoolEntry, s3: FakeS3) -> None:
    """Nobody listens."""
    s3.url = "http://127.0.0.1:9"
    with pytest.raises(SinkUnavailable, match="no answer"):
        await store(small)
    assert "no answer" in (await store.probe() or "")


async def test_a_name_that_leads_to_a_metadata_service_is_not_connected_to() -> None:
    """H20: the name is resolved once, and the address that is connected to is the one that was checked."""
    from socket import AddressFamily

    from aiohttp.abc import ResolveResult

    from toe_async.sinks.s3client import ForbiddenAddress, _GuardedResolver

    def result(host: str) -> ResolveResult:
        return ResolveResult(hostname="x", host=host, port=80, family=AddressFamily.AF_INET, proto=0, flags=0)

    class Rebinding:
        def __init__(self, *hosts: str) -> None:
            self.hosts = hosts

        async def resolve(self, host: str, port: int, family: AddressFamily) -> list[ResolveResult]:
            return [result(each) for each in self.hosts]

    resolver = _GuardedResolver()
    resolver._inner = Rebinding("10.0.0.1", "169.254.169.254")  # type: ignore[assignment]
    assert [found["host"] for found in await resolver.resolve("store")] == ["10.0.0.1"]
    resolver._inner = Rebinding("169.254.169.254")  # type: ignore[assignment]
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("store")


async def test_a_spool_file_that_changed_is_not_stored(store: Store, s3: FakeS3, big: SpoolEntry) -> None:
    """G2: an artifact that is reported as stored is whole; the upload is aborted."""
    data = bytearray(big.path.read_bytes())
    data[-1] ^= 1
    big.path.write_bytes(data)
    with pytest.raises(SinkRefused) as caught:
        await store(big)
    assert caught.value.reason == Reason.SPOOL_DAMAGED
    assert (s3.objects, s3.uploads) == ({}, {})


@pytest.mark.slow
async def test_cancelled_at_any_request_nothing_half_done_is_left(store: Store, s3: FakeS3, big: SpoolEntry) -> None:
    """U6: before and after the server acts on each request in turn; then a second attempt stores it once."""
    total = 0
    for moment in ("before", "after"):
        for at in range(20):
            s3.objects.clear()
            s3.requests.clear()
            setattr(s3, moment, s3.nothing)
            task = asyncio.get_running_loop().create_task(store(big))

            async def cancel(operation: str, key: str, at: int = at, task: asyncio.Task[str] = task) -> Answer:
                if len(s3.requests) == at + 1:
                    task.cancel()
                    await asyncio.sleep(0.01)
                return None

            setattr(s3, moment, cancel)
            try:
                await task
                break
            except asyncio.CancelledError:
                total += 1
            assert s3.uploads == {}, f"cancelled {moment} request {at}: an upload is left"
            setattr(s3, moment, s3.nothing)
            key = await store(big, again=True)
            assert set(s3.objects) == {key, f"{key}.json"}
    assert total == 16


async def test_a_dead_server_holds_up_a_cancelled_upload_for_seconds_only(
    store: Store, s3: FakeS3, big: SpoolEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace is bounded: for the request under way and for the abort."""
    from toe_async.sinks import s3requests as module

    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.1)
    stuck = asyncio.Event()

    async def stick(operation: str, key: str) -> Answer:
        if operation in {"Part", "Abort"}:
            stuck.set()
            await asyncio.sleep(30)
        return None

    s3.before = stick
    task = asyncio.get_running_loop().create_task(store(big))
    await stuck.wait()
    task.cancel()
    start = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.get_running_loop().time() - start < 1


# -- whose identity ---------------------------------------------------------------------------------------------------


def used_keys(s3: FakeS3) -> set[str]:
    """Return the access keys that signed the requests."""
    return {headers["Authorization"].split("Credential=")[1].split("/")[0] for headers in s3.headers}


async def test_an_authors_key_comes_from_the_secret_at_each_delivery(
    store: Store, s3: FakeS3, api: FakeApi, small: SpoolEntry
) -> None:
    """D17: in the config's own namespace, never kept."""
    api.secrets["key"] = {"AWS_ACCESS_KEY_ID": "AKIAONE\n", "AWS_SECRET_ACCESS_KEY": "s", "other": "x"}
    await store(small, secret="key")
    assert used_keys(s3) == {"AKIAONE"}
    assert not [headers for headers in s3.headers if "X-Amz-Security-Token" in headers]
    api.secrets["key"] = {"AWS_ACCESS_KEY_ID": "AKIATWO", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    s3.headers.clear()
    await store(small, secret="key", again=True)
    assert used_keys(s3) == {"AKIATWO"}
    assert s3.headers[0]["X-Amz-Security-Token"] == "t"
    assert api.asked == ["GET /api/v1/namespaces/shop/secrets/key"] * 2


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (None, None, "Secret shop/key does not exist"),
        ({"AWS_ACCESS_KEY_ID": CANARY}, None, "has no AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": CANARY, "AWS_ACCESS_KEY_ID": ""}, None, "has no AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "\u00e4", "AWS_ACCESS_KEY_ID": "x"}, None, "no key"),
        (None, Forbidden(403, "Forbidden", "no"), "bind a Role"),
        (None, TransportError("gone"), "could not be read"),
    ],
)
async def test_a_secret_that_is_no_key_is_said_and_not_shown(
    store: Store, s3: FakeS3, api: FakeApi, small: SpoolEntry, data: dict[str, str] | None, error: Any, says: str
) -> None:
    """Retried, because a person can mend it; no request goes out."""
    if data is not None:
        api.secrets["key"] = data
    api.error = error
    with pytest.raises(SinkUnavailable, match=says) as caught:
        await store(small, secret="key")
    assert CANARY not in repr(caught.value)
    assert s3.requests == []


async def test_workload_identity_comes_before_keys_in_the_environment(
    store: Store, s3: FakeS3, small: SpoolEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A container endpoint as Pod Identity has it, with static keys beside it."""
    (tmp_path / "token").write_text("pod-token")
    asked: list[str] = []

    async def credentials(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.json_response(
            {"AccessKeyId": "AKIAPOD", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
        )

    app = web.Application()
    app.router.add_get("/creds", credentials)
    async with serving(app) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/creds")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASTATIC")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "static")
        await store(small)
        await store(small, again=True)
    assert used_keys(s3) == {"AKIAPOD"}
    assert asked == ["pod-token"]


@pytest.mark.parametrize(("switch", "there"), [(None, False), ("true", False), ("false", True)])
async def test_the_nodes_identity_is_used_only_when_meant(
    switch: str | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata service of the machine would lend the operator the node's rights."""
    from toe_async.sinks.credentials import OperatorIdentity

    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    if switch is not None:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", switch)
    chain = (await OperatorIdentity().session()).get_component("credential_provider")
    order = [provider.METHOD for provider in chain.providers]
    assert order[:3] == ["assume-role-with-web-identity", "container-role", "env"]
    assert ("iam-role" in order) is there


async def test_a_rotated_credentials_file_is_read_after_a_refusal(
    store: Store, s3: FakeS3, small: SpoolEntry, operators_identity: Path
) -> None:
    """Static keys are mounted as a file and may change under a running operator."""

    async def old_key_is_dead(operation: str, key: str) -> Answer:
        dead = "AKIAOPERATOR" in s3.headers[-1]["Authorization"]
        return failure(403, "InvalidAccessKeyId") if dead else None

    s3.before = old_key_is_dead
    with pytest.raises(SinkUnavailable, match="access key"):
        await store(small)
    write_credentials(operators_identity, "AKIANEW")
    await store(small)


async def test_an_operator_without_identity_says_how_to_give_it_one(
    store: Store, small: SpoolEntry, operators_identity: Path
) -> None:
    """No keys anywhere."""
    operators_identity.unlink()
    with pytest.raises(SinkUnavailable, match="workload identity") as caught:
        await store(small)
    assert caught.value.reason == Reason.CREDENTIALS_MISSING


# -- probe ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (404, "NoSuchKey", None),
        (403, "AccessDenied", None),
        (404, "NoSuchBucket", "make the bucket"),
        (403, "InvalidAccessKeyId", "access key"),
        (503, "SlowDown", "503"),
    ],
)
async def test_a_probe_tells_a_good_sink_from_a_bad_one(
    store: Store, s3: FakeS3, status: int, code: str, says: str | None
) -> None:
    """A name that is not there: 404, or AccessDenied without the right to list, is all one can hope for."""

    async def answer(operation: str, key: str) -> Answer:
        return failure(status, code)

    s3.before = answer
    said = await store.probe()
    assert said is None if says is None else says in (said or "")
    assert [operation for operation, _ in s3.requests] == ["Get"]
