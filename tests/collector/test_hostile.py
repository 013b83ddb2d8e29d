"""Generated names in every field: nothing leaves the store, whatever is sent where."""

import asyncio
import contextlib
import hashlib
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.collector.rig import CAPTURE, READ, Collector, Start, capture_id, registration

SEED, COUNT = 20260124, 2000
PIECES = [
    "..", ".", "/", "\\", "%2e%2e", "%2f", "..;/", "\0", "~", "$HOME", "`id`", "$(id)", "con", "NUL", "aux.txt",
    "a" * 300, "é", "e\u0301", "\u202egnp", "\u200b", "trailing.", " lead", "trail ", "\r\nX: y", "\x1b]0;x\x07", "C:",
    "file://", "..\\", "....//", "%00", "*", "?", "-rf", "--", "ünïcode", "\ufb01", "\ufeff", "\ud7ff", "heap.pprof",
    ".manifest.json", ".part", ".toe", "etc/passwd", "proc/self/root", "{{7*7}}", "<script>", "'", '"', ";", "|", "&",
    "\t", "\n", "A", "0",
]  # fmt: skip
FIELDS = [
    "id", "namespace", "run", "runUID", "kind", "pod", "podUID", "container", "node", "service", "tool", "reason",
    "trigger", "leaves", "label key", "label value",
]  # fmt: skip


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


def hostile(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 5)))


def bad_registration(rng: random.Random, number: int) -> dict[str, Any]:
    name, text = rng.choice(FIELDS), hostile(rng)
    body = registration(id=capture_id(number))
    match name:
        case "leaves":
            return body | {"leaves": [text]}
        case "label key":
            return body | {"labels": {text: "x"}}
        case "label value":
            return body | {"labels": {"x": text}}
        case _:
            return body | {name: text}


@pytest.mark.slow
async def test_two_thousand_hostile_names_leave_nothing_outside_the_root(start: Start, tmp_path: Path) -> None:
    """At registration, at upload and at reading; every answer is one of the documented ones, none a crash."""
    rng = random.Random(SEED)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("untouched")
    async with start() as collector:
        await collector.register()
        token, before = collector.uploader(), tree(tmp_path, without=collector.root)
        statuses: set[int] = set()
        for number in range(COUNT):
            statuses.add(await _one(collector, rng, number, token))
        assert tree(tmp_path, without=collector.root) == before
        assert statuses <= {200, 201, 400, 401, 403, 404, 405, 409}, statuses
        for path in collector.root.rglob("*"):
            assert not path.is_symlink()
            assert path.resolve().is_relative_to(collector.root.resolve())
            name = path.name
            assert name.isascii()
            assert name.isprintable()
            assert not name.startswith((".", "-")) or name == ".toe"


async def _one(collector: Collector, rng: random.Random, number: int, token: str) -> int:
    """One attempt of one kind."""
    match number % 4:
        case 0 | 1:
            body = bad_registration(rng, number)
            status, answer = await collector.ask("POST", "/v1/captures", collector.operator, json=body)
            if status == 201:  # harmless after all, then it must be usable and stay inside
                leaf = body["leaves"][0]
                path = f"/v1/captures/{body['id']}/artifacts/{quote(leaf, safe='')}"
                status, answer = await collector.ask("PUT", path, collector.uploader(body["id"]), data=b"x")
                assert status == 201, answer
            return status
        case 2:
            leaf = quote(hostile(rng), safe=rng.choice(["", "/", "/%.;"]))
            capture = CAPTURE if rng.random() < 0.7 else quote(hostile(rng), safe="")
            headers = {"X-Toe-Namespace": "../../outside", "X-Original-URL": "/../outside", "Slug": "../x"}
            return (
                await collector.ask(
                    "PUT", f"/v1/captures/{capture}/artifacts/{leaf}", token, data=b"x", headers=headers
                )
            )[0]
        case _:
            names = [quote(hostile(rng), safe=rng.choice(["", "/"])) for _ in range(2)]
            path = f"{READ}/{names[0] if rng.random() < 0.5 else 'shop'}/artifacts/{names[1]}"
            method = rng.choice(["GET", "DELETE"])
            return (await collector.ask(method, path + rng.choice(["", "/content"]), collector.reader))[0]


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
