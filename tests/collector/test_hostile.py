"""Generated names in every field, header, query and path: nothing leaves the store, whatever is sent where."""

import asyncio
import contextlib
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.collector.rig import CAPTURE, PATH, READ, Collector, Start, capture_id, registration, wired
from toe_async.collector.settings import Limits
from toe_async.telemetry import log

T = TypeVar("T")

QUICK, LONG = 190, 2500
"""Of each of the four kinds: the quick runs make fifteen hundred with two seeds, the long one ten thousand."""
PIECES = [
    "..", ".", "/", "\\", "%2e%2e", "%2f", "..;/", "\0", "~", "$HOME", "`id`", "$(id)", "con", "NUL", "aux.txt",
    "a" * 300, "\u00e9", "e\u0301", "\u202egnp", "\u200b", "trailing.", " lead", "trail ", "\r\nX: y", "\x1b]0;x\x07",
    "C:", "file://", "..\\", "....//", "%00", "*", "?", "-rf", "--", "\u00fcn\u00efcode", "\ufb01", "\ufeff", "\ud7ff",
    "heap.pprof", ".manifest.json", ".part", ".toe", "etc/passwd", "proc/self/root", "{{7*7}}", "<script>", "'", '"',
    ";", "|", "&", "\t", "\n", "A", "0", CAPTURE, "..%c0%af", "%252e%252e%252f", "\uff0e\uff0e\uff0f", "index.sqlite",
]  # fmt: skip
FIELDS = [
    "id", "namespace", "run", "runUID", "kind", "pod", "podUID", "container", "node", "service", "tool", "reason",
    "trigger", "leaves", "label key", "label value", "triggeredAt", "expires", "maxBytes", "retentionDays",
]  # fmt: skip
HEADERS = [
    "Content-Range", "X-Toe-Sha256", "X-Toe-Size", "Content-Disposition", "Slug", "X-Original-URL", "X-Rewrite-URL",
    "X-Forwarded-Prefix", "X-Toe-Namespace", "X-HTTP-Method-Override", "Range", "If-Range", "Expect", "Host",
    "Authorization", "Content-Type", "Content-Encoding", "X-Remote-User", "Cookie", "Accept", "Destination",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), min_size=1, max_size=5).map("".join)
KNOWN = {0, 200, 201, 202, 400, 401, 403, 404, 405, 406, 409, 410, 411, 413, 415, 416, 417, 422}
"""Every answer that a client of ours may meet here; 0 is a connection that was ended. No 5xx is among them."""


def generated(strategy: st.SearchStrategy[T], count: int, number: int) -> list[T]:
    """The same examples in every run."""
    found: list[T] = []

    @seed(number)
    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(example: T) -> None:
        found.append(example)

    collect()
    return found


def tree(path: Path, *, without: Path) -> str:
    """A digest of every name, kind and content below a path, one folder left out."""
    state = hashlib.sha256()
    for one in sorted(path.rglob("*")):
        if one == without or without in one.parents:
            continue
        state.update(f"{one}|{one.lstat().st_mode}|{one.lstat().st_ino}".encode("utf-8", "surrogateescape"))
        if one.is_file():
            state.update(one.read_bytes())
    return state.hexdigest()


Attempt = Callable[[Collector, int, Any], Any]


async def raw(collector: Collector, method: str, target: bytes, lines: list[bytes], body: bytes = b"") -> int:
    """Send bytes that no client library would; the status, or 0 when the connection ended."""
    async with wired(collector) as wire:
        text = [method.encode() + b" " + target + b" HTTP/1.1", *lines, b"Content-Length: %d" % len(body), b"", body]
        with contextlib.suppress(ConnectionError):
            wire.writer.write(b"\r\n".join(text))
            await wire.writer.drain()
        try:
            answer = await wire.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        return int(answer.split()[1])


def line(name: str, value: str | bytes) -> bytes:
    return name.encode() + b": " + (value if isinstance(value, bytes) else value.encode())


def bearer(token: str) -> list[bytes]:
    return [b"Host: x", line("Authorization", f"Bearer {token}")]


REGISTRATIONS = st.tuples(st.sampled_from(FIELDS), TEXT)


async def register(collector: Collector, number: int, example: tuple[str, str]) -> int:
    """A field of a registration; what is harmless after all must be usable and stay inside."""
    name, text = example
    body = registration(id=capture_id(number))
    match name:
        case "leaves":
            body |= {"leaves": [text]}
        case "label key":
            body |= {"labels": {text: "x"}}
        case "label value":
            body |= {"labels": {"x": text}}
        case _:
            body |= {name: text}
    status, _ = await collector.ask("POST", "/v1/captures", collector.operator, json=body)
    if status == 201:
        path = f"/v1/captures/{body['id']}/artifacts/{quote(body['leaves'][0], safe='')}"
        status, answer = await collector.ask("PUT", path, collector.uploader(body["id"]), data=b"x")
        assert status == 201, answer
    return int(status)


PATHS = st.tuples(
    TEXT,
    TEXT,
    st.sampled_from(["", "/", "/%.;", "/%.;?#\\ "]),
    st.sampled_from(["PUT", "HEAD", "DELETE", "POST", "GET"]),
    st.sampled_from(["{0}", "/v1/captures/{0}/artifacts/{1}", PATH.replace("heap.pprof", "{1}"), "/v1/{0}/{1}"]),
)  # fmt: skip


async def address(collector: Collector, number: int, example: tuple[str, str, str, str, str]) -> int:
    """Anything as capture, leaf and path, quoted, half quoted and not quoted at all."""
    first, second, safe, method, form = example
    target = form.format(*(quote(text, safe=safe, errors="replace") for text in (first, second)))
    token = collector.operator if method in {"POST", "DELETE"} else collector.uploader()
    return await raw(collector, method, target.encode(), bearer(token), b"x" if method == "PUT" else b"")


async def header(collector: Collector, number: int, example: tuple[str, str]) -> int:
    """Anything in a header of an upload that would be fine without it."""
    name, text = example
    lines = [one for one in bearer(collector.uploader()) if not one.startswith(name.encode() + b":")]
    value = text.encode("utf-8", "replace")
    return await raw(collector, "PUT", PATH.encode(), [*lines, line(name, value)], b"bytes")


READS = st.tuples(
    TEXT, TEXT, st.sampled_from(["", "/", "/%.;"]), st.sampled_from(["GET", "DELETE", "HEAD", "PATCH"]),
    st.sampled_from(["", "/content", "/render"]), st.sampled_from(["run", "since", "continue", "limit", "labelSelector",
    "fieldSelector", "q", "as", "base", "sample", "namespace"]), st.booleans(),
)  # fmt: skip


async def read(collector: Collector, number: int, example: tuple[str, str, str, str, str, str, bool]) -> int:
    """Anything as namespace, name and query of the reading side."""
    namespace, name, safe, method, rest, key, ours = example
    where = "shop" if ours else quote(namespace, safe=safe, errors="replace")
    target = f"{READ}/{where}/artifacts/{quote(name, safe=safe, errors='replace')}{rest}"
    if rest and number % 2:
        target = f"{READ}/shop/artifacts"
    query = f"?{key}={quote(namespace, safe='', errors='replace')}"
    return await raw(collector, method, (target + query).encode(), bearer(collector.reader))


KINDS: dict[str, tuple[st.SearchStrategy[Any], Attempt]] = {
    "registrations": (REGISTRATIONS, register),
    "paths": (PATHS, address),
    "headers": (st.tuples(st.sampled_from(HEADERS), TEXT), header),
    "reads": (READS, read),
}


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the collector logs, as in a cluster."""
    stream, before, handlers = io.StringIO(), structlog.get_config(), logging.getLogger().handlers[:]
    log.configure("json", "info", stream)
    structlog.configure(**structlog.get_config() | {"cache_logger_on_first_use": False})
    yield stream
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "number"),
    [(QUICK, 1), (QUICK, 2), pytest.param(LONG, 3, marks=[pytest.mark.nightly, pytest.mark.timeout(300)])],
)
async def test_generated_names_leave_nothing_outside_the_root(
    start: Start, tmp_path: Path, lines: io.StringIO, kind: str, count: int, number: int
) -> None:
    """Every answer is one of the documented ones, none a crash, and each log line one JSON object."""
    strategy, attempt = KINDS[kind]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("untouched")
    examples = await asyncio.to_thread(generated, strategy, count, number)
    async with start(limits=Limits(header_seconds=1.0, body_grace_seconds=1.0)) as collector:
        await collector.register()
        before = tree(tmp_path, without=collector.root)
        statuses: dict[int, int] = {}
        for turn, example in enumerate(examples):
            status = await attempt(collector, turn, example)
            assert status in KNOWN, (status, example)
            statuses[status] = statuses.get(status, 0) + 1
        assert statuses.get(0, 0) < count / 2, statuses
        assert tree(tmp_path, without=collector.root) == before
        for path in collector.root.rglob("*"):
            assert not path.is_symlink()
            assert path.name.isascii()
            assert path.name.isprintable()
            assert not path.name.startswith((".", "-")) or path.name == ".toe"
    written = lines.getvalue().removesuffix("\n").split("\n")
    assert written
    for text in written:
        assert isinstance(json.loads(text), dict), text
    print(kind, len(examples), dict(sorted(statuses.items())))


@pytest.mark.parametrize("what", ["namespace", "labels", "run", "file", "manifest"])
async def test_a_planted_link_leads_nowhere(collector: Collector, tmp_path: Path, what: str) -> None:
    """Whoever can write to the volume still cannot make the collector write elsewhere: it fails, and says no path."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("untouched")
    before = tree(outside, without=collector.root)
    await collector.register()
    folder = collector.root / "shop" / "app.kubernetes.io%2Fname-cart,tier-web" / "hot-carts" / "2026" / "01" / "24"
    file = folder / "cart-7d9f-x2x4z-server-abcdefghij-heap.pprof"
    match what:
        case "namespace":
            (collector.root / "shop").symlink_to(outside)
        case "labels" | "run":
            place = folder.parents[3] if what == "run" else folder.parents[4]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(outside)
        case "file":
            folder.mkdir(parents=True)
            file.symlink_to(outside / "precious")
        case "manifest":
            folder.mkdir(parents=True)
            (folder / (file.name + ".manifest.json")).symlink_to(outside / "precious")
    status, error = await collector.put(b"x" * 100)
    if what == "manifest":
        assert status in {201, 500}
    else:
        assert (status, error["reason"]) == (500, "StoreFailed")
        assert str(tmp_path) not in str(error)
    assert tree(outside, without=collector.root) == before
    assert (outside / "precious").read_text() == "untouched"


async def test_artifacts_behind_planted_links_are_not_listed(start: Start, tmp_path: Path) -> None:
    """A scan of the store follows none."""
    async with start() as first:
        await first.register()
        await first.put(b"x" * 100)
        root = first.root
    (root / "shop").rename(tmp_path / "moved")
    (root / "shop").symlink_to(tmp_path / "moved")
    async with start() as second:
        status, listed = await second.ask("GET", f"{READ}/shop/artifacts", second.reader)
        assert (status, listed["items"]) == (200, [])


async def test_links_planted_between_requests_change_nothing(collector: Collector, tmp_path: Path) -> None:
    """Directories swapped for links while uploads run: each upload is stored inside or fails."""
    outside = tmp_path / "outside"
    outside.mkdir()
    stop = asyncio.Event()
    place = collector.root / "shop"

    async def swap() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            with contextlib.suppress(OSError):  # the collector makes and fills folders meanwhile
                place.rename(collector.root / f"aside-{turn}")
            with contextlib.suppress(OSError):
                place.symlink_to(outside)
            await asyncio.sleep(0.002)
            with contextlib.suppress(OSError):
                place.unlink()
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        group.create_task(swap())
        for number in range(40):
            capture = capture_id(number)
            await collector.register(id=capture)
            assert (await collector.put(b"x", capture=capture))[0] in {201, 500}
        stop.set()
    assert not list(outside.iterdir())
