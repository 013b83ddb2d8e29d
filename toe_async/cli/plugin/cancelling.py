"""``kubectl toe cancel``: end a run; what its tools have found so far is kept."""

from toe_async.cli.plugin.exits import Exit
from toe_async.cli.plugin.powertools import CANCEL, PowerTools, is_over
from toe_async.cli.plugin.session import Session
from toe_async.cli.plugin.standing import follow


async def run(session: Session) -> Exit:
    """Ask the operator to end it; with --wait until it is."""
    arguments, console = session.arguments, session.console
    tools = PowerTools(session.library.client)
    found = await tools.cancel(session.namespace, arguments.name, arguments.reason)
    if found.spec.schedule:
        again = f"kubectl annotate -n {session.namespace} powertool {arguments.name} {CANCEL}-"
        console.note(f"{arguments.name} runs by a schedule; no further run begins before you say: {again}")
    if arguments.wait:
        await follow(session, tools, session.namespace, arguments.name)
    elif is_over(found):
        console.data(f"powertool/{arguments.name} is over already: {found.status.phase}")
    else:
        console.data(f"powertool/{arguments.name} is being cancelled")
    return Exit.OK
