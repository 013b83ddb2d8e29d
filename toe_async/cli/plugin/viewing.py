"""``kubectl toe open`` and ``kubectl toe diff``: a page in the browser, or a table on stdout.

Pages are drawn by the collector. They are written into a private folder, since what a profile shows is nobody else's,
and may do nothing but show themselves: their own policy allows no request. A difference as a table is reckoned here,
from the folded stacks of both.
"""

import asyncio
import hashlib
import os
import sys
import tempfile
import webbrowser
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from toe_async.cli.plugin import folder, printing
from toe_async.cli.plugin.amounts import amount, change, share
from toe_async.cli.plugin.exits import Exit, Stopped
from toe_async.cli.plugin.naming import page_name, part_name
from toe_async.cli.plugin.refusals import unexpected
from toe_async.cli.plugin.session import Session
from toe_async.cli.plugin.text import clean
from toe_async.collector.errors import Refused
from toe_async.collector.rendering.views import TopTable
from toe_async.profiles import folded
from toe_async.profiles.diff import Diff, diff
from toe_async.profiles.model import ProfileError, ValueType
from toe_async.sinks.uninterrupted import in_thread

_ROWS = 50


async def run(session: Session) -> Exit:
    """Show one profile or the difference of two."""
    arguments = session.arguments
    if arguments.as_ == "top":
        lines = await (_top(session) if arguments.verb == "open" else _difference(session))
        if arguments.output_file in {"", "-"}:
            session.console.table(lines)
        else:
            await _save(session, arguments.output_file, "".join(f"{line}\n" for line in lines).encode())
        return Exit.OK
    if arguments.output:
        raise Stopped("-o is for tables; say --as top, or -O FILE for where the page goes")
    sample = {"sample": arguments.sample} if arguments.sample else {}
    if arguments.verb == "open":
        page = await _rendered(session, arguments.artifact, {"as": "flame", **sample}, "text/html")
        await _show(session, page_name(arguments.artifact), page)
    else:
        query = {"as": "diff", "base": arguments.base, **sample}
        page = await _rendered(session, arguments.other, query, "text/html")
        await _show(session, page_name(arguments.other, arguments.base), page)
    return Exit.OK


def has_display(environ: Mapping[str, str], platform: str) -> bool:
    """Whether opening a browser here would show something to whoever typed the command."""
    if environ.get("BROWSER"):
        return True
    if platform == "darwin":
        return not environ.get("SSH_CONNECTION")
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


async def browse(session: Session, url: str) -> bool:
    """Open the browser if there is one to be seen; tells whether it was."""
    if session.arguments.no_browser or not has_display(os.environ, sys.platform):
        return False
    return await asyncio.to_thread(webbrowser.open, url)


async def _show(session: Session, name: str, page: bytes) -> None:
    wanted = session.arguments.output_file
    if wanted == "-":
        await asyncio.to_thread(sys.stdout.buffer.write, page)
    elif wanted:
        await _save(session, wanted, page)
    else:
        path = await asyncio.to_thread(tempfile.mkdtemp, prefix="toe-")  # readable by its owner alone
        await in_thread(partial(_write, path, name, page, replace=False))
        file = Path(path, name)
        if await browse(session, file.as_uri()):
            session.console.note(f"opened {file}")
        else:
            session.console.data(str(file))


async def _save(session: Session, wanted: str, content: bytes) -> None:
    directory, name = os.path.split(wanted)
    await in_thread(partial(_write, directory or ".", name, content, replace=session.arguments.force))
    session.console.data(wanted)


def _write(directory: str, name: str, content: bytes, *, replace: bool) -> None:
    part = part_name(name, hashlib.sha256(content).hexdigest())
    try:
        with folder.opened(directory) as into, into.part(part) as fd:
            try:
                os.ftruncate(fd, 0)
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
                into.publish(part, name, replace=replace)
            except OSError:
                into.remove(part)  # the server draws it again at once
                raise
    except FileExistsError:
        raise Stopped(f"{name} is there already; --force replaces it") from None
    except OSError as error:
        raise Stopped(f"cannot write {name}: {error.strerror}") from error


async def _rendered(session: Session, name: str, query: Mapping[str, str], wanted: str, namespace: str = "") -> bytes:
    content_type, body = await session.library.render(namespace or session.namespace, name, query)
    if content_type.partition(";")[0].strip().lower() != wanted:
        raise unexpected(f"the view of {name} is not {wanted}")
    return body


async def _table(session: Session, name: str) -> tuple[TopTable, bytes]:
    arguments = session.arguments
    query = {"as": "top", **({"sample": arguments.sample} if arguments.sample else {})}
    raw = await _rendered(session, name, query, "application/json")
    try:
        return msgspec.json.decode(raw, type=TopTable), raw
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unexpected(f"the view of {name} is no table") from error


async def _top(session: Session) -> list[str]:
    table, raw = await _table(session, session.arguments.artifact)
    match session.arguments.output:
        case "json":
            return [printing.as_json(msgspec.json.decode(raw))]
        case "yaml":
            return [printing.as_yaml(msgspec.json.decode(raw))]
    unit, total = table.kind.unit, table.total
    rows = [
        (
            amount(row.flat, unit),
            share(row.flat, total),
            amount(row.cumulative, unit),
            share(row.cumulative, total),
            row.function,
        )
        for row in table.rows[:_ROWS]
    ]
    head = ("FLAT", "FLAT%", "CUM", "CUM%", "FUNCTION")
    told = _headline(table.kind, f"{amount(total, unit)} in all", len(table.rows))
    return [*told, *printing.aligned(head, rows, right=frozenset({0, 1, 2, 3}))]


async def _difference(session: Session) -> list[str]:
    """Both as folded stacks of the sample type that the second one would be shown by."""
    arguments = session.arguments
    kind = (await _table(session, arguments.other))[0].kind
    namespace, slash, base = arguments.base.partition("/")
    query = {"as": "folded", "sample": kind.type}
    place = (base, namespace) if slash else (arguments.base, "")
    before = await _rendered(session, place[0], query, "text/plain", place[1])
    after = await _rendered(session, arguments.other, query, "text/plain")
    found = await asyncio.to_thread(_compare, before, after, kind)
    match arguments.output:
        case "json":
            return [printing.as_json(msgspec.to_builtins(found))]
        case "yaml":
            return [printing.as_yaml(msgspec.to_builtins(found))]
    unit = kind.unit
    rows = [
        (
            amount(row.flat_before, unit),
            amount(row.flat, unit),
            change(row.flat - row.flat_before, unit),
            change(row.cumulative - row.cumulative_before, unit),
            row.function,
        )
        for row in found.rows[:_ROWS]
    ]
    scaled = ", earlier values scaled to the later total" if found.normalised else ""
    totals = f"{amount(found.total_before, unit)} -> {amount(found.total, unit)}{scaled}"
    head = ("FLAT BEFORE", "FLAT", "CHANGE", "CUM CHANGE", "FUNCTION")
    return [*_headline(kind, totals, len(found.rows)), *printing.aligned(head, rows, right=frozenset({0, 1, 2, 3}))]


def _compare(base: bytes, other: bytes, kind: ValueType) -> Diff:
    try:
        return diff(folded.read(base, kind), folded.read(other, kind))
    except ProfileError as error:
        raise Refused(422, "NotAProfile", f"the stacks cannot be compared: {error}") from error


def _headline(kind: ValueType, told: str, rows: int) -> list[str]:
    more = f", the first {_ROWS} of {rows} functions" if rows > _ROWS else ""
    return [f"{clean(kind.type)}: {told}{more}"]
