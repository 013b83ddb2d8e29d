"""The programs ``kubectl-toe`` and ``kubectl_complete-toe``: read the arguments, import the verb that is asked for."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from toe_async import __version__
from toe_async.cli.plugin.exits import Exit

# Only the module of the verb that is asked for is imported: --help and a completion's key press cost no client library.
_CLUSTER = {
    "list": "listing",
    "get": "getting",
    "open": "viewing",
    "diff": "viewing",
    "delete": "deleting",
    "hold": "holding",
    "release": "holding",
    "ui": "ui",
    "run": "running",
    "status": "standing",
    "cancel": "cancelling",
    "tools": "tools",
    "preflight": "preflighting",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``kubectl toe``; ends the process with one of `exits.Exit`."""
    from toe_async.cli.plugin.arguments import parse

    # What a terminal cannot show is written as an escape, never an exception half-way through a table.
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # only text streams of files can
    parsed = parse(sys.argv[1:] if argv is None else argv)
    try:
        match parsed.verb:
            case "version":
                code = _version(parsed.output)
            case "completion":
                from toe_async.cli.plugin.shells import script

                print(script(parsed.shell), end="")
                code = Exit.OK
            case verb:
                from toe_async.cli.plugin.session import run

                code = run(parsed, import_module(f"toe_async.cli.plugin.{_CLUSTER[verb]}").run)
        sys.stdout.flush()
    except* BrokenPipeError:
        # Whoever read has seen enough (`| head`). The interpreter flushes once more at its end and must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.FAILED
    sys.exit(code)


def complete(argv: Sequence[str] | None = None) -> None:
    """Run ``kubectl_complete-toe``: print candidates for the last word and the directive line; always ends well."""
    from toe_async.cli.plugin.completion import answer

    for line in answer(list(sys.argv[1:] if argv is None else argv)):
        print(line)


def _version(output: str) -> Exit:
    from toe_async.cli.plugin.printing import as_json, as_yaml

    told = {"clientVersion": __version__, "apiVersion": "artifacts.toe.run/v1alpha1"}
    match output:
        case "json":
            print(as_json(told))
        case "yaml":
            print(as_yaml(told))
        case _:
            print(f"kubectl-toe {__version__}")
    return Exit.OK
