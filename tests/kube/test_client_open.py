"""Answers that are read piece by piece together with their status and headers, as ranges of an artifact are."""

import pytest
from aiohttp import web

from tests.kube.fakeapi import FakeApi, refuse
from toe_async.kube.client import Client
from toe_async.kube.errors import ApiError
from toe_async.kube.requests import Request

PART = Request("GET", "/x", accept="*/*", headers=(("Range", "bytes=2-4"), ("Authorization", "Bearer forged")))


async def part(request: web.Request) -> web.StreamResponse:
    """Bytes 2 to 4 of six."""
    return web.Response(status=206, body=b"cde", headers={"Content-Range": "bytes 2-4/6", "ETag": '"e"'})


async def test_an_opened_answer_has_its_status_and_headers_before_its_body(api: FakeApi, client: Client) -> None:
    """What a range is of has to be known before its bytes are used."""
    api.answer(part)
    async with client.open(PART) as answer:
        assert (answer.status, answer.headers["content-range"]) == (206, "bytes 2-4/6")
        assert b"".join([piece async for piece in answer.pieces]) == b"cde"


async def test_a_request_s_own_headers_go_along_but_never_say_who_asks(api: FakeApi, client: Client) -> None:
    """Range is sent; Authorization stays the credentials' own."""
    api.answer(part)
    async with client.open(PART):
        pass
    assert api.seen[0].headers["Range"] == "bytes=2-4"
    assert api.seen[0].headers["Authorization"] == "Bearer t0"


async def test_a_head_tells_the_size_and_has_no_body(api: FakeApi, client: Client) -> None:
    """Its Content-Length is that of a body which never comes."""
    api.answer(part)
    async with client.open(Request("HEAD", "/x", accept="*/*")) as answer:
        assert answer.headers["Content-Length"] == "3"
        assert [piece async for piece in answer.pieces] == []


async def test_a_range_that_is_not_there_is_refused_at_the_start(api: FakeApi, client: Client) -> None:
    """416 is a refusal with the Status that came."""
    api.answer(refuse(416, "NoSuchRange"))
    with pytest.raises(ApiError) as raised:
        async with client.open(PART):
            raise AssertionError
    assert (raised.value.status, raised.value.reason) == (416, "NoSuchRange")
