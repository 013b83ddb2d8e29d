"""Flags with an environment variable each: flag, else TOE_<FLAG>, else default. Bad values end in one sentence."""

import argparse
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from toe_async.lib.durations import format_duration, parse_duration
from toe_async.lib.quantities import parse_quantity

T = TypeVar("T")


class Flags:
    """Declares the flags of one command; every default may come from the environment."""

    def __init__(self, parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
        self._parser, self._environment = parser, environment

    def add(self, name: str, parse: Callable[[str], T], default: T, text: str, *, metavar: str = "") -> None:
        """Declare ``--name``. ``parse`` raises argparse.ArgumentTypeError with a sentence for what it cannot read."""
        variable = "TOE_" + name.upper().replace("-", "_")
        given = self._environment.get(variable)
        value: Any = default
        if given is not None:
            try:
                value = parse(given)
            except (argparse.ArgumentTypeError, ValueError) as error:
                self._parser.error(f"environment variable {variable}: {error}")
        self._parser.add_argument(
            f"--{name}",
            type=parse,
            default=value,
            metavar=metavar or name.rsplit("-", 1)[-1].upper(),
            help=f"{text} [{variable}, default: {_shown(default)}]",
        )


def from_environment(parser: argparse.ArgumentParser) -> Flags:
    """Flags of a parser over this process's environment."""
    return Flags(parser, os.environ)


def text(value: str) -> str:
    """Any text."""
    return value


def names(value: str) -> tuple[str, ...]:
    """A comma-separated list; blanks and empty members are dropped."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def truth(value: str) -> bool:
    """true or false."""
    if value.lower() not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"expected true or false, not {value!r}")
    return value.lower() == "true"


def one_of(*choices: str) -> Callable[[str], str]:
    """One word of a closed list."""

    def parse(value: str) -> str:
        if value not in choices:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(choices)}, not {value!r}")
        return value

    return parse


def count(value: str) -> int:
    """A whole number of at least 1."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {value!r}")
    return int(value)


def size(value: str) -> int:
    """A number of bytes as a Kubernetes quantity, such as 512Mi."""
    try:
        found = int(parse_quantity(value))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if found < 1:
        raise argparse.ArgumentTypeError(f"expected a size above zero, not {value!r}")
    return found


def or_none(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """What ``parse`` reads, or ``none``."""

    def read(value: str) -> T | None:
        return None if value == "none" else parse(value)

    return read


def duration(value: str) -> timedelta:
    """A Go-style duration above zero."""
    try:
        found = parse_duration(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if found <= timedelta(0):
        raise argparse.ArgumentTypeError(f"expected a duration above zero, not {value!r}")
    return found


def address(value: str) -> tuple[str, int]:
    """``host:port`` or ``:port``; an IPv6 host in brackets. No host means every interface."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"expected host:port or :port, not {value!r}")
    return host.strip("[]"), int(port)


def _shown(default: object) -> str:
    match default:
        case None:
            return "none"
        case timedelta():
            return format_duration(default)
        case (str() as host, int() as port):
            return f"{host}:{port}"
        case tuple():
            return ",".join(map(str, default)) or "none"
        case bool():
            return str(default).lower()
        case _:
            return str(default) or "none"
