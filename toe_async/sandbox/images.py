"""Images of a cluster that has none: a table says which names can be pulled and which of their programs run here.

A container runs local programs. Only a program that exists in an image alone, such as a supervisor at its fixed path,
is translated to what stands for it on this machine. Pure.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from msgspec import Struct


class Program(Struct, frozen=True):
    """What runs in place of a program of an image.

    `argv` takes the program's place and its arguments follow; then come those of `append` for a container, those of
    `exec_append` for `pods/exec`. These may hold `{target_pid}`, the process of the container that this one is for, and
    `{termination_log}` and `{tmp}`, the message file and the folder that are the container's own. For an ordinary pod
    `target_label` names the label with the UID of the pod that it is for.
    """

    argv: tuple[str, ...]
    append: tuple[str, ...] = ()
    exec_append: tuple[str, ...] = ()
    target_label: str = ""


class Image(Struct, frozen=True):
    """All images whose names fit the pattern `name` (as in a shell): one row of the table."""

    name: str
    programs: Mapping[str, Program] = {}
    pullable: bool = True


class PullError(Exception):
    """An image cannot be pulled; the message is the runtime's."""


def find(images: Iterable[Image], name: str, program: str) -> Program | None:
    """What stands for a program of an image, by the first row that fits; None for a local program.

    An image without a row can be pulled, unless the program is one that only images of the table have.

    Raises:
        PullError: there is no such image.
    """
    table = tuple(images)
    row = next((one for one in table if fnmatchcase(name, one.name)), None)
    elsewhere = row is None and any(program in one.programs for one in table)
    if elsewhere or (row is not None and not row.pullable):
        raise PullError(
            f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {name}: not found'
        )
    return row.programs.get(program) if row is not None else None


def fill(arguments: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Arguments with their placeholders replaced."""
    filled = []
    for one in arguments:
        text = one
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        filled.append(text)
    return tuple(filled)
