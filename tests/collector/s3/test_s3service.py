"""The whole collector in front of a bucket, over real sockets."""

import contextlib
from collections.abc import AsyncIterator
from io import BytesIO

import pytest

from tests.collector.rig import CAPTURE, READ, Collector, Start
from tests.collector.s3.conftest import BODY
from tests.collector.s3.fake_bucket import FakeBucket
from tests.sinks.fake_s3 import Answer, hang_up
from toe_async.collector.errors import SettingsError


async def gone(operation: str, key: str) -> Answer:
    return await hang_up()


@pytest.fixture
async def collector(start: Start, fake: FakeBucket) -> AsyncIterator[Collector]:
    async with start(store_url=f"s3://profiles/a/b?endpoint={fake.url}&http=allow") as running:
        yield running


async def test_an_upload_goes_to_the_bucket_and_comes_back(collector: Collector, fake: FakeBucket) -> None:
    """Listed, read whole and by ranges, and deleted; on disk is only what is the collector's own."""
    await collector.register()
    assert (await collector.put(BODY))[0] == 201
    assert (await collector.put(BODY))[0] == 200
    assert (await collector.put(b"other"))[0] == 409
    assert len(fake.objects) == 2
    assert collector.files() == []
    assert collector.parts() == []
    status, listed = await collector.ask("GET", f"{READ}/shop/artifacts", collector.reader)
    (name,) = [one["metadata"]["name"] for one in listed["items"]]
    path = f"{READ}/shop/artifacts/{name}"
    async with collector.call("GET", f"{path}/content", collector.reader) as reply:
        assert (status, reply.status, await reply.read()) == (200, 200, BODY)
    async with collector.call("GET", f"{path}/content", collector.reader, {"Range": "bytes=10-19"}) as reply:
        assert (reply.status, await reply.read()) == (206, BODY[10:20])
    assert (await collector.ask("DELETE", path, collector.reader))[0] == 200
    assert fake.objects == {}


@pytest.mark.parametrize("failing", [{"Head", "Get", "Put"}, {"Put"}], ids=["before the body", "after it"])
async def test_while_the_bucket_is_away_uploads_are_told_to_come_again(
    collector: Collector, fake: FakeBucket, failing: set[str]
) -> None:
    """503 with the seconds to wait, and unready; pieces that came stay, and what is missing is enough to finish."""
    await collector.register()
    first, last = BODY[:4000], BODY[4000:]
    status, _ = await collector.put(first, headers={"Content-Range": f"bytes 0-{len(first) - 1}/*"})
    assert status == 202

    async def partly_away(operation: str, key: str) -> Answer:
        return await hang_up() if operation in failing else None

    fake.before = partly_away
    ending = {"Content-Range": f"bytes {len(first)}-{len(BODY) - 1}/{len(BODY)}"}
    path = f"/v1/captures/{CAPTURE}/artifacts/heap.pprof"
    async with collector.call("PUT", path, collector.uploader(), ending, data=BytesIO(last)) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (503, "10")
        assert (await reply.json())["reason"] == "StoreUnavailable"
    assert len(collector.parts()) == 1
    async with collector.call("GET", "/readyz") as reply:
        assert reply.status == 503
    fake.before = fake.nothing
    async with collector.call("HEAD", path, collector.uploader()) as reply:
        offset = int(reply.headers["Upload-Offset"])
    assert offset == (len(first) if "Head" in failing else len(BODY))
    missing = {"Content-Range": f"bytes {offset}-{len(BODY) - 1}/{len(BODY)}"}
    if offset == len(BODY):
        missing = {"Content-Range": f"bytes */{len(BODY)}"}
    assert (await collector.put(BODY[offset:], headers=missing))[0] == 201
    assert next(body for body, _ in fake.objects.values()) == BODY
    assert collector.parts() == []


@pytest.mark.slow  # it waits for seconds for the list that must not come
async def test_a_collector_starts_while_its_bucket_is_away(start: Start, fake: FakeBucket) -> None:
    """It is not ready, and says why; it does not fall into a loop of restarts."""
    fake.before = gone
    with contextlib.suppress(TimeoutError):
        async with start(store_url=f"s3://profiles?endpoint={fake.url}&http=allow"):
            raise AssertionError("a list was answered before the store was read")


async def test_a_url_that_is_none_is_told_at_the_start(start: Start) -> None:
    """Before anything is served."""
    with pytest.raises(SettingsError, match="only s3:// is known"):
        async with start(store_url="ftp://bucket"):
            pass
