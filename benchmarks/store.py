"""What finding and removing artifacts costs when there are many: lists, a janitor's pass, a start, memory.

``python -m benchmarks.store [--quick | --full]``: 50,000 artifacts, 2,000 or a million. The index is built by the
collector's own code from generated manifests, then asked as the read API asks it: pages of 500 at random places of a
namespace's list and of all of them, and pages of a label that one artifact in a thousand has, which look at 2,000 rows
each and go on with the next page. The janitor's pass is one with 1,000 artifacts over their namespace's count (a fifth
of that with --quick); removing the bytes themselves is left out everywhere.

Baselines: a list of all manifests in memory, filtered and sorted for each page; and the manifests as files, read for
each page (not for a million). Every row is of a fresh process, and its memory the peak above what it had before.
"""

import argparse
import asyncio
import hashlib
import math
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Column, kept_folder, memory, say, service, table, this, told

if TYPE_CHECKING:
    from toe_async.collector.artifacts import Reader
    from toe_async.collector.captures import Manifest
    from toe_async.collector.parts import Part

OURS, IN_MEMORY, FILES = "toe-async", "sorted in memory", "read from files"
LISTS = (
    Column("page p50 ms", 1),
    Column("page p99 ms", 1),
    Column("page CPU ms", 1),
    Column("label p50 ms", 1),
    Column("label p99 ms", 1),
    Column("label CPU ms", 1),
)
UPKEEP = (
    Column("build s", 1),
    Column("build CPU s", 1),
    Column("idle pass ms", 1),
    Column("pass ms"),
    Column("RSS MB"),
)
LISTS_LIMIT = (
    "Limit: a page is 500 rows found by key and their manifests decoded; a label's page is 2,000 rows looked at, with "
    "a token to go on after them."
)
UPKEEP_LIMIT = (
    "Limit: a build is one look-up or insertion into six indexes for each manifest (and here making the manifest); a "
    "pass is two questions for each namespace; memory is SQLite's bounded caches and the pages in hand."
)
NAMESPACES = 40
PAGE = 500
_NOW = datetime(2026, 6, 1, tzinfo=UTC)
_SPAN = timedelta(days=7)
_MOST_FILES = 100_000
_YIELDED = 250


# ---- the data --------------------------------------------------------------------------------------------------------


def manifest(number: int, count: int) -> "Manifest":
    """One artifact: a namespace holds each 40th, the youngest has the highest number."""
    from toe_async.collector.captures import Manifest

    mark = hashlib.sha256(str(number).encode()).hexdigest()
    namespace, service_ = f"team-{number % NAMESPACES}", f"service-{number // 7 % 400}"
    capture = f"{number:010d}".translate(str.maketrans("0123456789", "abcdefghij")) + "z" * 22
    pod, stored = f"{service_}-{mark[:9]}-{mark[9:14]}", _NOW - _SPAN * (1 - number / count)
    rare = {"canary": "yes"} if number // NAMESPACES % 1000 == 0 else {}
    labels = {"app.kubernetes.io/name": service_, "tier": ("web", "worker")[number % 2], **rare}
    run = f"hot-{number // 7 % 200}"
    uid = hashlib.sha256(f"{namespace}/{run}".encode()).hexdigest()
    return Manifest(
        name=f"{capture[:10]}-cpu.pprof", leaf="cpu.pprof", size=number % 500_000 + 1, sha256=mark, stored_at=stored,
        directory=(namespace, f"app.kubernetes.io%2Fname-{service_},tier-web", run, "2026", "05", f"{stored.day:02d}"),
        file=f"{pod}-server-{capture[:10]}-cpu.pprof", capture=capture, namespace=namespace, labels=labels, run=run,
        run_uid=f"{uid[:8]}-{uid[8:12]}-4000-8000-{uid[12:24]}", kind="ProfilingConfig", pod=pod, pod_uid=mark[:36],
        container="server", node=f"node-{number % 250}", service=service_, tool="pprof", reason="threshold-exceeded",
        trigger="cpu at 93.1 % of its request of 500m, above 80 %", triggered_at=stored,
    )  # fmt: skip


def manifests(count: int) -> Iterator["Manifest"]:
    """All of them, a namespace after the other, as a walk over the folders finds them."""
    for namespace in range(NAMESPACES):
        for number in range(namespace, count, NAMESPACES):
            yield manifest(number, count)


class Generated:
    """A backend whose manifests are made when they are asked for, and whose artifacts are never there."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def manifests(self) -> AsyncIterator[list["Manifest"]]:
        """All of them."""
        batch = []
        for one in manifests(self._count):
            batch.append(one)
            if len(batch) == _YIELDED:
                yield batch
                batch = []
        yield batch

    async def find(self, directory: tuple[str, ...], file: str) -> "Manifest | None":
        """Nothing is there any more when the janitor looks."""

    async def delete(self, manifest: "Manifest") -> None:
        """Nothing to remove."""

    async def commit(self, part: "Part", manifest: "Manifest") -> "Manifest":
        """Nothing is stored."""
        raise NotImplementedError

    def open(self, manifest: "Manifest") -> "AbstractAsyncContextManager[Reader]":
        """Nothing can be read."""
        raise NotImplementedError

    async def rewrite(self, manifest: "Manifest") -> None:
        """Nothing can be changed."""
        raise NotImplementedError

    async def free_bytes(self) -> int:
        """Any number."""
        return 1 << 40

    async def probe(self) -> None:
        """Always well."""


# ---- what is measured ------------------------------------------------------------------------------------------------


class Asked:
    """The same questions in the same order for everybody: where each page begins."""

    def __init__(self, pages: int) -> None:
        rng = random.Random(7)
        self.places = [(f"team-{rng.randrange(NAMESPACES)}", _NOW - _SPAN * rng.random() * 0.9) for _ in range(pages)]
        self.places[::4] = [("", until) for _, until in self.places[::4]]


async def times(pages: list[tuple[str, datetime]], ask: Callable[[str, datetime], Awaitable[int]]) -> list[float]:
    """Milliseconds of the median page and of the 99th in a hundred, and processor milliseconds of the mean one."""
    took, cpu = [], time.process_time()
    for namespace, until in pages:
        begin = time.perf_counter()
        await ask(namespace, until)
        took.append((time.perf_counter() - begin) * 1e3)
    ordered = sorted(took)
    p50, p99 = (ordered[math.ceil(len(ordered) * share) - 1] for share in (0.5, 0.99))
    return [p50, p99, (time.process_time() - cpu) * 1e3 / len(pages)]


async def ours(count: int, folder: Path, pages: int, due: int) -> None:
    """The catalog."""
    from toe_async.apis.selectors import parse
    from toe_async.collector.catalog import Query, open_catalog
    from toe_async.collector.catalog.janitor import Janitor
    from toe_async.collector.catalog.policy import Policies
    from toe_async.collector.disk import Disk
    from toe_async.lib.clock import SystemClock
    from toe_async.telemetry import log

    log.configure("json", "error")
    clock, disk, store = SystemClock(), Disk(), Generated(count)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(disk.close)
        catalog = await stack.enter_async_context(open_catalog(folder / "index.sqlite", disk, clock))
        before, begin, cpu = memory(os.getpid(), "VmRSS"), time.perf_counter(), time.process_time()
        await catalog.build(store)
        built = [time.perf_counter() - begin, time.process_time() - cpu]
        rare = parse("canary=yes")

        async def page(namespace: str, until: datetime) -> int:
            return len((await catalog.page(Query(namespace=namespace, until=until), PAGE, "")).entries)

        async def label(namespace: str, until: datetime) -> int:
            return len((await catalog.page(Query(namespace=namespace, until=until, labels=rare), PAGE, "")).entries)

        places = Asked(pages).places
        lists = [*await times(places, page), *await times(places, label)]
        config = folder / "config"
        config.mkdir()
        policies = Policies(config)
        janitor = Janitor(catalog, store, policies, clock)
        passes = []
        for removed in (0, due // NAMESPACES):
            (config / "retention").write_text(f"default: {{count: {count // NAMESPACES - removed}}}")
            policies.reload()
            begin = time.perf_counter()
            swept = await janitor.sweep()
            passes.append((time.perf_counter() - begin) * 1e3)
            if (swept.removed, swept.finished) != (removed * NAMESPACES, True):
                raise RuntimeError(f"the janitor did something else: {swept}")
        growth = (memory(os.getpid(), "VmHWM") - before) / 1024
        say(lists=lists, upkeep=[*built, *passes, growth], file=(folder / "index.sqlite").stat().st_size >> 20)


async def baseline(count: int, folder: Path, pages: int, due: int, *, files: bool) -> None:
    """All manifests, from memory or from files, filtered and sorted for each question."""
    from toe_async.apis.meta import encode
    from toe_async.collector.captures import Manifest, decode_manifest

    kept: list[Manifest] = []
    before, begin, cpu = memory(os.getpid(), "VmRSS"), time.perf_counter(), time.process_time()
    if files:
        for number, one in enumerate(manifests(count)):
            (folder / str(number)).write_bytes(encode(one))
    else:
        kept = list(manifests(count))
    built = [time.perf_counter() - begin, time.process_time() - cpu]

    def everything() -> Iterator[Manifest]:
        if not files:
            return iter(kept)
        return (decode_manifest(Path(entry.path).read_bytes()) for entry in os.scandir(folder))

    def newest(matching: Callable[[Manifest], bool]) -> int:
        return len(sorted(filter(matching, everything()), key=lambda one: (one.stored_at, one.name))[-PAGE:])

    async def page(namespace: str, until: datetime) -> int:
        return newest(lambda one: namespace in {"", one.namespace} and one.stored_at < until)

    async def label(namespace: str, until: datetime) -> int:
        return newest(
            lambda one: namespace in {"", one.namespace} and one.stored_at < until and one.labels.get("canary") == "yes"
        )

    def due_now(removed: int) -> int:
        by_namespace: dict[str, list[Manifest]] = {}
        for one in everything():
            by_namespace.setdefault(one.namespace, []).append(one)
        over = [sorted(held, key=lambda one: one.stored_at)[:removed] for held in by_namespace.values()]
        return sum(map(len, over))

    places = Asked(pages).places
    lists = [*await times(places, page), *await times(places, label)]
    passes = []
    for removed in (0, due // NAMESPACES):
        begin = time.perf_counter()
        due_now(removed)
        passes.append((time.perf_counter() - begin) * 1e3)
    say(lists=lists, upkeep=[*built, *passes, (memory(os.getpid(), "VmHWM") - before) / 1024])


def run(count: int, pages: int, due: int) -> None:
    """Measure everybody and print the table."""
    lists: dict[str, list[float | None]] = {}
    upkeep: dict[str, list[float | None]] = {}
    size = 0
    for name in (OURS, IN_MEMORY, FILES):
        if name == FILES and count > _MOST_FILES:
            continue
        few = pages if name == OURS else max(4, pages // 50)
        with (
            kept_folder() as folder,
            service(this("store", "--measure", name, str(count), str(folder), str(few), str(due))) as one,
        ):
            answer = told(one)
        lists[name], upkeep[name], size = answer["lists"], answer["upkeep"], answer.get("file", size)
    print(table(f"{count:,} artifacts, lists", LISTS, lists, base=IN_MEMORY))
    print(LISTS_LIMIT)
    print(table(f"{count:,} artifacts, upkeep", UPKEEP, upkeep, base=IN_MEMORY))
    print(f"{UPKEEP_LIMIT} The index's file has {size:,} MB.", flush=True)


def measured(name: str, count: int, folder: Path, pages: int, due: int) -> None:
    """One row, in a fresh process."""
    if name == OURS:
        asyncio.run(ours(count, folder, pages, due))
    else:
        asyncio.run(baseline(count, folder, pages, due, files=name == FILES))


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=(__doc__ or "").splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="2,000 artifacts instead of 50,000")
    size.add_argument("--full", action="store_true", help="a million artifacts")
    options = parser.parse_args(argv)
    if options.quick:
        run(2_000, 100, 200)
    else:
        run(1_000_000 if options.full else 50_000, 400, 1_000)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--measure", name, count, folder, pages, due]:
            measured(name, int(count), Path(folder), int(pages), int(due))
        case _:
            main()
