"""Captures of tools against the real collector: registered once, asked again, cancelled, uploaded to by ticket."""

import hashlib
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from tests.sinks.test_collector import FakeApi, access, collector
from toe_async.apis.captures import CaptureRecord, NotStored, Standing
from toe_async.apis.kinds import POWER_TOOLS
from toe_async.apis.reasons import Reason
from toe_async.kube.errors import Forbidden
from toe_async.lib.clock import SystemClock
from toe_async.sinks.toolcaptures import ToolCaptures, ToolTicket

BODY = b"what the tool found"
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def record(make_record: Callable[..., CaptureRecord]) -> CaptureRecord:
    """A run of tcpdump."""
    return replace(
        make_record(), group=POWER_TOOLS.group, kind="PowerTool", name="look", reason="on-demand", tool="tcpdump"
    )


class Rig:
    """The client side, its API server and the collector's address."""

    def __init__(self, api: FakeApi, captures: ToolCaptures, url: str, root: Path, token_file: Path) -> None:
        self.api, self.captures, self.url, self.root, self.token_file = api, captures, url, root, token_file

    async def register(self, record: CaptureRecord, **details: str) -> Standing:
        expires = datetime.now(UTC) + timedelta(hours=1)
        told = await self.captures.register(record, expires=expires, details=details)
        assert isinstance(told, Standing), told
        return told

    async def upload(self, record: CaptureRecord, ticket: ToolTicket, leaf: str = "dump.pcap") -> int:
        """As a tool does; the collector's status."""
        token = await ticket.token(anew=False)
        assert isinstance(token, str)
        path = f"{self.url}/v1/captures/{record.id}/artifacts/{leaf}"
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as http, http.put(path, data=io.BytesIO(BODY), headers=headers) as reply:
            return reply.status


@asynccontextmanager
async def rigged(tmp_path: Path) -> AsyncIterator[Rig]:
    api, root = FakeApi(), tmp_path / "root"
    async with collector(api, root) as url:
        given = access(url, tmp_path)
        async with ToolCaptures(api, given, SystemClock()) as captures:
            assert given.token_file is not None
            yield Rig(api, captures, url, root, given.token_file)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rigged(tmp_path) as made:
        yield made


async def test_registering_again_tells_what_the_tool_has_stored(rig: Rig, record: CaptureRecord) -> None:
    """Under the address by which users read it."""
    assert await rig.register(record, arguments="tcpdump -i any") == Standing(state="Open")
    async with rig.captures.hold(record.id) as ticket:
        assert await rig.upload(record, ticket) == 201
    told = await rig.register(record, imageDigest="sha256:77")
    (stored,) = told.artifacts
    assert (stored.leaf, stored.size, stored.sha256) == ("dump.pcap", len(BODY), SHA)
    assert stored.uri == f"/apis/artifacts.toe.run/v1alpha1/namespaces/shop/artifacts/{record.id[:10]}-dump.pcap"
    manifest = next(rig.root.rglob("*.manifest.json")).read_text()
    assert '"arguments":"tcpdump -i any"' in manifest
    assert '"tool":"tcpdump"' in manifest


async def test_a_cancelled_capture_takes_nothing_more(rig: Rig, record: CaptureRecord) -> None:
    """What it has stays; a capture that the collector does not know is cancelled as well as can be."""
    await rig.register(record)
    async with rig.captures.hold(record.id) as ticket:
        assert await rig.upload(record, ticket) == 201
        assert await rig.captures.cancel(record.id) is None
        assert await rig.upload(record, ticket, "more.pcap") == 403
    told = await rig.register(record)
    assert (told.state, len(told.artifacts)) == ("Cancelled", 1)
    assert await rig.captures.cancel("b" * 32) is None


async def test_a_ticket_ends_with_its_block_unless_it_is_left(rig: Rig, record: CaptureRecord) -> None:
    """Left behind, its tokens live on for who goes on with the capture; he takes it back in the end."""
    async with rig.captures.hold(record.id) as ticket:
        assert await ticket.token(anew=False)
        assert len(rig.api.secrets) == 1
    assert not rig.api.secrets
    async with rig.captures.hold(record.id) as ticket:
        first = await ticket.token(anew=False)
        ticket.leave()
    assert len(rig.api.secrets) == 1
    async with rig.captures.hold(record.id) as ticket:
        assert await ticket.token(anew=False) != first
    assert not rig.api.secrets


async def test_a_refused_token_is_replaced_by_one_of_a_new_secret(rig: Rig, record: CaptureRecord) -> None:
    """Somebody deleted the Secret: the same token again would never do."""
    async with rig.captures.hold(record.id) as ticket:
        first = await ticket.token(anew=False)
        rig.api.secrets.clear()
        assert await ticket.token(anew=False) == first
        assert await ticket.token(anew=True) != first
        assert len(rig.api.secrets) == 1


async def test_what_goes_wrong_is_a_value(rig: Rig, record: CaptureRecord) -> None:
    """Another one's id, a token that may not be made, no token of our own."""
    await rig.register(record)
    taken = await rig.captures.register(
        replace(record, name="other"), expires=datetime.now(UTC) + timedelta(hours=1), details={}
    )
    assert isinstance(taken, NotStored)
    assert (taken.reason, taken.final) == (Reason.CONFLICTED, True)
    rig.api.errors["POST token"] = Forbidden(403, "Forbidden", "no")
    async with rig.captures.hold(record.id) as ticket:
        told = await ticket.token(anew=False)
    assert isinstance(told, NotStored)
    assert (told.reason, told.final) == (Reason.NOT_AUTHORIZED, False)
    rig.token_file.write_text("")
    cancelled = await rig.captures.cancel(record.id)
    assert isinstance(cancelled, NotStored)
    assert cancelled.reason is Reason.CREDENTIALS_MISSING


async def test_a_collector_that_is_away_is_worth_another_try(tmp_path: Path, record: CaptureRecord) -> None:
    """Nothing listens there, or something that is no collector."""
    async with ToolCaptures(FakeApi(), access("http://127.0.0.1:9", tmp_path), SystemClock()) as captures:
        told = await captures.register(record, expires=datetime.now(UTC) + timedelta(hours=1), details={})
    assert isinstance(told, NotStored)
    assert not told.final
