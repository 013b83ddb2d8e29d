"""Samples merged into one tree of calls: what a flame graph draws."""

from array import array

import msgspec

from toe_async.profiles.model import Profile

__all__ = ["SMALLER", "Tree", "merge"]

SMALLER = "(smaller frames)"
"""Stands for the frames that did not fit; always a leaf."""

MAX_NODES = 120_000


class Tree(msgspec.Struct, frozen=True):
    """Nodes in preorder: parents before children, a subtree in one piece. Node 0 is the whole profile, at depth 0.

    Frames are told apart by function, as in `top` and `folded`; function 0 is the root's. `files` has each function's
    file, as first met. `own` has what a node costs by itself, one value for each kind; nodes that cost nothing are
    left out. `dropped` counts the nodes that SMALLER stands for.
    """

    functions: list[str]
    files: list[str]
    depths: "array[int]"
    names: "array[int]"
    own: dict[int, tuple[int, ...]]
    dropped: int


def merge(sources: list[tuple[Profile, list[int]]], max_nodes: int = MAX_NODES) -> Tree:
    """One tree of all `sources`, each a profile with the positions of the values to take from it.

    A node's values are those of the first source, then those of the second, and so on. Above `max_nodes` the nodes
    that cost least (counting what they call, as shares of each kind's total) are drawn together: see SMALLER.
    """
    functions: dict[str, int] = {}
    files = [""]  # number 0 is the root's, whatever functions are called
    width = sum(len(columns) for _, columns in sources)
    stacks: dict[tuple[int, ...], list[int]] = {}
    left = 0
    for profile, columns in sources:
        for sample in profile.samples:
            path = []
            for frame in reversed(sample.stack):
                number = functions.get(frame.function)
                if number is None:
                    number = functions[frame.function] = len(files)
                    files.append(frame.file)
                path.append(number)
            sums = stacks.setdefault(tuple(path), [0] * width)
            for at, column in enumerate(columns, start=left):
                sums[at] += sample.values[column]
        left += len(columns)
    depths, names, own = _preorder(stacks)
    tree = Tree(["", *functions], files, depths, names, own, 0)
    return tree if len(depths) <= max_nodes else _pruned(tree, width, max_nodes)


def _preorder(
    stacks: dict[tuple[int, ...], list[int]],
) -> tuple["array[int]", "array[int]", dict[int, tuple[int, ...]]]:
    """Sorted, each stack shares its beginning with the one before: no lookup is needed to build the tree."""
    depths, names = array("i", [0]), array("i", [0])
    own: dict[int, tuple[int, ...]] = {}
    before: tuple[int, ...] = ()
    for path in sorted(stacks):
        same = 0
        for mine, theirs in zip(path, before, strict=False):
            if mine != theirs:
                break
            same += 1
        depths.extend(range(same + 1, len(path) + 1))
        names.extend(path[same:])
        if any(stacks[path]):
            own[len(depths) - 1] = tuple(stacks[path])
        before = path
    return depths, names, own


def _pruned(tree: Tree, width: int, max_nodes: int) -> Tree:
    """Keep the nodes that cost more than the first one that has no place: a parent never costs less than its child."""
    weights = _weights(tree, width)
    cut = sorted(weights, reverse=True)[max_nodes]
    depths, names = array("i"), array("i")
    own: dict[int, tuple[int, ...]] = {}
    path: list[int] = []  # the kept nodes from the root down
    spare: dict[int, int] = {}  # kept node -> its SMALLER
    smaller = len(tree.functions)
    dropped = 0
    for node, depth in enumerate(tree.depths):
        values = tree.own.get(node)
        if node == 0 or weights[node] > cut:
            del path[depth:]
            path.append(len(depths))
            depths.append(depth)
            names.append(tree.names[node])
            if values:
                own[path[-1]] = values
            continue
        dropped += 1
        if depth < len(path):  # its parent is kept, and this is where the parent's subtree goes on
            del path[depth:]
        parent = path[-1]
        if values is None:
            continue
        into = spare.get(parent)
        if into is None:
            into = spare[parent] = len(depths)
            depths.append(len(path))
            names.append(smaller)
        own[into] = tuple(map(sum, zip(own.get(into, (0,) * width), values, strict=True)))
    return Tree([*tree.functions, SMALLER], [*tree.files, ""], depths, names, own, dropped)


def _weights(tree: Tree, width: int) -> "array[float]":
    totals = [sum(abs(values[at]) for values in tree.own.values()) or 1 for at in range(width)]
    weights = array("d", bytes(8 * len(tree.depths)))
    below = array("d", bytes(8 * (max(tree.depths) + 2)))  # by depth: the subtrees seen since the last node above
    depths, own = tree.depths, tree.own
    for node in range(len(depths) - 1, -1, -1):
        depth = depths[node]
        weight = below[depth + 1]
        if node in own:
            weight += sum(abs(value) / total for value, total in zip(own[node], totals, strict=True))
        weights[node] = weight
        below[depth + 1] = 0.0
        below[depth] += weight
    return weights
