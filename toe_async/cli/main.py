"""``toe-async``: one program, one subcommand for each process. Exit codes: 0 ok, 1 failed, 2 wrong usage."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from toe_async import __version__

# Only the module of the command that is asked for is imported: an operator's image has no sandbox, and no process pays
# for another one's libraries.
COMMANDS = {
    "operator": "watch pods, take profiles, deliver them",
    "collector": "store artifacts and give them to whoever may read them",
    "demo": "show the whole of it on this machine, without a cluster",
    "crds": "write the CustomResourceDefinitions made from the types",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="toe-async", description="Takes diagnostic evidence from hot pods by itself.")
    parser.add_argument("--version", action="version", version=f"toe-async {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        if given[:1] == [name]:
            import_module(f"toe_async.cli.{name}").declare(command)
    parsed = parser.parse_args(given)
    sys.exit(parsed.run(parsed))
