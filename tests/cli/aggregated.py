"""The aggregated API as an API server shows it, with whatever a test makes it do wrong; and the programs under test."""

import asyncio
import contextlib
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

API = "artifacts.toe.run/v1alpha1"
CAPTURE = "abcdefghijklmnopqrstuvwxyz234567"

Answer = Callable[[web.Request, "Kept"], Awaitable[web.StreamResponse]]


@dataclass
class Kept:
    """An artifact of the fake: its object and its bytes."""

    item: dict[str, Any]
    data: bytes


def artifact(name: str, data: bytes = b"", namespace: str = "shop", **held: Any) -> Kept:
    """An artifact as the collector describes it."""
    told = {
        "name": name, "leaf": "heap.pb.gz", "size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
        "capture": CAPTURE, "namespace": namespace, "run": "night", "kind": "ProfilingConfig", "pod": "web-0",
        "container": "app", "node": "n1", "service": "web", "tool": "pprof", "reason": "threshold-exceeded",
    }  # fmt: skip
    meta = {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-24T20:44:08Z", "resourceVersion": "7"}
    item = {"apiVersion": API, "kind": "Artifact", "metadata": meta, "artifact": {**told, **held}}
    return Kept(item, data)


def status(code: int, reason: str, message: str) -> web.Response:
    """A metav1.Status."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return web.json_response({**body, "message": message}, status=code)


@dataclass
class Aggregated:
    """Serves `kept` below the group. `on_content` takes over the bytes, `on_any` every request while it is set."""

    url: str = ""
    kept: list[Kept] = field(default_factory=list)
    seen: list[web.Request] = field(default_factory=list)
    page: int = 500
    on_content: Answer | None = None
    on_any: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
    rendered: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sent: int = 0
    holds: list[tuple[str, Any]] = field(default_factory=list)

    def put(self, *kept: Kept) -> None:
        self.kept += kept

    def targets(self) -> list[str]:
        """What was asked, as it was written."""
        return [f"{request.method} {request.raw_path}" for request in self.seen]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        if self.on_any is not None and (taken := await self.on_any(request)) is not None:
            return taken
        if request.path == "/api/v1/namespaces":
            names = sorted({k.item["metadata"]["namespace"] for k in self.kept})
            return web.json_response(
                {"kind": "NamespaceList", "items": [{"metadata": {"name": name}} for name in names]}
            )
        found = re.fullmatch(rf"/apis/{API}(?:/namespaces/([^/]+))?/artifacts(?:/([^/]+))?(?:/([a-z]+))?", request.path)
        if found is None:
            return web.Response(status=404, text="404 page not found\n")
        namespace, name, subresource = found[1], found[2], found[3]
        if name is None:
            return self._list(request, namespace)
        kept = next(
            (
                k
                for k in self.kept
                if (k.item["metadata"]["namespace"], k.item["metadata"]["name"]) == (namespace, name)
            ),
            None,
        )
        if kept is None:
            return status(404, "NotFound", f'artifacts.artifacts.toe.run "{name}" not found')
        match request.method, subresource:
            case "GET", None:
                return web.json_response(kept.item)
            case "GET", "content":
                return await (self.on_content or self.content)(request, kept)
            case "GET", "render":
                content_type, body = self.rendered[request.query["as"]]
                return web.Response(body=body, headers={"Content-Type": content_type})
            case "DELETE", None:
                self.kept.remove(kept)
                return web.json_response({"kind": "Status", "status": "Success", "details": {"name": name}})
            case "PATCH", None:
                self.holds.append((name, (await request.json())["metadata"]["annotations"]["toe.run/hold"]))
                return web.json_response(kept.item)
        return status(405, "MethodNotAllowed", "no")

    def _list(self, request: web.Request, namespace: str | None) -> web.Response:
        all_ = [k.item for k in self.kept if namespace in {None, k.item["metadata"]["namespace"]}]
        start, limit = int(request.query.get("continue", "0")), min(int(request.query.get("limit", "500")), self.page)
        part = all_[start : start + limit]
        meta = {"continue": str(start + limit)} if start + limit < len(all_) else {}
        return web.json_response({"apiVersion": API, "kind": "ArtifactList", "metadata": meta, "items": part})

    async def content(self, request: web.Request, kept: Kept, *, cut_after: int | None = None) -> web.StreamResponse:
        """The range that is asked for; broken off after so many bytes, as at the end of the API server's minute."""
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", request.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2])) if asked else (0, len(kept.data) - 1)
        part = kept.data[first : last + 1]
        if not part:
            return status(416, "NoSuchRange", "no such range")
        reply = web.StreamResponse(status=206 if asked else 200, headers=self.headers(kept))
        if asked:
            reply.headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(kept.data)}"
        reply.content_length = len(part)
        await reply.prepare(request)
        for at in range(0, len(part), 1 << 16):
            piece = part[at : at + (1 << 16)]
            if cut_after is not None:
                piece, cut_after = piece[:cut_after], cut_after - len(piece)
            await reply.write(piece)
            self.sent += len(piece)
            if cut_after is not None and cut_after <= 0:
                assert request.transport is not None
                request.transport.close()  # what is written still goes out
                return reply
        await reply.write_eof()
        return reply

    def headers(self, kept: Kept) -> dict[str, str]:
        """What comes with the bytes."""
        digest = kept.item["artifact"]["sha256"]
        return {
            "Content-Type": "application/octet-stream",
            "ETag": f'"{digest}"',
            "X-Toe-Sha256": str(digest),
            "Content-Disposition": 'attachment; filename="heap.pb.gz"',
        }


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Aggregated]:
    """Run a fake on a loopback port."""
    fake = Aggregated()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()


@dataclass
class Ran:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass
class Plugin:
    """Runs ``kubectl-toe`` as a process of its own, in a folder of its own."""

    home: Path
    kubeconfig: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), **more}

    async def start(
        self, *arguments: str, program: str = "main", environ: Mapping[str, str] | None = None, **options: Any
    ) -> asyncio.subprocess.Process:
        """Start it; stdout and stderr are pipes unless said otherwise."""
        code = f"from toe_async.cli.plugin.main import {program}; {program}()"
        pipes = {
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
            "stdin": asyncio.subprocess.DEVNULL,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            *arguments,
            cwd=self.home,
            env=environ or self.environment(),
            **{**pipes, **options},
        )

    async def run(self, *arguments: str, program: str = "main", **options: Any) -> Ran:
        """Run it to its end."""
        process = await self.start(*arguments, program=program, **options)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    def files(self, below: str = ".") -> Sequence[str]:
        """Everything in a folder, by its path from there."""
        folder = self.home / below
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_kubeconfig(path: Path, url: str, namespace: str = "shop") -> None:
    """A kubeconfig of two contexts of one server; `elsewhere` has another namespace."""
    contexts = [("here", namespace), ("elsewhere", "bank")]
    document = {
        "current-context": "here",
        "clusters": [{"name": "k", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t0"}}],
        "contexts": [{"name": n, "context": {"cluster": "k", "user": "u", "namespace": ns}} for n, ns in contexts],
    }
    path.write_text(yaml.safe_dump(document))
