"""Documents as trees of elements, turned into text in one place that escapes everything.

There is no way to put ready-made markup into a document, so a name from outside can never become any. Addresses stay on
this server: an attribute that a browser would follow must be a path, a query or a fragment of it. Event handlers and
inline styles cannot be written at all. Characters that would change how the text around them is read (controls,
direction overrides, zero widths) are shown as U+FFFD.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias, Union

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_FOLLOWED = frozenset({"href", "src", "action", "formaction"})
_HERE = re.compile(r"(/(?![/\\])|\?|#)[!-~]*")
_NAME = re.compile(r"[a-z][a-zA-Z0-9-]*")
_ESCAPED = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#39;"}
_DECEIVING = (
    *range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0), 0xAD, 0x61C, *range(0x200B, 0x2010),
    *range(0x2028, 0x202F), *range(0x2060, 0x2070), *range(0xD800, 0xE000), 0xFEFF, *range(0xFFF9, 0xFFFC),
)  # fmt: skip
_ESCAPED |= dict.fromkeys(_DECEIVING, "\N{REPLACEMENT CHARACTER}")

Attribute: TypeAlias = str | int | bool | None
Node: TypeAlias = Union[str, int, "Element", Iterable["Node"], None]


class Element:
    """One element. Made by `tag`, never changed, turned into text by `document`."""

    __slots__ = ("attributes", "children", "name")

    def __init__(self, name: str, children: tuple[Node, ...], attributes: dict[str, Attribute]) -> None:
        self.name, self.children, self.attributes = name, children, attributes


def tag(name: str) -> Callable[..., Element]:
    """Make the function that makes elements of one name.

    Its positional arguments are the children; None is nothing. Its keywords are attributes, `cls` and `for_` being
    `class` and `for`, with `_` for `-`; None and False leave an attribute out, True gives it without a value.
    """
    if not _NAME.fullmatch(name) or name in {"style", "iframe", "object", "embed", "base"}:
        raise ValueError(f"{name!r} is not an element that a page may have")

    def make(*children: Node, **attributes: Attribute) -> Element:
        if children and (name in _VOID or name == "script"):
            raise ValueError(f"{name} has no content of its own")
        return Element(name, children, attributes)

    return make


def document(root: Element) -> bytes:
    """Write a whole document in UTF-8.

    Raises:
        ValueError: an attribute would run a script, or leads away from this server.
    """
    parts = ["<!doctype html>\n"]
    _write(root, parts.append)
    return "".join(parts).encode()


def _write(node: Node, out: Callable[[str], None]) -> None:
    if node is None:
        return
    if isinstance(node, (str, int)):
        out(str(node).translate(_ESCAPED))
    elif isinstance(node, Element):
        out("<" + node.name)
        for key, value in node.attributes.items():
            if value is not None and value is not False:
                out(_attribute(key, value))
        out(">")
        if node.name not in _VOID:
            for child in node.children:
                _write(child, out)
            out(f"</{node.name}>")
    else:
        for child in node:
            _write(child, out)


def _attribute(key: str, value: str | int | bool) -> str:
    name = _wire_name(key)
    if value is True:
        return " " + name
    text = str(value)
    if name in _FOLLOWED and not _HERE.fullmatch(text):
        raise ValueError(f"{name} must be an address of this server, which {text[:80]!r} is not")
    return f' {name}="{text.translate(_ESCAPED)}"'


@functools.cache  # names come from our own code alone, so there are few
def _wire_name(key: str) -> str:
    name = _NAMES.get(key) or key.replace("_", "-")
    if name.startswith("on") or name in {"style", "srcdoc", "srcset", "ping"} or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not an attribute that a page may have")
    return name


_NAMES = {"cls": "class", "for_": "for", "http_equiv": "http-equiv", "view_box": "viewBox", "as_": "as"}
