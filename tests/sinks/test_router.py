"""All sinks behind one object."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.sinks.fake_s3 import FakeS3
from toe_async.apis.captures import CaptureRecord, CollectorRef, S3Ref
from toe_async.apis.reasons import Reason
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.sinks.allow import AllowList, parse_policy
from toe_async.sinks.errors import SinkRefused, SinkUnavailable
from toe_async.sinks.router import Sinks
from toe_async.sinks.spool import SpoolEntry

MakeRecord = Callable[..., CaptureRecord]
MakeEntry = Callable[..., Awaitable[SpoolEntry]]

DEAD = "http://127.0.0.1:9"


class NoApi:
    """Nothing here gets as far as the API server."""

    async def send(self, request: Request) -> bytes:
        raise AssertionError(request)


@pytest.fixture
async def sinks(s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sinks]:
    """The fake store is listed for namespace `shop`; the collector is away."""
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id=a\naws_secret_access_key=b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    (tmp_path / "token").write_text("operator")
    listed = f"s3: [{{endpoint: '{s3.url}', namespaces: [shop], buckets: [profiles], allowHTTP: true}}]"
    async with Sinks(
        NoApi(),
        AllowList(parse_policy(listed), DEAD),
        clock=SystemClock(),
        collector_ca=None,
        collector_token=tmp_path / "token",
        agents_namespace="toe-agents",
        uploader="toe-uploader",
    ) as sinks:
        yield sinks


async def test_an_artifact_goes_where_its_record_says(
    sinks: Sinks, s3: FakeS3, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """S3 when it is listed, the collector when it is named; completing an S3 capture asks nobody."""
    here = S3Ref(bucket="profiles", endpoint=s3.url)
    entry = await spooled(make_record(sink=here))
    receipt = await sinks.store(entry, again=False)
    assert receipt.uri.startswith("s3://profiles/2026")
    await sinks.complete(entry.record, (entry.artifact,))
    assert await sinks.probe(here, "shop") is None
    there = CollectorRef(endpoint="")
    with pytest.raises(SinkUnavailable, match="collector"):
        await sinks.store(await spooled(make_record("c", sink=there)), again=False)
    assert "collector" in (await sinks.probe(there, "shop") or "")


async def test_what_is_not_listed_is_refused_before_anything_is_sent(
    sinks: Sinks, s3: FakeS3, spooled: MakeEntry, make_record: MakeRecord
) -> None:
    """SinkNotAllowed, with the line to add; the list is asked again at each delivery."""
    elsewhere = S3Ref(bucket="profiles", endpoint="https://elsewhere.example.org")
    entry = await spooled(make_record(sink=elsewhere))
    for refused in (entry, replace(entry, record=make_record(namespace="other", sink=elsewhere))):
        with pytest.raises(SinkRefused, match="endpoint") as caught:
            await sinks.store(refused, again=False)
        assert caught.value.reason == Reason.SINK_NOT_ALLOWED
    assert "can add under s3" in (await sinks.probe(elsewhere, "shop") or "")
    assert "can add under s3" in (await sinks.probe(S3Ref(bucket="profiles", endpoint=s3.url), "other") or "")
    assert s3.requests == []
