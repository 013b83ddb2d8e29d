"""What ``kubectl_complete-toe`` answers for a command line that is being typed.

The protocol is kubectl's: the arguments are the words so far, the last one unfinished; the answer is one candidate
a line, with a description after a tab, and a directive as the last line. A cluster that does not answer within
`SECONDS` gives no candidates, and nothing is ever printed that is none: an error would end up in somebody's prompt.
"""

import argparse
import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from toe_async.cli.plugin.arguments import ALIASES, OPERATOR_NAMESPACE, VERBS, root_parser, verb_parser
from toe_async.cli.plugin.text import clean

if TYPE_CHECKING:
    from toe_async.cli.plugin.artifact import Artifact
    from toe_async.cli.plugin.remote import RemoteLibrary
    from toe_async.collector.library import Library

SECONDS = 2.0
MOST = 200
_PAGE = 500
NO_FILES, FILES = ":4", ":0"
"""Cobra's directives: the shell adds no file names, or it does as it likes."""

_POSITIONALS = {
    **dict.fromkeys(("get", "open", "diff", "delete", "hold", "release"), "an artifact"),
    **dict.fromkeys(("run", "preflight"), "a tool"),
    **dict.fromkeys(("status", "cancel"), "a run"),
    "completion": "a shell",
}
"""What stands behind a verb; with a blank, so that none is the name of a flag."""
_SEVERAL = {"get", "diff", "delete", "hold", "release"}
_RUN_KIND = "powertool/"
_TAKES_OTHERS_ARGUMENTS = {"run", "preflight"}
_TAKES_FILE = {"kubeconfig", "directory", "output_file"}


class Typed(Struct, frozen=True, kw_only=True):
    """What is being typed: `place` is a flag's name for its value, one of `_POSITIONALS`, `verb`, `flag` or nothing."""

    verb: str
    place: str
    word: str
    prefix: str = ""
    """What the word begins with besides the value, as in `--run=x`."""
    given: tuple[str, ...] = ()
    flags: dict[str, str] = {}


def answer(words: Sequence[str]) -> list[str]:
    """Candidates for the last word, and the directive."""
    typed = read(words)
    if typed.place in _TAKES_FILE:
        return [FILES]
    found: Iterable[tuple[str, str]] = ()
    with suppress(Exception):  # a prompt is no place for any error at all
        found = _local(typed) or (asyncio.run(_asked(typed)) if typed.place in _REMOTE else ())
    lines = []
    for value, about in found:
        # What would not be the same after cleaning cannot be offered: it would name something else.
        if value.startswith(typed.word) and clean(value) == value and " " not in value and value not in typed.given:
            lines.append(f"{typed.prefix}{value}\t{clean(about)}" if about else f"{typed.prefix}{value}")
    return [*lines[:MOST], NO_FILES]


def read(words: Sequence[str]) -> Typed:
    """Find out what the last word stands for."""
    *before, word = words or [""]
    verb, given, flags, pending = "", list[str](), dict[str, str](), ""
    options = _options("")
    for each in before:
        if pending:
            flags[pending], pending = each, ""
        elif each.startswith("-") and each != "-":
            name, equals, value = each.partition("=")
            option = options.get(name)
            if option is not None and option.nargs != 0:
                if equals:
                    flags[option.dest] = value
                else:
                    pending = option.dest
        elif not verb:
            verb = ALIASES.get(each, each)
            options = _options(verb)
        else:
            given.append(each)
    if verb in _TAKES_OTHERS_ARGUMENTS and "--" in before:
        return Typed(verb=verb, place="", word=word)
    rest: dict[str, Any] = {"verb": verb, "given": tuple(given), "flags": flags}
    if pending:
        return Typed(place=pending, word=word, **rest)
    if word.startswith("--") and "=" in word:
        name, _, value = word.partition("=")
        return Typed(place=options[name].dest if name in options else "", word=value, prefix=f"{name}=", **rest)
    if word.startswith("-"):
        return Typed(place="flag", word=word, **rest)
    if not verb:
        return Typed(place="verb", word=word, **rest)
    full = bool(given) and verb not in _SEVERAL
    return Typed(place="" if full else _POSITIONALS.get(verb, ""), word=word, **rest)


def _options(verb: str) -> dict[str, argparse.Action]:
    parser = verb_parser(verb) if verb in VERBS else root_parser()
    actions = parser._actions  # noqa: SLF001 -- argparse has no other way to be asked, and completers rely on this one
    return {name: action for action in actions for name in action.option_strings}


def _local(typed: Typed) -> list[tuple[str, str]]:
    """Candidates that are known without the cluster."""
    match typed.place:
        case "verb":
            return list(VERBS.items())
        case "a shell":
            return [(shell, "") for shell in ("bash", "zsh", "fish")]
        case "flag":
            return [(name, action.help or "") for name, action in _options(typed.verb).items()]
        case "context":
            from toe_async.cli.plugin import contexts

            files = contexts.files(typed.flags.get("kubeconfig"), os.environ)
            return [(name, "") for name in contexts.read(files).namespaces]
    action = next((action for action in _options(typed.verb).values() if action.dest == typed.place), None)
    return [(str(choice), "") for choice in action.choices or ()] if action is not None else []


async def _asked(typed: Typed) -> list[tuple[str, str]]:
    from toe_async.cli.plugin.session import connected
    from toe_async.telemetry import log

    log.configure("console", "error", io.StringIO())  # nothing may appear in the middle of a prompt
    async with asyncio.timeout(SECONDS):
        flags = argparse.Namespace(kubeconfig=typed.flags.get("kubeconfig"), context=typed.flags.get("context"))
        async with connected(flags) as (library, default):
            return await _REMOTE[typed.place](library, typed, typed.flags.get("namespace") or default)


async def _names(library: "RemoteLibrary", typed: Typed, namespace: str) -> list[tuple[str, str]]:
    if typed.verb == "get" and typed.word.startswith(_RUN_KIND):
        return [(f"{_RUN_KIND}{name}", about) for name, about in await _power_tools(library, typed, namespace)]
    found = [(one.name, f"{one.leaf} of {one.pod}") for one in await _page(library, namespace)]
    return [*found, (_RUN_KIND, "everything of a run")] if typed.verb == "get" and typed.word else found


async def _tools(library: "RemoteLibrary", typed: Typed, namespace: str) -> list[tuple[str, str]]:
    from toe_async.cli.plugin.powertools import PowerTools

    home = typed.flags.get("operator_namespace") or OPERATOR_NAMESPACE
    configs = await PowerTools(library.client).configs(home)
    return sorted((one.spec.name, one.spec.description) for one in configs)


async def _power_tools(library: "RemoteLibrary", typed: Typed, namespace: str) -> list[tuple[str, str]]:
    from toe_async.cli.plugin.powertools import PowerTools

    found = await PowerTools(library.client).all(namespace)
    return [(one.metadata.name, f"{one.spec.tool.name}, {one.status.phase or 'Pending'}") for one in found]


async def _runs(library: "Library", typed: Typed, namespace: str) -> list[tuple[str, str]]:
    return [(run, "") for run in sorted({one.run for one in await _page(library, namespace)})]


async def _pods(library: "Library", typed: Typed, namespace: str) -> list[tuple[str, str]]:
    return [(pod, "") for pod in sorted({one.pod for one in await _page(library, namespace)})]


async def _namespaces(library: "Library", typed: Typed, namespace: str) -> list[tuple[str, str]]:
    return [(name, "") for name in await library.namespaces()]


async def _page(library: "Library", namespace: str) -> "list[Artifact]":
    from toe_async.cli.plugin.artifact import read
    from toe_async.cli.plugin.remote import items_of

    return [read(item) for item in items_of(await library.list(namespace, {"limit": str(_PAGE)}))]


_REMOTE: "dict[str, Callable[[RemoteLibrary, Typed, str], Awaitable[list[tuple[str, str]]]]]" = {
    "an artifact": _names,
    "a tool": _tools,
    "a run": _power_tools,
    "run": _runs,
    "pod": _pods,
    "namespace": _namespaces,
    "operator_namespace": _namespaces,
    "from_namespaces": _namespaces,
}
