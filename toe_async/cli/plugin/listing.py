"""``kubectl toe list``."""

from toe_async.cli.plugin import choosing, printing
from toe_async.cli.plugin.arguments import MOST_LISTED
from toe_async.cli.plugin.exits import Exit
from toe_async.cli.plugin.session import Session
from toe_async.lib.clock import SystemClock


async def run(session: Session) -> Exit:
    """Print what the flags choose, newest first."""
    arguments, console = session.arguments, session.console
    found = await choosing.by_flags(session, arguments.limit)
    artifacts = found.artifacts()
    match arguments.output:
        case "json":
            console.table([printing.as_json({**found.shell, "items": found.items})])
        case "yaml":
            console.table([printing.as_yaml({**found.shell, "items": found.items})])
        case "name":
            for one in artifacts:
                console.data(printing.name_of(one.name))
        case form if artifacts:
            now = SystemClock().now()
            console.table(
                printing.artifact_table(artifacts, now, wide=form == "wide", namespaces=arguments.all_namespaces)
            )
        case _:
            where = f"namespace {session.namespace}" if session.namespace else "any namespace"
            console.note(f"No artifacts found in {where}.")
    if found.more and arguments.limit == MOST_LISTED:
        console.note(f"These are the newest {MOST_LISTED}; narrow it by --since, --run or -l, or raise --limit.")
    return Exit.OK
