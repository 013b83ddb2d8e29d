"""Reading a form that a browser sent: small, plain, in time."""

import asyncio
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from toe_async.collector.errors import Refused

_LARGEST = 64 << 10  # a token of 16 KiB, every byte of it escaped, and some fields
_MOST_FIELDS = 16
_SECONDS = 15.0


async def read(request: web.Request) -> dict[str, str]:
    """The fields of a form, the last of each name.

    Raises:
        Refused: 400 it is none, 408 it came too slowly, 413 it is too big.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise Refused(400, "NotAForm", "this call takes a form as a browser sends it")
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            while piece := await request.content.readany():
                body += piece
                if len(body) > _LARGEST:
                    raise Refused(413, "TooBig", f"a form has at most {_LARGEST >> 10} KiB")
    except TimeoutError:
        raise Refused(408, "TooSlow", "the form came too slowly") from None
    except (RequestPayloadError, ConnectionError) as broken:
        raise Refused(400, "BrokenBody", "the form ended early") from broken
    try:
        text = bytes(body).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"))
    except ValueError:  # UnicodeDecodeError is one
        raise Refused(400, "NotAForm", "the form cannot be read") from None
