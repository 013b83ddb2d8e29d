"""The supervisor's command line.

run --capture ID --orders SHA256 --wait SECONDS [--target-pid PID]   run one tool by orders from stdin; PID stands for
                                                  the target's first process where containers share a PID namespace
list | fetch LEAF [--offset N] | fetched          take what a run keeps, from another process of its container
version
"""

from __future__ import annotations

import json
import re
import sys

from toe_async import __version__
from toe_async.agent.protocol import FAILED, USAGE

_CAPTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OPTIONS = {
    "run": ("--capture", "--orders", "--wait", "--termination-log", "--state-root", "--target-pid"),
    "list": ("--state-root",),
    "fetch": ("--offset", "--state-root"),
    "fetched": ("--state-root",),
    "version": (),
}


class UsageError(Exception):
    """The command line is not understood."""


def main(arguments: list[str]) -> int:
    """Exit codes: 0 completed, 1 failed, 2 usage, 3 no orders came, 4 cancelled."""
    try:
        command, options, words = _parse(arguments)
        if command == "run":
            return _run(options)
        if command == "version":
            print(__version__)
            return 0
        return _fetching(command, options, words)
    except UsageError as error:
        print(f"supervisor: {error}\n{__doc__}", file=sys.stderr)
        return USAGE


def _parse(arguments: list[str]) -> tuple[str, dict[str, str], list[str]]:
    command, *rest = arguments or [""]
    if command not in _OPTIONS:
        raise UsageError("the first argument is none of " + ", ".join(_OPTIONS))
    options: dict[str, str] = {}
    words: list[str] = []
    while rest:
        word = rest.pop(0)
        if word not in _OPTIONS[command]:
            words.append(word)
        elif rest:
            options[word] = rest.pop(0)
        else:
            raise UsageError(f"{word} wants a value")
    if len(words) != (1 if command == "fetch" else 0) or any(word.startswith("-") for word in words):
        raise UsageError(f"{command} does not take these arguments")
    return command, options, words


def _run(options: dict[str, str]) -> int:
    from toe_async.agent.conversation import Terms
    from toe_async.agent.outputs import Outputs
    from toe_async.agent.run import serve

    capture, orders, wait = (options.get(name, "") for name in ("--capture", "--orders", "--wait"))
    if not _CAPTURE.fullmatch(capture) or not _DIGEST.fullmatch(orders) or not re.fullmatch(r"[0-9]{1,6}", wait):
        raise UsageError("run wants --capture, --orders with a SHA-256 in hex, and --wait with whole seconds")
    paths = {
        field: options[name]
        for name, field in (("--termination-log", "report"), ("--state-root", "root"))
        if name in options
    }
    first = options.get("--target-pid", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,9}", first):
        raise UsageError("--target-pid wants the number of a process")
    return serve(Terms(capture, orders, float(wait), int(first), **paths), Outputs)


def _fetching(command: str, options: dict[str, str], words: list[str]) -> int:
    from toe_async.agent import fetching

    root = options.get("--state-root", fetching.STATE_ROOT)
    offset = options.get("--offset", "0")
    if not re.fullmatch(r"[0-9]{1,18}", offset):
        raise UsageError("--offset wants a number of bytes")
    try:
        if command == "list":
            print(json.dumps(fetching.listing(root)))
        elif command == "fetch":
            fetching.fetch(words[0], int(offset), sys.stdout.buffer, root)
        else:
            fetching.fetched(root)
    except (fetching.NotKept, OSError) as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return FAILED
    return 0
