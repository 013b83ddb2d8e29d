"""Artifacts in memory that are asked as the real ones are: the pages' tests run over this library.

It keeps the rules that pages depend on: rights before anything is looked up, newest first, at most 500 a page, opaque
tokens, field selectors with escapes, a held artifact refuses to go, and drawings come from the code that draws.
"""

import base64
import contextlib
import gzip
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from toe_async.collector.errors import Refused
from toe_async.collector.library import Body
from toe_async.lib.clock import parse_rfc3339, rfc3339
from toe_async.lib.durations import parse_duration
from toe_async.profiles.model import ProfileError
from toe_async.profiles.page import flame_page
from toe_async.profiles.parse import parse
from toe_async.profiles.top import top

LARGEST_PAGE = 500
NOW = datetime(2026, 1, 24, 3, 14, 7, tzinfo=UTC)
STACKS = (
    "main;net/http.(*conn).serve;main.handle;encoding/json.Marshal {a}\n"
    "main;net/http.(*conn).serve;main.handle;main.price;math/big.(*Int).Exp {b}\n"
    "main;net/http.(*conn).serve;main.handle;main.price;runtime.mallocgc {c}\n"
    "runtime.gcBgMarkWorker;runtime.gcDrain {d}\n"
)


def stacks(a: int = 40, b: int = 120, c: int = 30, d: int = 12) -> bytes:
    """A small profile as folded stacks."""
    return STACKS.format(a=a, b=b, c=c, d=d).encode()


@dataclass
class Held:
    """One artifact and its bytes."""

    namespace: str
    name: str
    at: datetime
    facts: dict[str, Any]
    content: bytes
    hold: str = ""

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        annotations = {"toe.run/hold": self.hold} if self.hold else {}
        meta = {"name": self.name, "namespace": self.namespace, "creationTimestamp": rfc3339(self.at)}
        return {
            "apiVersion": "artifacts.toe.run/v1alpha1",
            "kind": "Artifact",
            "metadata": meta | {"uid": self.name, "resourceVersion": "1", "annotations": annotations},
            "artifact": self.facts | {"hold": self.hold},
        }


@dataclass
class Shelf:
    """Everything there is, whoever asks."""

    held: list[Held] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    odd: list[dict[str, Any]] = field(default_factory=list)
    """Objects that come with every list and are not artifacts."""

    def put(
        self,
        leaf: str = "cpu.folded",
        *,
        namespace: str = "shop",
        pod: str = "web-1",
        run: str = "hot-web",
        ago: timedelta = timedelta(minutes=4),
        content: bytes | None = None,
        capture: str = "",
        size: int | None = None,
        hold: str = "",
        **facts: Any,
    ) -> Held:
        """Store one artifact; what is not given is what an ordinary one has."""
        body = stacks() if content is None else content
        at = NOW - ago
        identity = capture or _id(f"{namespace}{pod}{run}{at}")
        known = {
            "leaf": leaf, "size": len(body) if size is None else size, "sha256": hashlib.sha256(body).hexdigest(),
            "capture": identity, "labels": {"app": "web"}, "run": run, "runUID": f"uid-of-{run}",
            "kind": "ProfilingConfig", "pod": pod, "podUID": "0d8f1c52-6a0f-4a8e-9c3c-1f3a5b7c9d11", "container": "app",
            "node": "node-3", "service": "web", "tool": "pprof", "reason": "threshold",
            "trigger": "CPU 93 % of its limit, threshold 80 %", "triggeredAt": rfc3339(at - timedelta(seconds=20)),
        }  # fmt: skip
        name = f"{identity[:10]}-{re.sub('[^a-z0-9.]+', '-', leaf.lower()).strip('-.')}"
        one = Held(namespace, name, at, known | facts, body, hold)
        self.held.append(one)
        return one

    def find(self, namespace: str, name: str) -> Held:
        """One artifact; raises Refused (404)."""
        for one in self.held:
            if (one.namespace, one.name) == (namespace, name):
                return one
        raise Refused(404, "NotFound", f'artifacts.artifacts.toe.run "{name}" not found')

    def page(self, namespace: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page as the API gives it."""
        self.asked.append({"namespace": namespace, **query})
        wanted = sorted(
            (one for one in self.held if namespace in {"", one.namespace} and _fits(one, query)),
            key=lambda one: one.at,
            reverse=True,
        )
        start = _offset(query.get("continue", ""))
        limit = min(int(query.get("limit") or LARGEST_PAGE), LARGEST_PAGE)
        items, rest = wanted[start : start + limit], max(0, len(wanted) - start - limit)
        meta: dict[str, Any] = {"resourceVersion": "1"}
        if rest:
            meta |= {"continue": base64.urlsafe_b64encode(f"at {start + limit}".encode()).decode()}
            meta |= {"remainingItemCount": rest}
        return {"kind": "ArtifactList", "metadata": meta, "items": [*self.odd, *(one.shown() for one in items)]}


@dataclass
class Viewer:
    """The shelf as one viewer sees it: a Library. `"*"` among the namespaces is the right to see all."""

    shelf: Shelf
    namespaces_seen: frozenset[str] = frozenset({"*"})
    read_only: bool = False

    async def namespaces(self) -> list[str]:
        """Those with artifacts that may be listed."""
        return sorted({one.namespace for one in self.shelf.held if self._sees(one.namespace)})

    async def list(self, namespace: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page."""
        self._check("list", namespace or "*")
        return self.shelf.page(namespace, query)

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        self._check("get", namespace)
        return self.shelf.find(namespace, name).shown()

    def content(
        self, namespace: str, name: str, first: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[Body]:
        """Its bytes."""
        return self._content(namespace, name, first, end)

    @contextlib.asynccontextmanager
    async def _content(self, namespace: str, name: str, first: int, end: int | None) -> AsyncIterator[Body]:
        self._check("get", namespace)
        held = self.shelf.find(namespace, name)
        part = held.content[first:end]
        headers = {"ETag": f'"{held.facts["sha256"]}"', "X-Toe-Sha256": held.facts["sha256"]}
        if len(part) != len(held.content):
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(held.content)}"
        yield Body(
            content_type="application/octet-stream",
            size=len(part),
            filename=held.facts["leaf"],
            headers=headers,
            pieces=_pieces(part),
        )

    async def render(self, namespace: str, name: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        """A view of it, drawn by the code that draws."""
        other, _, rest = query.get("base", "").rpartition("/")
        wanted = [(namespace, name)] + ([(other or namespace, rest)] if query.get("base") else [])
        for one, _ in wanted:
            self._check("get", one)
        held = [self.shelf.find(*one) for one in wanted]
        try:
            return _drawn(held, query["as"], query.get("sample"))
        except ProfileError as bad:
            raise Refused(422, "NotAProfile", f"{name} cannot be drawn: {bad}") from bad

    async def delete(self, namespace: str, name: str) -> dict[str, Any]:
        """Remove it."""
        self._check("delete", namespace)
        held = self.shelf.find(namespace, name)
        if held.hold:
            raise Refused(409, "Conflict", f"{name} is held ({held.hold}); release it first")
        self.shelf.held.remove(held)
        return {"kind": "Status", "status": "Success"}

    async def hold(self, namespace: str, name: str, reason: str) -> dict[str, Any]:
        """Hold or release it."""
        self._check("patch", namespace)
        held = self.shelf.find(namespace, name)
        held.hold = reason
        return held.shown()

    def _sees(self, namespace: str) -> bool:
        return bool(self.namespaces_seen & {"*", namespace})

    def _check(self, verb: str, namespace: str) -> None:
        changing = verb in {"delete", "patch"}
        if not self._sees(namespace) or (changing and self.read_only):
            where = "in any namespace" if namespace == "*" else f"in namespace {namespace}"
            raise Refused(403, "Forbidden", f"you may not {verb} artifacts {where}; ask for that right there")


def busy_night(shelf: Shelf) -> None:
    """What an ordinary cluster has after a bad night."""
    triggers = (
        ("threshold", "CPU 93 % of its limit, threshold 80 %"),
        ("threshold", "memory 88 % of its limit, threshold 85 %"),
        ("anomaly", "CPU 4.2 times its own average of the last hour"),
        ("on-demand", "every 900 s"),
    )
    for number in range(14):
        reason, trigger = triggers[number % 4]
        ago = timedelta(minutes=3 + number * 37)
        pod = ("web-7c9d5b6f4-x2x8q", "web-7c9d5b6f4-mm4tz", "checkout-0")[number % 3]
        run = "checkout-heap" if pod == "checkout-0" else "hot-web"
        wave = (1, 4, 2, 7, 3, 9)[number % 6]
        shared: dict[str, Any] = {
            "pod": pod,
            "run": run,
            "ago": ago,
            "reason": reason,
            "trigger": trigger,
            "capture": _id(f"n{number}"),
        }
        shelf.put("cpu.folded", content=stacks(b=100 + 20 * wave), size=41_000 + wave * 9_300, **shared)
        if number % 3 != 1:
            shelf.put(
                "heap.pb.gz", content=gzip.compress(stacks(c=30 * wave)), size=1_250_000 + wave * 240_000, **shared
            )
        if number == 5:
            shelf.put("threads.txt", content=b"goroutine 1 [running]", size=18_204, **shared)
    shelf.held[4].hold = "INC-2041, kept for the review"
    shelf.put("cpu.folded", namespace="payments", pod="ledger-1", run="nightly", ago=timedelta(hours=30))


def many(shelf: Shelf, count: int) -> None:
    """A long list."""
    for number in range(count):
        shelf.put(pod=f"web-{number % 40}", ago=timedelta(seconds=30 * number + 60), size=20_000 + number % 97 * 900)


def _drawn(held: list[Held], view: str, sample: str | None) -> tuple[str, bytes]:
    profile, *base = (parse(one.content) for one in held)
    if view == "top":
        found = top(profile, sample, 1000)
        table = {"kind": found.kind, "total": found.total, "types": profile.sample_types, "rows": found.rows}
        return "application/json", msgspec.json.encode(table)
    facts = held[0].facts
    page = flame_page(
        profile, title=facts["leaf"], subtitle=facts["trigger"], sample=sample, base=base[0] if base else None
    )
    return "text/html", page


def _id(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:32]


def _offset(token: str) -> int:
    if not token:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("at "))
    except ValueError:
        raise Refused(410, "Expired", "the continue token is not of this list; begin again without one") from None


def _fits(one: Held, query: Mapping[str, str]) -> bool:
    facts = one.facts
    text = query.get("q", "").lower()
    searched = ("pod", "run", "leaf", "container", "service", "node", "reason", "trigger")
    return (
        (not text or any(text in facts[key].lower() for key in searched))
        and (not query.get("run") or query["run"] in {facts["run"], facts["runUID"]})
        and (not query.get("since") or one.at >= _instant(query["since"]))
        and (not query.get("until") or one.at < _instant(query["until"]))
        and all(facts[path.removeprefix("artifact.")] == value for path, value in _terms(query))
    )


def _instant(text: str) -> datetime:
    try:
        return parse_rfc3339(text)
    except ValueError:
        return NOW - parse_duration(text)


def _terms(query: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for part in re.findall(r"(?:[^\\,]|\\.)+", query.get("fieldSelector", "")):
        path, value = re.fullmatch(r"([^=]+)=((?:[^\\=,]|\\[\\,=])*)", part).groups()  # type: ignore[union-attr]
        yield path, re.sub(r"\\(.)", r"\1", value)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 100):
        yield content[at : at + 100]
