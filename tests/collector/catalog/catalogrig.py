"""What the catalog's tests share: artifacts by the dozen, a clock that is set, and a backend in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from toe_async.collector.artifacts import Reader
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import Catalog, Entry, Query
from toe_async.collector.errors import StoreError
from toe_async.collector.parts import Part

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class SetClock:
    """A wall clock that stands where it is put; time that is measured goes on by itself."""

    def __init__(self, now: datetime = T0) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def manifest(name: str, second: float = 0, *, namespace: str = "shop", **changes: Any) -> Manifest:
    made = Manifest(
        name=name, leaf="heap.pprof", size=10, sha256="a" * 64, stored_at=T0 + timedelta(seconds=second),
        directory=(namespace, "app-cart", "hot", "2026"), file=f"cart-server-{name}", capture=name,
        namespace=namespace, labels={}, run="hot", run_uid="u-hot", kind="", pod="", pod_uid="", container="",
        node="", service="", tool="", reason="", trigger="", triggered_at=T0,
    )  # fmt: skip
    return replace(made, **changes)


class Memory:
    """Manifests alone, with a backend's rules about them. `failing` names artifacts that cannot be deleted."""

    def __init__(self, *held: Manifest) -> None:
        self.held = {(one.directory, one.file): one for one in held}
        self.failing: set[str] = set()
        self.broken: StoreError | None = None
        self.batches = 250

    def put(self, *manifests: Manifest) -> None:
        self.held |= {(one.directory, one.file): one for one in manifests}

    async def commit(self, part: Part, manifest: Manifest) -> Manifest:
        return self.held.setdefault((manifest.directory, manifest.file), manifest)

    async def find(self, directory: tuple[str, ...], file: str) -> Manifest | None:
        return self.held.get((directory, file))

    def open(self, manifest: Manifest) -> AbstractAsyncContextManager[Reader]:
        raise FileNotFoundError(manifest.file)

    async def delete(self, manifest: Manifest) -> None:
        if manifest.name in self.failing:
            raise StoreError("the file system answered EIO")
        self.held.pop((manifest.directory, manifest.file), None)

    async def rewrite(self, manifest: Manifest) -> None:
        self.held[manifest.directory, manifest.file] = manifest

    async def manifests(self) -> AsyncIterator[list[Manifest]]:
        everything = list(self.held.values())
        for at in range(0, len(everything), self.batches):
            yield everything[at : at + self.batches]
            if self.broken is not None:
                raise self.broken

    async def free_bytes(self) -> int:
        return 1 << 40

    async def probe(self) -> None:
        if self.broken is not None:
            raise self.broken


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [one.manifest.name for one in entries]


async def listed(catalog: Catalog, query: Query | None = None, limit: int = 500) -> list[str]:
    """Every page of a list, joined."""
    found, after = list[str](), ""
    while True:
        page = await catalog.page(query or Query(), limit, after)
        assert len(page.entries) <= limit
        found += names(page.entries)
        after = page.continue_
        if not after:
            return found


def whole(catalog: Catalog) -> bool:
    """`complete`, as it is at this moment."""
    return catalog.complete
