"""``toe-async``: one program, one subcommand for each process. Exit codes: 0 ok, 1 failed, 2 wrong usage."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toe_async import __version__
from toe_async.cli import collector, demo, operator


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process."""
    parser = argparse.ArgumentParser(prog="toe-async", description=__doc__.split(".")[0] + ".")
    parser.add_argument("--version", action="version", version=f"toe-async {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    operator.declare(commands.add_parser("operator", help="watch pods, take profiles, deliver them"))
    collector.declare(commands.add_parser("collector", help="store artifacts and give them to whoever may read them"))
    demo.declare(commands.add_parser("demo", help="show the whole of it on this machine, without a cluster"))
    crds = commands.add_parser("crds", help="write the CustomResourceDefinitions made from the types")
    crds.add_argument("folder", type=Path, help="where to write them, one file a definition")
    crds.set_defaults(run=_write_crds)
    given = parser.parse_args(argv)
    sys.exit(given.run(given))


def _write_crds(given: argparse.Namespace) -> int:
    from toe_async.apis.crd import render_all

    folder: Path = given.folder
    if not folder.is_dir():
        print(f"toe-async crds: {folder} is no folder; make it first", file=sys.stderr)
        return 1
    for name, content in render_all().items():
        (folder / name).write_text(content)
        print(folder / name)
    return 0
