"""One HTML file that shows a profile: flame graph, sandwich, table, difference. It asks nobody for anything.

Names in a profile are hostile. They are in the file as escaped JSON in a block that no browser executes, or as escaped
text for readers without scripts; the script writes them with `textContent` and on canvas only, and the policy forbids
every other script, every request and every markup sink (trusted types).
"""

import base64
import hashlib
import html
import json
import re
from importlib import resources

from toe_async.profiles import folded
from toe_async.profiles.diff import common_types
from toe_async.profiles.model import Profile, ValueType
from toe_async.profiles.top import top
from toe_async.profiles.tree import Tree, merge

__all__ = ["CSP", "flame_page", "policy_of"]


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text("utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HTML, _STYLE, _SCRIPT = _asset("flame.html"), _asset("flame.css"), _asset("flame.js")
# A browser takes these from a <meta> element too; the rest of CSP only counts in a header.
_META = (
    f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; img-src data:; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
CSP = f"{_META}; frame-ancestors 'none'; sandbox allow-scripts allow-downloads"
"""The Content-Security-Policy header to serve the page with: a place of its own without an origin, nothing allowed but
its own script and style. The file carries the same policy for whoever opens it from disk."""

# A page's own policy is in its first lines, before anything that a profile can name.
_HEAD = re.compile(
    rb'<!doctype html>\s*<html lang="en">\s*<head>\s*<meta charset="utf-8"/?>\s*'
    rb'<meta http-equiv="Content-Security-Policy" content="([^"]{1,1000})"/?>',
    re.IGNORECASE,
)
_HASHES = re.compile(r"(script|style)-src '(sha256-[A-Za-z0-9+/]{43}=)'")


def policy_of(page: bytes) -> str:
    """The policy to send with a page of any release: `CSP`, with the script and style that the page itself declares.

    A collector and who shows its pages are rarely of one release. What does not begin as our pages do gets `CSP`.
    """
    head = _HEAD.match(page[:4096])
    if head is None:
        return CSP
    declared = dict(_HASHES.findall(html.unescape(head.group(1).decode("ascii", "replace"))))
    return _HASHES.sub(lambda own: f"{own[1]}-src '{declared.get(own[1], own[2])}'", CSP)


_ROWS = 50
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def flame_page(
    profile: Profile, *, title: str, subtitle: str = "", sample: str | None = None, base: Profile | None = None
) -> bytes:
    """The page of `profile`; with `base`, or for folded stacks with two columns, what changed since.

    `title` and `subtitle` (capture facts: pod, container, time) are any text. The page begins with the sample type
    `sample`, or with the one that the profile asks for. The same arguments give the same bytes. Raises ProfileError
    for a sample type that is not there and for a base that measures nothing of the same kind.
    """
    if base is None and profile.sample_types == folded.DIFFERENTIAL:
        profile, base = _column(profile, 1), _column(profile, 0)
    kinds = profile.sample_types if base is None else common_types(base, profile)
    shown = Profile(sample_types=kinds, samples=(), default_type=profile.default_type).index_of(sample)
    sources = [(one, [one.sample_types.index(kind) for kind in kinds]) for one in (profile, base) if one is not None]
    tree = merge(sources)
    data = {
        "title": title,
        "types": [[kind.type, kind.unit] for kind in kinds],
        "shown": shown,
        "diff": base is not None,
        **_columns(tree, len(kinds) * len(sources)),
    }
    parts = {
        "TITLE": html.escape(title),
        "SUBTITLE": html.escape(subtitle),
        "CSP": html.escape(_META, quote=False),
        "STYLE": _STYLE,
        "SCRIPT": _SCRIPT,
        "DATA": json.dumps(data, separators=(",", ":")).translate(_ESCAPES),
        "TOP": _rows(profile, kinds[shown]),
    }
    out = []
    for piece in _HTML.split("{{"):  # in one pass: what is put in is never looked at again
        name, mark, rest = piece.partition("}}")
        out += [parts[name], rest] if mark else [piece]
    return "".join(out).encode("utf-8", "replace")


def _column(profile: Profile, column: int) -> Profile:
    samples = tuple(
        type(sample)(sample.stack, (sample.values[column],)) for sample in profile.samples if sample.values[column]
    )
    return Profile(sample_types=(ValueType("samples", "count"),), samples=samples)


def _columns(tree: Tree, width: int) -> dict[str, object]:
    """The tree as flat lists: small numbers, no keys, and of the values only those that are there."""
    nodes = sorted(tree.own)
    gaps = [node - before for before, node in zip([0, *nodes], nodes, strict=False)]
    return {
        "names": tree.functions,
        "files": tree.files if any(tree.files) else [],
        "depths": tree.depths.tolist(),
        "frames": tree.names.tolist(),
        "at": gaps,
        "own": [[tree.own[node][column] for node in nodes] for column in range(width)],
        "dropped": tree.dropped,
    }


def _rows(profile: Profile, kind: ValueType) -> str:
    """The table for readers without scripts."""
    found = top(profile, kind.type, limit=_ROWS)
    rows = (
        f"<tr><td>{row.flat:,}<td>{row.cumulative:,}<td><bdi>{html.escape(row.function)}</bdi></tr>"
        for row in found.rows
    )
    head = f"<caption>{html.escape(kind.type)} in {html.escape(kind.unit)}, {found.total:,} in all</caption>"
    return f"<table>{head}<tr><th>Self<th>Total<th>Function</tr>{''.join(rows)}</table>"
