"""A small API server that says what a test tells it to, and the kubeconfig that leads to it."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from toe_async.kube.client import ClientSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, reason: str, message: str = "words", **details: Any) -> web.Response:
    """A metav1.Status as an API server sends it."""
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
    return web.json_response({**body, "details": details} if details else body, status=code)


@dataclass
class Seen:
    """One request as the server saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeApi:
    """Answers every request by the next handler of `script`, the last one again and again."""

    url: str = ""
    script: list[Handler] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    busy: int = 0

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def answer(self, *handlers: Handler) -> None:
        self.script = list(handlers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.method, request.raw_path, dict(request.headers), await request.read()))
        handler = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.busy += 1
        try:
            return await handler(request)
        finally:
            self.busy -= 1


def always(response: Callable[[], web.Response]) -> Handler:
    """A handler that makes the same answer each time."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return response()

    return handler


def fine(body: dict[str, Any] | None = None) -> Handler:
    """200 with JSON."""
    return always(lambda: web.json_response(body if body is not None else {"ok": True}))


def refuse(
    code: int, reason: str, message: str = "words", *, retry_after: str | None = None, **details: Any
) -> Handler:
    """An error answer with a Status."""

    def response() -> web.Response:
        answer = status(code, reason, message, **details)
        if retry_after is not None:
            answer.headers["Retry-After"] = retry_after
        return answer

    return always(response)


async def reset(request: web.Request) -> web.StreamResponse:
    """Drop the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@contextlib.asynccontextmanager
async def serving(api: FakeApi, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[FakeApi]:
    """Run the server on a loopback port."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        host, bound = runner.addresses[0][:2]
        api.url = f"{'https' if tls else 'http'}://{host}:{bound}"
        yield api
    finally:
        await runner.cleanup()


class Kubeconfig:
    """Writes a kubeconfig of one context."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(
        self, server: str, user: Mapping[str, Any] | None = None, cluster: Mapping[str, Any] | None = None
    ) -> ClientSettings:
        document = {
            "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": server, **(cluster or {})}}],
            "users": [{"name": "u", "user": dict(user or {})}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }
        self.path.write_text(yaml.safe_dump(document))
        return ClientSettings(kubeconfig=str(self.path), user_agent="toe-async/test")


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def exec_credential(**given: str) -> str:
    """What a plugin prints."""
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": given}
    return json.dumps(answer)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; the test's own timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.001)
