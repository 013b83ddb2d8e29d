"""A client that outlives its keys: a workload identity that hands out a new one every time it is asked."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from tests.collector.s3.fake_bucket import FakeBucket
from tests.sinks.fake_s3 import Answer, serving
from toe_async.collector.s3connection import S3Connection
from toe_async.collector.store_url import parse_store_url
from toe_async.lib.clock import SystemClock


class Watch(SystemClock):
    """A clock that can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
async def identity_asked(monkeypatch: pytest.MonkeyPatch, identity: object) -> AsyncIterator[list[str]]:
    """An endpoint as Pod Identity has it; every key is a new one that ends soon. Yields what it handed out."""
    given: list[str] = []

    async def credentials(request: web.Request) -> web.Response:
        given.append(f"AKIA{len(given)}")
        end = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return web.json_response(
            {"AccessKeyId": given[-1], "SecretAccessKey": "geheim", "Token": "t", "Expiration": end}
        )

    app = web.Application()
    app.router.add_get("/credentials", credentials)
    async with serving(app) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
        yield given


async def test_a_new_key_is_used_while_requests_with_the_old_one_end(
    fake: FakeBucket, identity_asked: list[str]
) -> None:
    """Asked for every few minutes and not for each request; nothing is cut off by the change."""
    at_server, go_on = asyncio.Event(), asyncio.Event()

    async def slow(operation: str, key: str) -> Answer:
        if key == "slow":
            at_server.set()
            await go_on.wait()
        return None

    fake.before = slow
    watch = Watch()
    place = parse_store_url(f"s3://profiles?endpoint={fake.url}&http=allow")
    async with S3Connection(place, watch) as connection:

        async def put(key: str) -> None:
            await connection.requests.run(lambda s3: s3.put_object(Bucket="profiles", Key=key, Body=b"x"))

        await put("one")
        await put("two")
        slowly = asyncio.get_running_loop().create_task(put("slow"))
        await at_server.wait()
        watch.ahead += 300
        await put("three")
        go_on.set()
        await slowly
        await put("four")
    used = [re.search(r"Credential=(\w+)/", headers["Authorization"]) for headers in fake.headers]
    keys = dict(zip([key for _, key in fake.requests], [one[1] for one in used if one], strict=True))
    assert keys["one"] == keys["two"] == keys["slow"]
    assert keys["three"] == keys["four"] == identity_asked[-1]
    assert keys["one"] != keys["three"]
    assert set(fake.objects) == {"one", "two", "slow", "three", "four"}
