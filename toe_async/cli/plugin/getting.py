"""``kubectl toe get``: fetch artifacts, several at a time, each proved by its digest."""

import asyncio
import hashlib
import os
import sys
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any

from msgspec import Struct

from toe_async.cli.plugin import choosing, folder, printing
from toe_async.cli.plugin.artifact import Artifact, fetchable, read
from toe_async.cli.plugin.download import Contents, Fetch, Target
from toe_async.cli.plugin.exits import Exit, Stopped, code_of, together
from toe_async.cli.plugin.kept import SCHEME, Kept, is_kept, kept_of
from toe_async.cli.plugin.naming import file_name
from toe_async.cli.plugin.powertools import PowerTools
from toe_async.cli.plugin.progress import Meter, line
from toe_async.cli.plugin.session import Session, each
from toe_async.collector.errors import Refused
from toe_async.collector.library import Body

AT_ONCE = 3
_RUNS = frozenset({"powertool", "powertools", "pt"})
_LOOKUPS_AT_ONCE = 8


class Sources:
    """Where each artifact's bytes are: in the collector, or in the pod that keeps them."""

    def __init__(self, library: Contents, kept: Kept) -> None:
        self.library, self.kept = library, kept

    def content(
        self, namespace: str, name: str, first: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[Body]:
        """Open the bytes of one."""
        source: Contents = self.kept if name.startswith(SCHEME) else self.library
        return source.content(namespace, name, first, end)


class Outcome(Struct, frozen=True):
    """What became of one artifact: the file it is in, or the code it failed with."""

    file: str = ""
    failure: Exit = Exit.OK


async def run(session: Session) -> Exit:
    """Fetch what is named or chosen; prints the path of each file. What could not be fetched is told apart."""
    arguments, console = session.arguments, session.console
    wanted, unknown = await _wanted(session)
    if arguments.output_file == "-":
        return await _to_stdout(session, wanted[0]) if wanted else unknown[0]
    directory, name = os.path.split(arguments.output_file) if arguments.output_file else (arguments.directory, "")
    loop = asyncio.get_running_loop()
    meter = Meter(len(wanted), sum(max(0, one.size) for one in wanted), loop.time())

    def moved(label: str, count: int) -> None:
        console.progress(line(meter.moved(label, count, loop.time())))

    with ExitStack() as stack:
        into = stack.enter_context(folder.opened(directory or ".", make=not name))
        sources = Sources(session.library, Kept(session.library.client, wanted))
        fetch, claimed = Fetch(sources, meter, moved), set[str]()

        async def one(found: Artifact) -> Outcome:
            label = found.name
            try:
                target = Target(into, name or file_name(fetchable(found)), arguments.force)
                if target.name in claimed:
                    raise Stopped(f"another artifact goes to {into.shown(target.name)} already")
                claimed.add(target.name)
                await fetch.save(fetchable(found), target)
            except Refused as no:
                console.error(f"{label}: {no.message}")
                return Outcome(failure=code_of(no))
            except Stopped as stopped:
                console.error(f"{label}: {stopped}")
                return Outcome(failure=Exit.FAILED)
            console.progress(line(meter.finished()), last=True)
            if arguments.output not in {"json", "yaml"}:
                console.data(into.shown(target.name))
            return Outcome(file=into.shown(target.name))

        try:
            outcomes = await each(wanted, one, AT_ONCE)
        except asyncio.CancelledError:
            console.note("What came so far is kept in .part files; the same command goes on with them.")
            raise
    done = [(found, outcome.file) for found, outcome in zip(wanted, outcomes, strict=True) if outcome.file]
    if arguments.output in {"json", "yaml"}:
        form = printing.as_json if arguments.output == "json" else printing.as_yaml
        console.table([form({"files": [_told(found, file) for found, file in done]})])
    if wanted and len(done) == len(wanted):
        left = await sources.kept.release([one for one in wanted if is_kept(one)])
        if left:
            console.note(
                f"The pods keep {left} files more than the run's status names; mode collector has room for all."
            )
    failures = [*unknown, *(outcome.failure for outcome in outcomes if outcome.failure)]
    if failures and len(done) + len(failures) > 1:
        console.note(f"{len(done)} fetched, {len(failures)} not.")
    return together(len(done), failures)


async def _wanted(session: Session) -> tuple[list[Artifact], list[Exit]]:
    """What to fetch, and a code for each name that leads to nothing; that is told at once."""
    names = session.arguments.names
    if not names:
        found = await choosing.all_by_flags(session)
        if not found:
            raise Stopped("no artifact is chosen by these flags")
        return found, []

    async def look(name: str) -> list[Artifact] | Exit:
        kind, slash, run = name.partition("/")
        try:
            if slash and kind in _RUNS:
                return await _of_run(session, run)
            return [read(await session.library.get(session.namespace, name))]
        except Refused as no:
            session.console.error(f"{name}: {no.message}")
            return code_of(no)
        except Stopped as stopped:
            session.console.error(f"{name}: {stopped}")
            return Exit.FAILED

    answers = await each(dict.fromkeys(names), look, _LOOKUPS_AT_ONCE)
    found = [one for answer in answers if isinstance(answer, list) for one in answer]
    return found, [one for one in answers if isinstance(one, Exit)]


async def _of_run(session: Session, run: str) -> list[Artifact]:
    """Everything that a run of a tool has left where this program can reach it.

    Raises:
        Stopped: it has left nothing, or it is somewhere else.
    """
    found = await PowerTools(session.library.client).get(session.namespace, run)
    mode = found.spec.output.mode
    if mode in {"pvc", "s3"}:
        places = ", ".join(one.uri for one in found.status.artifacts[:20]) or "nowhere yet"
        raise Stopped(f"the output of mode {mode} is not ours to fetch; it is at {places}")
    held = kept_of(found) if mode == "ephemeral" else await choosing.all_of_run(session, found.metadata.uid)
    if not held:
        raise Stopped(f"the run has left nothing yet; kubectl toe status {run} tells why")
    return held


async def _to_stdout(session: Session, found: Artifact) -> Exit:
    """Write the bytes to stdout as they come; the exit code tells at the end whether the digest is right."""
    found, digest = fetchable(found), hashlib.sha256()
    sources = Sources(session.library, Kept(session.library.client, [found]))
    async with sources.content(found.namespace, found.name, 0, found.size) as body:
        async for piece in body.pieces:
            digest.update(piece)
            await asyncio.to_thread(sys.stdout.buffer.write, piece)
    await asyncio.to_thread(sys.stdout.buffer.flush)
    if digest.hexdigest() != found.sha256:
        raise Refused(502, "DigestMismatch", "the bytes that came do not have the promised sha256; do not use them")
    return Exit.OK


def _told(found: Artifact, file: str) -> dict[str, Any]:
    return {
        "name": found.name, "namespace": found.namespace, "file": file, "size": found.size, "sha256": found.sha256,
    }  # fmt: skip
