"""The arguments of every verb, and nothing else: this is imported for each key press of a completion."""

import argparse
from collections.abc import Callable, Sequence

from toe_async import __version__
from toe_async.cli.plugin.exits import Usage

PROGRAM = "kubectl toe"
ALIASES = {"ls": "list", "rm": "delete", "can-i": "preflight"}
VERBS = {
    "list": "list artifacts, newest first (ls)",
    "get": "fetch artifacts into a folder",
    "open": "look at a profile as a flame graph or a table",
    "diff": "compare two profiles",
    "delete": "remove artifacts for good (rm)",
    "hold": "keep artifacts from retention and deletion",
    "release": "end a hold",
    "ui": "show the collector's pages in the browser",
    "run": "run an approved tool against pods",
    "status": "show where runs of tools stand",
    "cancel": "end a run; what it has found is kept",
    "tools": "show the approved tools, and which of them you may use",
    "preflight": "find out what would keep a run from happening (can-i)",
    "completion": "write a completion script for a shell",
    "version": "tell the version",
}
MOST_LISTED = 5000
OPERATOR_NAMESPACE = "toe-system"
_CODES = "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 denied, 4 timed out, 5 done in part, 130 interrupted."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a command line. Ends the process with code 2 and a sentence when it is wrong, with 0 after --help.

    Global flags are taken before the verb and after it.
    """
    root = root_parser()
    parsed = root.parse_args(argv)
    verb = ALIASES.get(parsed.verb, parsed.verb)
    if verb not in VERBS:
        root.error(f"{parsed.verb!r} is no verb; choose one of {', '.join(VERBS)}")
    command = verb_parser(verb)
    parsed.verb = verb
    rest, parsed.rest = parsed.rest, []
    own: list[str] = []
    if verb in {"run", "preflight"} and "--" in rest:
        # What stands behind is the tool's, and none of our business however it looks.
        rest, own = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    parsed = command.parse_intermixed_args(rest, parsed)
    parsed.args = own
    try:
        _check(parsed)
    except Usage as wrong:
        command.error(str(wrong))
    return parsed


def root_parser() -> argparse.ArgumentParser:
    """The parser of what stands before the verb, and of ``--help``."""
    listed = "\n".join(f"  {verb:<11} {text}" for verb, text in VERBS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} VERB [ARGUMENTS] [FLAGS]",
        description=f"Run tools beside what you look for, and find, fetch and look at what was taken.\n\n"
        f"Verbs:\n{listed}",
        epilog=f"`{PROGRAM} VERB --help` tells a verb's own flags. {_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kubectl-toe {__version__}")
    _global_flags(parser, given=True)
    parser.add_argument("verb", metavar="VERB", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def verb_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb's arguments and flags, the global ones included."""
    aliases = [alias for alias, meant in ALIASES.items() if meant == verb]
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {verb}",
        description=VERBS[verb].capitalize() + "."
        if not aliases
        else VERBS[verb].rpartition(" (")[0].capitalize() + ".",
        epilog=_CODES,
        allow_abbrev=False,
    )
    _DECLARED[verb](parser)
    _global_flags(parser, given=False)
    return parser


def duration(value: str) -> str:
    """A Go-style duration or an RFC 3339 instant, as the API takes either; empty is no bound."""
    from toe_async.lib.clock import parse_rfc3339
    from toe_async.lib.durations import parse_duration

    try:
        if "T" in value:
            parse_rfc3339(value)
        elif value:
            parse_duration(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a duration like 2h or an instant like 2026-01-24T20:44:08Z, not {value!r}"
        ) from None
    return value


def seconds(value: str) -> float:
    """A Go-style duration above zero, in seconds."""
    from toe_async.lib.durations import parse_duration

    try:
        found = parse_duration(value).total_seconds()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if found <= 0:
        raise argparse.ArgumentTypeError(f"expected a duration above zero, not {value!r}")
    return found


def count(value: str) -> int:
    """A whole number of at least 1."""
    if not (value.isascii() and value.isdecimal()) or not 1 <= int(value[:10]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000000, not {value!r}")
    return int(value)


def port(value: str) -> int:
    """A TCP port; 0 takes a free one."""
    if not (value.isascii() and value.isdecimal()) or int(value[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, not {value!r}")
    return int(value)


def _global_flags(parser: argparse.ArgumentParser, *, given: bool) -> None:
    """Flags of every verb; only the first parser sets defaults, so that the second keeps what stood before the verb."""

    def default(value: object) -> object:
        return value if given else argparse.SUPPRESS

    flags = parser.add_argument_group("global flags")
    flags.add_argument("-n", "--namespace", default=default(None), help="default: the context's own")
    flags.add_argument(
        "-A", "--all-namespaces", action="store_true", default=default(False), help="look in all of them"
    )
    flags.add_argument("--context", default=default(None), help="context of the kubeconfig")
    flags.add_argument(
        "--kubeconfig", default=default(None), metavar="FILE", help="default: KUBECONFIG, ~/.kube/config"
    )
    flags.add_argument(
        "-o", "--output", choices=("json", "yaml", "wide", "name"), default=default(""), help="form of what is printed"
    )
    flags.add_argument(
        "--timeout", type=seconds, default=default(None), metavar="DURATION", help="end all of it after this long"
    )


def _filters(parser: argparse.ArgumentParser) -> None:
    flags = parser.add_argument_group("which artifacts")
    flags.add_argument("--run", default="", metavar="NAME", help="of this run, by its name or UID")
    flags.add_argument("--pod", default="", metavar="NAME", help="taken from this pod")
    flags.add_argument("--kind", default="", help="of runs of this kind, such as ProfilingConfig")
    flags.add_argument("--tool", default="", help="taken by this tool")
    flags.add_argument("--type", default="", help="of this type, such as heap")
    flags.add_argument("--since", type=duration, default="", metavar="2h|TIME", help="stored after that")
    flags.add_argument("--until", type=duration, default="", metavar="2h|TIME", help="stored before that")
    flags.add_argument("-l", "--selector", default="", help="label selector")
    flags.add_argument("--field-selector", default="", help="field selector, such as artifact.node=n1")
    flags.add_argument("--search", default="", metavar="TEXT", help="with this text in pod, run, reason, ...")


def _list(parser: argparse.ArgumentParser) -> None:
    _filters(parser)
    parser.add_argument(
        "--limit", type=count, default=MOST_LISTED, metavar="N", help=f"at most so many (default {MOST_LISTED})"
    )


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="artifacts; or choose them by the flags below")
    _filters(parser)


def _get(parser: argparse.ArgumentParser) -> None:
    _names(parser)
    parser.add_argument(
        "-d",
        "--directory",
        default=".",
        metavar="DIR",
        help="folder to write into, made when it is missing (default: here)",
    )
    parser.add_argument(
        "-O", "--output-file", default="", metavar="FILE", help="write one artifact to this file; - is stdout"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def _views(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sample", default="", metavar="TYPE", help="sample type, such as cpu or inuse_space")
    parser.add_argument("-O", "--output-file", default="", metavar="FILE", help="write it there; - is stdout")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("--no-browser", action="store_true", help="only print where the page is")


def _open(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT")
    parser.add_argument("--as", dest="as_", choices=("flame", "top"), default="flame", help="page or table")
    _views(parser)


def _diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="what to compare with: NAME or NAMESPACE/NAME")
    parser.add_argument("other", metavar="OTHER", help="what changed since")
    parser.add_argument("--as", dest="as_", choices=("page", "top"), default="page", help="page or table")
    parser.add_argument("--top", dest="as_", action="store_const", const="top", help="the same as --as top")
    _views(parser)


def _delete(parser: argparse.ArgumentParser) -> None:
    _names(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--ignore-not-found", action="store_true", help="what is gone already is no error")


def _hold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why they must be kept; others will read it")


def _release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME")


def _ui(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=port, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def _wanted_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tool", metavar="TOOL", help="an approved tool; its own arguments stand behind --")
    which = parser.add_argument_group("which pods")
    which.add_argument("-l", "--selector", required=True, help="label selector, such as app=web")
    which.add_argument("--container", default="", metavar="NAME", help="default: the pod's default container")
    which.add_argument("--max-targets", type=count, metavar="N", help="at most so many pods")
    picks = ("All", "Random", "Oldest", "Newest", "Hottest")
    which.add_argument("--pick", choices=picks, default="", help="which ones, when there are more")
    which.add_argument(
        "--from-namespaces", default="", metavar="A,B", help="look there; each must grant it by annotation"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--duration", default="30s", metavar="DURATION", help="how long the tool runs (default: 30s)")
    how.add_argument("--warmup", default="", metavar="DURATION", help="wait so long first")
    how.add_argument("--preset", choices=("low", "medium", "high"), default="", help="how closely to look")
    how.add_argument("--max-cpu", type=count, metavar="PERCENT", help="most of one core that the tool may use")
    how.add_argument("--overhead", type=count, metavar="PERCENT", help="most of the target's own CPU that it may use")
    how.add_argument("--at-once", type=count, metavar="N", help="so many pods at a time")
    how.add_argument("--on-error", choices=("continue", "stop", "retry"), default="", help="when one pod fails")
    how.add_argument("--deadline", type=seconds, metavar="DURATION", help="end all of it after this long")
    how.add_argument("--ttl", type=seconds, metavar="DURATION", help="delete the run so long after its end")
    how.add_argument("--name", default="", help="of the run (default: a new one)")
    where = parser.add_argument_group("where the output goes")
    modes = ("collector", "ephemeral", "pvc", "s3")
    where.add_argument("--mode", choices=modes, default="collector", help="default: collector")
    where.add_argument("--claim", default="", metavar="NAME", help="mode pvc: a claim that the pods have mounted")
    where.add_argument("--path", default="", metavar="PATH", help="mode pvc: the folder inside of it")
    where.add_argument("--bucket", default="", metavar="NAME", help="mode s3: one that the administrator lists")
    where.add_argument("--prefix", default="", metavar="PATH", help="mode s3: in front of the key")
    where.add_argument("--endpoint", default="", metavar="URL", help="mode s3: default is AWS")
    where.add_argument("--compress", choices=("none", "gzip", "zstd"), default="", help="default: gzip")
    where.add_argument("--rolling", default="", metavar="DURATION", help="a new file each time")
    where.add_argument("--retention-days", type=count, metavar="N", help="delete what was found after so many days")


def _operator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--operator-namespace", default=OPERATOR_NAMESPACE, metavar="NAME", help="where the approved tools are"
    )


def _run(parser: argparse.ArgumentParser) -> None:
    _wanted_run(parser)
    parser.add_argument("--wait", action="store_true", help="until it is over; the exit code tells how it went")
    parser.add_argument(
        "--dry-run", nargs="?", const="server", choices=("server",), default="", help="have it judged, write nothing"
    )


def _preflight(parser: argparse.ArgumentParser) -> None:
    _wanted_run(parser)
    _operator(parser)


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="", metavar="RUN", help="one of them in detail")
    parser.add_argument("--wait", action="store_true", help="until it is over; the exit code tells how it went")


def _cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN")
    parser.add_argument("--reason", default="cancelled by kubectl toe", metavar="TEXT", help="others will read it")
    parser.add_argument("--wait", action="store_true", help="until it has ended")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def _version(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


_DECLARED: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "list": _list, "get": _get, "open": _open, "diff": _diff, "delete": _delete, "hold": _hold, "release": _release,
    "ui": _ui, "completion": _completion, "version": _version, "run": _run, "status": _status, "cancel": _cancel,
    "tools": _operator, "preflight": _preflight,
}  # fmt: skip


def chosen_by_flags(parsed: argparse.Namespace) -> bool:
    """Whether any flag of `which artifacts` is given."""
    named = ("run", "pod", "kind", "tool", "type", "since", "until", "selector", "field_selector", "search")
    return any(getattr(parsed, name) for name in named)


def _check(parsed: argparse.Namespace) -> None:
    if parsed.namespace is not None and parsed.all_namespaces:
        raise Usage("-n and -A exclude each other")
    if parsed.namespace == "":
        raise Usage("the namespace is empty")
    if parsed.verb in {"get", "delete"}:
        if bool(parsed.names) == chosen_by_flags(parsed):
            raise Usage("name artifacts, or choose them by --run, -l and the like; one of the two")
        if parsed.names and parsed.all_namespaces:
            raise Usage("a name is of one namespace: give it by -n")
    if parsed.verb == "get" and parsed.output_file and (len(parsed.names) != 1 or parsed.directory != "."):
        raise Usage("-O is for one named artifact, without -d")
    if parsed.verb in {"open", "diff", "hold", "release", "cancel"} and parsed.all_namespaces:
        raise Usage("a name is of one namespace: give it by -n")
    if parsed.verb in {"run", "preflight", "tools"} and parsed.all_namespaces:
        raise Usage("a run belongs to one namespace: give it by -n")
    if parsed.verb == "status" and parsed.all_namespaces and parsed.name:
        raise Usage("a name is of one namespace: give it by -n")
    if parsed.verb == "cancel" and not parsed.reason.strip():
        raise Usage("--reason is empty: the operator takes that for no cancellation")
    if parsed.verb == "status" and parsed.wait and not parsed.name:
        raise Usage("--wait is for one run: name it")
    if parsed.verb in {"run", "preflight"}:
        _check_output(parsed)


def _check_output(parsed: argparse.Namespace) -> None:
    """Flags of another mode than the one that is asked for would be lost in silence."""
    needs = {"pvc": ("claim",), "s3": ("bucket",)}
    takes = {"pvc": ("claim", "path"), "s3": ("bucket", "prefix", "endpoint")}
    for flag in needs.get(parsed.mode, ()):
        if not getattr(parsed, flag):
            raise Usage(f"--mode {parsed.mode} needs --{flag}")
    for mode, flags in takes.items():
        for flag in flags:
            if mode != parsed.mode and getattr(parsed, flag):
                raise Usage(f"--{flag} is for --mode {mode}")
