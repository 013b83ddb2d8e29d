"""An S3 server that keeps the rules that matter here, and can be told to break its word."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from multidict import CIMultiDictProxy

Headers = CIMultiDictProxy[str]
Answer = web.StreamResponse | None

CANARY = "canary-3f9a-session-token"


def failure(status: int, code: str, **headers: str) -> web.Response:
    """Answer as S3 does; the message holds a secret, as a hostile server's might."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>you sent {CANARY}</Message></Error>"
    return web.Response(status=status, text=body, content_type="application/xml", headers=headers)


class FakeS3:
    """Keeps the rules of S3 that matter here, notes every request, and lets `before` and `after` answer instead."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: list[Headers] = []
        self.before: Callable[[str, str], Awaitable[Answer]] = self.nothing
        self.after: Callable[[str, str], Awaitable[Answer]] = self.nothing
        self.url = ""

    async def nothing(self, operation: str, key: str) -> Answer:
        return None

    def count(self, operation: str) -> int:
        return sum(1 for name, _ in self.requests if name == operation)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info.get("key", "")
        operation = self.operation(request)
        self.requests.append((operation, key))
        self.headers.append(request.headers)
        if (answer := await self.before(operation, key)) is not None:
            return answer
        body = await request.read()
        reply = self.act(operation, key, request, body)
        return await self.after(operation, key) or reply

    def operation(self, request: web.Request) -> str:
        if "uploads" in request.query:
            return "Create"
        multipart = "uploadId" in request.query
        names = {
            "PUT": "Part" if multipart else "Put",
            "POST": "Complete",
            "DELETE": "Abort" if multipart else "Delete",
        }
        return names.get(request.method, request.method.title())

    def act(self, operation: str, key: str, request: web.Request, body: bytes) -> web.Response:
        upload_id = request.query.get("uploadId", "")
        metadata = {
            name.lower().removeprefix("x-amz-meta-"): value
            for name, value in request.headers.items()
            if name.lower().startswith("x-amz-meta-")
        }
        if operation in {"Head", "Get"}:
            if key not in self.objects:
                return failure(404, "NoSuchKey")
            data, held = self.objects[key]
            about = {f"x-amz-meta-{name}": value for name, value in held.items()}
            return web.Response(body=data, headers=about)
        if operation == "Create":
            upload_id = f"upload-{len(self.requests)}"
            self.uploads[upload_id] = (key, metadata, {})
            return web.Response(text=f"<R><UploadId>{upload_id}</UploadId></R>", content_type="application/xml")
        if operation == "Abort":
            return web.Response(status=204) if self.uploads.pop(upload_id, None) else failure(404, "NoSuchUpload")
        if operation in {"Part", "Complete"} and upload_id not in self.uploads:
            return failure(404, "NoSuchUpload")
        if operation == "Part":
            self.uploads[upload_id][2][int(request.query["partNumber"])] = body
            return web.Response(headers={"ETag": '"part"'})
        if request.headers.get("If-None-Match") == "*" and key in self.objects:
            return failure(412, "PreconditionFailed")
        if operation == "Complete":
            _, metadata, parts = self.uploads.pop(upload_id)
            body = b"".join(parts[number] for number in sorted(parts))
            self.objects[key] = (body, metadata)
            return web.Response(text="<R><ETag>x</ETag></R>", content_type="application/xml")
        assert operation == "Put"
        self.objects[key] = (body, metadata)
        return web.Response(headers={"ETag": '"x"'})


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on loopback."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, lingering_time=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def hang_up() -> web.StreamResponse:
    """End the request without an answer."""
    raise ConnectionResetError
