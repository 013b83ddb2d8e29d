"""Which artifacts a command is about: by flags, page by page, or by name."""

import argparse
from typing import Any

from msgspec import Struct

from toe_async.cli.plugin.arguments import MOST_LISTED
from toe_async.cli.plugin.artifact import Artifact, read, type_of
from toe_async.cli.plugin.exits import Stopped
from toe_async.cli.plugin.refusals import unexpected
from toe_async.cli.plugin.remote import items_of
from toe_async.cli.plugin.session import Session

PAGE = 500
_MOST_PAGES = 2000
_FIELDS = ("pod", "kind", "tool")


class Found(Struct, frozen=True):
    """What the flags choose. `more`: there is more than was asked for. `shell` is the list object without its items."""

    items: list[dict[str, Any]]
    more: bool
    shell: dict[str, Any]

    def artifacts(self) -> list[Artifact]:
        """The items, read."""
        return [read(item) for item in self.items]


def query_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The flags as the API takes them. The type is no field there: its text narrows the search, the rest is ours."""
    terms = [f"artifact.{name}={_escaped(value)}" for name in _FIELDS if (value := getattr(arguments, name))]
    if arguments.field_selector:
        terms.append(arguments.field_selector)
    query = {
        "run": arguments.run,
        "since": arguments.since,
        "until": arguments.until,
        "q": arguments.search or arguments.type,
        "labelSelector": arguments.selector,
        "fieldSelector": ",".join(terms),
    }
    return {key: value for key, value in query.items() if value}


async def by_flags(session: Session, most: int) -> Found:
    """Artifacts that the flags choose, newest first, at most so many.

    Raises:
        Refused: they cannot be listed.
    """
    arguments, items, seen = session.arguments, list[dict[str, Any]](), set[str]()
    query = query_of(arguments)
    for _ in range(_MOST_PAGES):
        asked = PAGE if arguments.type else min(PAGE, most - len(items))
        page = await session.library.list(session.namespace, {**query, "limit": str(asked)})
        items += [item for item in items_of(page) if not arguments.type or _is(item, arguments.type)]
        metadata = page.get("metadata")
        token = metadata.get("continue") if isinstance(metadata, dict) else None
        more = isinstance(token, str) and token != ""
        if not more or len(items) >= most:
            shell = {key: value for key, value in page.items() if key not in {"items", "metadata"}}
            meta = {"continue": token} if more and len(items) == most and not arguments.type else {}
            return Found(items[:most], more or len(items) > most, {**shell, "metadata": meta})
        if token in seen:
            break
        seen.add(str(token))
        query["continue"] = str(token)
        session.console.progress(f"{len(items)} artifacts ...")
    raise unexpected("the list has no end")


async def all_by_flags(session: Session) -> list[Artifact]:
    """Every artifact that the flags choose.

    Raises:
        Stopped: none, or more than a command takes at once.
    """
    found = await by_flags(session, MOST_LISTED)
    if found.more:
        raise Stopped(f"more than {MOST_LISTED} artifacts are chosen; narrow it by --since, --run or -l")
    return found.artifacts()


async def all_of_run(session: Session, uid: str) -> list[Artifact]:
    """Every artifact of one run, by its UID, so that an earlier run of the same name is left out.

    Raises:
        Refused: they cannot be listed.
    """
    items, query = list[dict[str, Any]](), {"run": uid, "limit": str(PAGE)}
    while len(items) < MOST_LISTED:
        page = await session.library.list(session.namespace, query)
        items += items_of(page)
        metadata = page.get("metadata")
        token = metadata.get("continue") if isinstance(metadata, dict) else None
        if not token or token == query.get("continue"):
            break
        query["continue"] = str(token)
    return [read(item) for item in items]


def _is(item: dict[str, Any], wanted: str) -> bool:
    return wanted in {(leaf := read(item).leaf), type_of(leaf)}


def _escaped(value: str) -> str:
    # The three characters that mean something in a field selector, escaped as the Kubernetes API has it.
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
