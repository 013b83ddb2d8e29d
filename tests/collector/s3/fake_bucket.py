"""A bucket with what a store needs besides the sinks' server: ranges, conditions, deletions, listings."""

import hashlib
import re
from xml.sax.saxutils import escape

from aiohttp import web

from tests.sinks.fake_s3 import FakeS3, failure


class FakeBucket(FakeS3):
    """Keeps S3's rules for one bucket; `page` keys at most come with one listing."""

    page = 1000
    modified = "2026-01-04T12:00:00Z"

    def operation(self, request: web.Request) -> str:
        return "List" if "list-type" in request.query else super().operation(request)

    def act(self, operation: str, key: str, request: web.Request, body: bytes) -> web.Response:
        if operation == "List":
            return self._list(
                request.query.get("prefix", ""),
                request.query.get("continuation-token") or request.query.get("start-after", ""),
            )
        if operation == "Delete":
            self.objects.pop(key, None)
            return web.Response(status=204)
        held = self.objects.get(key)
        wanted = request.headers.get("If-Match")
        if wanted is not None and (held is None or wanted != etag(held[0])):
            return failure(412, "PreconditionFailed") if held else failure(404, "NoSuchKey")
        if held is None or operation not in {"Get", "Head"}:
            return super().act(operation, key, request, body)
        data, headers = (
            held[0],
            {"ETag": etag(held[0])} | {f"x-amz-meta-{name}": value for name, value in held[1].items()},
        )
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if asked is None:
            return web.Response(body=data, headers=headers)
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return web.Response(status=206, body=data[first : last + 1], headers=headers)

    def _list(self, prefix: str, after: str) -> web.Response:
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        shown, more = keys[: self.page], len(keys) > self.page
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key][0])}</Size>"
            f"<LastModified>{self.modified}</LastModified></Contents>"
            for key in shown
        )
        token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
