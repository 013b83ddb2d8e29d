"""``kubectl toe delete``: remove artifacts for good, after a question on a terminal."""

from toe_async.cli.plugin import choosing
from toe_async.cli.plugin.exits import Exit, Stopped, code_of, together
from toe_async.cli.plugin.printing import name_of, named
from toe_async.cli.plugin.session import Session, each
from toe_async.collector.errors import Refused

AT_ONCE = 4
_SHOWN = 10


async def run(session: Session) -> Exit:
    """Delete what is named or chosen; prints each one that is gone. Nothing is deleted before a yes or -y."""
    arguments, console = session.arguments, session.console
    if arguments.names:
        wanted = [(session.namespace, name) for name in dict.fromkeys(arguments.names)]
    else:
        wanted = [(one.namespace, one.name) for one in await choosing.all_by_flags(session)]
        if not wanted:
            console.note("No artifacts are chosen by these flags.")
            return Exit.OK
    if not arguments.yes:
        about = [f"{namespace}/{name}" for namespace, name in wanted[:_SHOWN]]
        if len(wanted) > _SHOWN:
            about.append(f"... and {len(wanted) - _SHOWN} more")
        if not await console.confirm(
            about, f"Delete {len(wanted)} artifact{'s' if len(wanted) != 1 else ''} for good?"
        ):
            raise Stopped("nothing was deleted")

    async def one(place: tuple[str, str]) -> Exit:
        namespace, name = place
        try:
            await session.library.delete(namespace, name)
        except Refused as no:
            if no.status == 404 and no.reason != "NotServed" and arguments.ignore_not_found:
                return Exit.OK
            console.error(f"{name}: {no.message}")
            return code_of(no)
        console.data(name_of(name) if arguments.output == "name" else f"{named(name)} deleted")
        return Exit.OK

    codes = await each(wanted, one, AT_ONCE)
    return together(codes.count(Exit.OK), [code for code in codes if code])
