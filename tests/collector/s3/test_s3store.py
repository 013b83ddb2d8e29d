"""The bucket backend against a server that breaks its word: lost replies, crashes, outages, other writers."""

import asyncio
import random
from datetime import datetime, timedelta

import pytest
from aiohttp import web
from msgspec.structs import replace
from structlog.testing import capture_logs

from tests.collector.rig import capture_id
from tests.collector.s3.conftest import BODY, NOW, Open, Rig
from tests.collector.s3.fake_bucket import FakeBucket
from tests.sinks.fake_s3 import CANARY, Answer, failure, hang_up
from toe_async.apis.meta import encode
from toe_async.collector.captures import Manifest, decode_manifest
from toe_async.collector.errors import StoreError, StoreFull
from toe_async.collector.paths import MANIFEST_SUFFIX
from toe_async.collector.s3errors import StoreAway
from toe_async.collector.s3orphans import S3Orphans
from toe_async.collector.s3store import ENDLESS

BIG = random.Random(1).randbytes((5 << 20) * 2 + 12_345)


def answers(fake: FakeBucket, operation: str, suffix: str, *answer: web.StreamResponse, after: bool = False) -> None:
    """Give these answers, one a time, to requests for keys with this ending; then keep the rules again."""
    left = list(answer)

    async def step(asked: str, key: str) -> Answer:
        return left.pop(0) if left and asked == operation and key.endswith(suffix) else None

    if after:
        fake.after = step
    else:
        fake.before = step


async def away(asked: str, key: str) -> Answer:
    return await hang_up()


@pytest.mark.parametrize("body", [b"", BODY, BIG], ids=["empty", "small", "in parts"])
async def test_a_commit_makes_two_objects_and_says_whose_they_are(rig: Rig, fake: FakeBucket, body: bytes) -> None:
    """Created, never replaced; the manifest comes last."""
    wanted, stored = await rig.put(body)
    assert stored is wanted
    key = rig.key(wanted)
    assert key.startswith("a/b/shop/app.kubernetes.io%2Fname-cart,tier-web/hot-carts/2026/01/24/")
    assert fake.objects[key] == (
        body,
        {"capture-id": wanted.capture, "leaf": "heap.pprof", "sha256": wanted.sha256},
    )
    assert decode_manifest(fake.objects[key + MANIFEST_SUFFIX][0]) == wanted
    written = [
        (key_, headers.get("If-None-Match"))
        for (operation, key_), headers in zip(fake.requests, fake.headers, strict=True)
        if operation in {"Put", "Complete"}
    ]
    assert written == [(key, "*"), (key + MANIFEST_SUFFIX, "*")]
    assert rig.notes() == []
    assert await rig.store.free_bytes() == ENDLESS


@pytest.mark.parametrize("body", [BODY, BIG], ids=["small", "in parts"])
async def test_a_lost_reply_is_found_again(rig: Rig, fake: FakeBucket, body: bytes) -> None:
    """The object is there and nobody was told: the same upload coming again finds it and only adds the manifest."""
    last = "Put" if body is BODY else "Complete"
    answers(fake, last, ".pprof", failure(500, "InternalError"), after=True)
    async with rig.staged(body) as (part, wanted):
        with pytest.raises(StoreAway):
            await rig.store.commit(part, wanted)
        assert await rig.store.find(wanted.directory, wanted.file) is None
        assert await rig.listed() == []
        count = fake.count(last)
        assert await rig.store.commit(part, wanted) is wanted
        assert fake.count(last) == count + (last == "Put")  # of the manifest alone
    assert await rig.read(wanted) == body
    assert rig.notes() == []


async def test_a_crash_between_object_and_manifest_is_finished_from_the_note(
    rig: Rig, fake: FakeBucket, opened: Open
) -> None:
    """Even when the staged part is gone and another process starts on the same disk."""
    answers(fake, "Put", MANIFEST_SUFFIX, failure(503, "SlowDown"))
    async with rig.staged() as (part, wanted):
        with pytest.raises(StoreAway, match="503 SlowDown; the store is overloaded"):
            await rig.store.commit(part, wanted)
    assert len(rig.notes()) == 1
    async with opened(fake.url, "a/b") as later:
        assert await later.store.recover() == 1
        assert await later.listed() == [wanted]
        assert later.notes() == []


async def test_what_never_got_as_far_as_an_object_is_forgotten(rig: Rig, fake: FakeBucket) -> None:
    """Nobody was told that it is stored; a note that cannot be read goes too."""
    fake.before = away
    async with rig.staged() as (part, wanted):
        with pytest.raises(StoreAway):
            await rig.store.commit(part, wanted)
    (rig.root / ".toe" / "s3" / "zz.manifest").write_bytes(b'{"name":')
    assert len(rig.notes()) == 2
    with capture_logs() as logs:
        assert await rig.store.recover() == 0  # the store is still away: what it holds stays unknown
    assert any("cannot be finished now" in entry["event"] for entry in logs)
    assert len(rig.notes()) == 2
    fake.before = fake.nothing
    assert await rig.store.recover() == 0
    assert rig.notes() == []
    assert fake.objects == {}


async def test_a_commit_that_is_tried_for_hours_leaves_one_note(rig: Rig, fake: FakeBucket) -> None:
    """And the part stays staged, so that it can be tried again."""
    fake.before = away
    async with rig.staged() as (part, wanted):
        for _ in range(5):
            with pytest.raises(StoreAway):
                await rig.store.commit(part, wanted)
        assert len(rig.notes()) == 1
        assert len(list((rig.root / ".toe" / "parts").iterdir())) == 1
        fake.before = fake.nothing
        assert await rig.store.commit(part, wanted) is wanted
    assert rig.notes() == []


async def test_the_note_of_a_living_commit_is_left_alone(rig: Rig, fake: FakeBucket, opened: Open) -> None:
    """Two collectors on one disk, as in a rolling update."""
    at_object, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(operation: str, key: str) -> Answer:
        if operation == "Put" and key.endswith(".pprof"):
            at_object.set()
            await go_on.wait()
        return None

    fake.before = slowly
    async with rig.staged() as (part, wanted):
        committing = asyncio.get_running_loop().create_task(rig.store.commit(part, wanted))
        await at_object.wait()
        async with opened(fake.url, "a/b") as other, other.staged() as (same, again):
            assert await other.store.recover() == 0
            assert len(other.notes()) == 1
            with pytest.raises(StoreAway, match="another collector"):
                await other.store.commit(same, again)
        go_on.set()
        assert await committing is wanted


async def test_of_two_collectors_with_a_disk_each_one_wins(rig: Rig, fake: FakeBucket, opened: Open) -> None:
    """Both saw the name free; the server lets one create it, and both say what is there."""
    both = asyncio.Barrier(2)

    async def together(operation: str, key: str) -> Answer:
        if operation == "Put" and key.endswith(".pprof"):
            await both.wait()
        return None

    fake.before = together
    async with opened(fake.url, "a/b", "other") as other:
        (ours, first), (theirs, second) = await asyncio.gather(rig.put(b"ours"), other.put(b"theirs"))
    assert first.sha256 == second.sha256
    assert (first is ours) is not (second is theirs)
    assert await rig.read(first) == (b"ours" if first is ours else b"theirs")


async def test_who_was_overwritten_by_a_weak_store_says_so(rig: Rig, fake: FakeBucket) -> None:
    """Told "stored", and then somebody else's bytes are there: not ours to claim."""

    async def overwritten(operation: str, key: str) -> Answer:
        if operation == "Put" and key.endswith(".pprof"):
            fake.objects[key] = (b"other", {"capture-id": "x", "sha256": "f" * 64})
        return None

    fake.after = overwritten
    wanted, stored = await rig.put()
    assert stored == replace(wanted, sha256="f" * 64, size=5)
    assert not any(key.endswith(MANIFEST_SUFFIX) for key in fake.objects)


async def test_somebody_elses_object_stays(rig: Rig, fake: FakeBucket) -> None:
    """One without our metadata, under our name."""
    async with rig.staged() as (part, wanted):
        fake.objects[rig.key(wanted)] = (BODY, {})
        stored = await rig.store.commit(part, wanted)
    assert stored.sha256 == ""
    assert fake.objects[rig.key(wanted)] == (BODY, {})


async def test_the_manifest_of_a_deletion_cut_short_makes_way(rig: Rig, fake: FakeBucket) -> None:
    """Its object is gone; the next upload of the name gets a manifest of its own, whatever stood there."""
    old, _ = await rig.put(b"old")
    del fake.objects[rig.key(old)]
    assert await rig.listed() == []
    assert await rig.store.find(old.directory, old.file) is None
    with pytest.raises(FileNotFoundError):
        async with rig.store.open(old):
            pass
    new, stored = await rig.put(b"new")
    assert stored is new
    assert await rig.listed() == [new]
    fake.objects[rig.key(new) + MANIFEST_SUFFIX] = (b"{", {})
    assert await rig.store.find(new.directory, new.file) is None
    _, stored = await rig.put(b"new")
    assert await rig.listed() == [stored]


async def test_a_deletion_takes_the_bytes_first(rig: Rig, fake: FakeBucket) -> None:
    """Cut short, it leaves nothing that looks stored; done again, nothing at all."""
    wanted, _ = await rig.put()
    answers(fake, "Delete", MANIFEST_SUFFIX, failure(500, "InternalError"))
    with pytest.raises(StoreAway):
        await rig.store.delete(wanted)
    assert list(fake.objects) == [rig.key(wanted) + MANIFEST_SUFFIX]
    assert await rig.listed() == []
    await rig.store.delete(wanted)
    assert fake.objects == {}


async def test_a_deletion_of_an_earlier_upload_does_not_touch_its_successor(rig: Rig, fake: FakeBucket) -> None:
    """Between a look and a deletion the name may have been given to another one."""
    wanted, _ = await rig.put()
    await rig.store.delete(replace(wanted, stored_at=wanted.stored_at - timedelta(hours=1)))
    assert await rig.listed() == [wanted]
    await rig.store.delete(replace(wanted, hold="whatever was changed of it"))
    assert fake.objects == {}


async def test_a_hold_never_brings_back_what_was_deleted_meanwhile(rig: Rig, fake: FakeBucket) -> None:
    """Between its reading and its writing the artifact goes."""
    wanted, _ = await rig.put()

    async def deleted(operation: str, key: str) -> Answer:
        if operation == "Put":
            fake.objects.clear()
        return None

    fake.before = deleted
    with pytest.raises(FileNotFoundError):
        await rig.store.rewrite(replace(wanted, hold="x"))
    assert fake.objects == {}


async def test_a_hold_is_tried_again_when_another_change_came_between(rig: Rig, fake: FakeBucket) -> None:
    """The condition fails once."""
    wanted, _ = await rig.put()
    answers(fake, "Put", MANIFEST_SUFFIX, failure(412, "PreconditionFailed"))
    await rig.store.rewrite(replace(wanted, hold="x"))
    assert await rig.listed() == [replace(wanted, hold="x")]


@pytest.mark.parametrize(
    ("answer", "kind", "says", "status"),
    [
        ((403, "AccessDenied"), StoreAway, "grant it PutObject", 503),
        ((403, "SignatureDoesNotMatch"), StoreAway, "does not accept the access key", 503),
        ((404, "NoSuchBucket"), StoreAway, "make the bucket", 503),
        ((503, "SlowDown"), StoreAway, "overloaded", 503),
        ((500, "InternalError"), StoreAway, "500 InternalError", 503),
        ((400, "AuthorizationHeaderMalformed"), StoreAway, "add region=", 503),
        ((501, "NotImplemented"), StoreAway, "knows no If-None-Match", 503),
        ((403, "RequestTimeTooSkewed"), StoreAway, "clocks", 503),
        ((403, "QuotaExceeded"), StoreFull, "QuotaExceeded", 507),
        ((507, "InsufficientStorage"), StoreFull, "507", 507),
    ],
)
async def test_what_the_server_answers_becomes_a_sentence_for_the_log_and_none_for_clients(
    rig: Rig, fake: FakeBucket, answer: tuple[int, str], kind: type[StoreError], says: str, status: int
) -> None:
    """With place and way out in the log; the server's own words nowhere."""
    answers(fake, "Put", "", *[failure(*answer) for _ in range(3)])
    with pytest.raises(StoreError) as raised:
        await rig.store.probe()
    assert type(raised.value) is kind
    assert str(raised.value).startswith(f"s3://profiles/a/b at {fake.url}")
    assert says in str(raised.value)
    assert CANARY not in str(raised.value)
    refusal = raised.value.refusal()
    assert refusal.status == status
    assert not any(word in refusal.message for word in (answer[1], "profiles", "s3", "127.0.0.1", CANARY))


async def test_with_the_server_away_everything_is_a_503(rig: Rig, fake: FakeBucket) -> None:
    """Each call says so; nothing hangs."""
    wanted, _ = await rig.put()
    fake.before = away
    async with rig.staged() as (part, _):
        for call in (
            rig.store.commit(part, wanted),
            rig.store.find(wanted.directory, wanted.file),
            rig.store.delete(wanted),
            rig.store.rewrite(wanted),
            rig.store.probe(),
            rig.listed(),
            rig.read(wanted),
        ):
            with pytest.raises(StoreAway) as raised:
                await call
            assert raised.value.refusal().status == 503


async def test_a_probe_that_gets_no_answer_ends(rig: Rig, fake: FakeBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, not in minutes."""
    from toe_async.collector import s3store

    monkeypatch.setattr(s3store, "_PROBE_SECONDS", 0.2)
    monkeypatch.setattr("toe_async.sinks.s3requests._GRACE_SECONDS", 0.1)
    never = asyncio.Event()

    async def silent(operation: str, key: str) -> Answer:
        await never.wait()
        return None

    fake.before = silent
    with pytest.raises(StoreAway, match=r"no answer within 0\.2 s"):
        await rig.store.probe()


async def test_without_credentials_the_way_out_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither workload identity nor file."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StoreAway, match="mount a shared credentials file"):
        await rig.store.probe()


async def test_reading_on_costs_few_requests_and_jumping_about_no_more_than_asked(rig: Rig, fake: FakeBucket) -> None:
    """A reader that goes on gets a mebibyte at a time; each range names the content of the opening."""
    wanted, _ = await rig.put(BIG)
    fake.requests.clear()
    fake.headers.clear()
    assert await rig.read(wanted) == BIG
    assert fake.count("Get") <= len(BIG) // (1 << 20) + 3
    etags = {
        headers["If-Match"]
        for (operation, _), headers in zip(fake.requests, fake.headers, strict=True)
        if operation == "Get"
    }
    assert len(etags) == 1
    fake.requests.clear()
    async with rig.store.open(wanted) as reader:
        for offset in (5_000_000, 3_000_000, 1_000_000):
            assert await reader.read(offset, 1000) == BIG[offset : offset + 1000]
        assert await reader.read(len(BIG), 1000) == b""
    assert fake.count("Get") == 3


async def test_a_range_is_asked_for_again_when_its_connection_breaks(rig: Rig, fake: FakeBucket) -> None:
    """Twice; what is wrong for good is told as the store's error."""
    wanted, _ = await rig.put()
    answers(fake, "Get", ".pprof", failure(503, "SlowDown"), failure(500, "InternalError"))
    assert await rig.read(wanted) == BODY
    answers(fake, "Get", ".pprof", *[failure(503, "SlowDown") for _ in range(3)])
    with pytest.raises(StoreAway):
        await rig.read(wanted)
    answers(fake, "Get", ".pprof", web.Response(status=206, body=b"too short"))
    with pytest.raises(StoreError, match="another range"):
        await rig.read(wanted)


async def test_bytes_fetched_ahead_are_bounded_for_all_readers_together(rig: Rig) -> None:
    """When the budget is used up a reader gets what it asks for, and closing gives back."""
    wanted, _ = await rig.put(BIG)
    budget = rig.store._ahead
    whole = budget._left
    async with rig.store.open(wanted) as reader:
        budget._left = 1 << 20
        async with rig.store.open(wanted) as other:
            for each in (reader, other):
                for at in (0, 1000, 2000):
                    assert await each.read(at, 1000) == BIG[at : at + 1000]
            assert budget._left == 0
    assert budget._left == 1 << 20
    budget._left = whole


@pytest.mark.parametrize("page", [1, 2, 3, 7, 1000])
async def test_a_listing_is_whole_wherever_its_pages_are_cut(rig: Rig, fake: FakeBucket, page: int) -> None:
    """An artifact and its manifest may come in two pages; what has no other half is not shown."""
    some = [(await rig.put(f"{n}".encode(), id=capture_id(n)))[0] for n in range(7)]
    fake.page = page
    fake.objects["a/b/.toe/probe-1"] = (b"", {})
    fake.objects["a/b/shop/x.manifest.json"] = (encode(some[0]), {})
    fake.objects["a/b/shop/alone"] = (b"x", {})
    fake.objects["a/bc/shop/not-ours.manifest.json"] = (b"{}", {})
    assert {one.capture for one in await rig.listed()} == {one.capture for one in some}


async def test_a_listing_tells_when_the_store_goes_away_in_its_middle(rig: Rig, fake: FakeBucket) -> None:
    """Rather than end early."""
    for n in range(5):
        await rig.put(f"{n}".encode(), id=capture_id(n))
    answers(fake, "Get", MANIFEST_SUFFIX, failure(403, "AccessDenied"))
    with pytest.raises(StoreAway):
        await rig.listed()


class Later:
    """A clock of the day after tomorrow."""

    def __init__(self, hours: int) -> None:
        self._now = NOW + timedelta(hours=hours)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 0.0


@pytest.mark.parametrize("page", [1, 2, 1000])
async def test_halves_are_removed_after_a_day_and_only_ours(rig: Rig, fake: FakeBucket, page: int) -> None:
    """Objects without manifest and manifests without object; what others made stays, whole ones too."""
    fake.page = page
    whole, _ = await rig.put()
    lonely, _ = await rig.put(b"2", id=capture_id(2))
    bare, _ = await rig.put(b"3", id=capture_id(3))
    del fake.objects[rig.key(lonely) + MANIFEST_SUFFIX]
    del fake.objects[rig.key(bare)]
    others: dict[str, tuple[bytes, dict[str, str]]] = {
        "a/b/readme": (b"x", {}),
        "a/b/x.manifest.json": (b"{}", {}),
        "a/b/.toe/probe-1": (b"", {}),
    }
    fake.objects |= others
    kept = {rig.key(whole), rig.key(whole) + MANIFEST_SUFFIX, *others}

    async def swept(hours: int) -> int:
        orphans = S3Orphans(rig.store, Later(hours))
        return sum([await orphans.sweep() for _ in range(12)])

    assert await swept(23) == 0
    assert set(fake.objects) == kept | {rig.key(lonely), rig.key(bare) + MANIFEST_SUFFIX}
    assert await swept(25) == 2
    assert set(fake.objects) == kept


async def test_a_half_that_is_completed_meanwhile_stays(rig: Rig, fake: FakeBucket) -> None:
    """Its manifest came between the listing and the removal."""
    wanted, _ = await rig.put()
    assert not await rig.store.discard_half(rig.key(wanted))
    assert not await rig.store.discard_half(rig.key(wanted) + MANIFEST_SUFFIX)
    assert len(fake.objects) == 2


@pytest.mark.slow
async def test_2000_manifests_are_listed_a_few_hundred_at_a_time(rig: Rig, fake: FakeBucket) -> None:
    """What is in memory is a page of the listing, not the store."""
    async with rig.staged(b"x") as (_, first):
        pass
    some: list[Manifest] = []
    for n in range(2000):
        one = replace(first, capture=capture_id(n), file=f"cart-{capture_id(n)[:10]}-heap.pprof")
        fake.objects[rig.key(one)] = (b"x", {})
        fake.objects[rig.key(one) + MANIFEST_SUFFIX] = (encode(one), {})
        some.append(one)
    sizes, seen = list[int](), set[str]()
    async for page in rig.store.manifests():
        sizes.append(len(page))
        seen |= {one.capture for one in page}
    assert seen == {one.capture for one in some}
    assert max(sizes) <= 250
    assert fake.count("List") == 4
