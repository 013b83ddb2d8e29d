"""``kubectl toe hold`` and ``kubectl toe release``."""

from toe_async.cli.plugin.exits import Exit, code_of, together
from toe_async.cli.plugin.printing import name_of, named
from toe_async.cli.plugin.session import Session, each
from toe_async.collector.errors import Refused

AT_ONCE = 4


async def run(session: Session) -> Exit:
    """Hold or release every artifact that is named; prints what was done."""
    arguments, console = session.arguments, session.console
    reason, done = (arguments.reason, "held") if arguments.verb == "hold" else ("", "released")

    async def one(name: str) -> Exit:
        try:
            await session.library.hold(session.namespace, name, reason)
        except Refused as no:
            console.error(f"{name}: {no.message}")
            return code_of(no)
        console.data(name_of(name) if arguments.output == "name" else f"{named(name)} {done}")
        return Exit.OK

    codes = await each(dict.fromkeys(arguments.names), one, AT_ONCE)
    return together(codes.count(Exit.OK), [code for code in codes if code])
