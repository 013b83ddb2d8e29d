"""Samples merged into one tree: nothing is lost, and what does not fit is drawn together."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from toe_async.profiles.model import Frame, Profile, Sample, ValueType
from toe_async.profiles.tree import SMALLER, Tree, merge

Stacks = Counter[tuple[str, ...]]


def profile(stacks: dict[tuple[str, ...], int]) -> Profile:
    samples = tuple(Sample(tuple(map(Frame, reversed(path))), (value,)) for path, value in stacks.items())
    return Profile(sample_types=(ValueType("n", "count"),), samples=samples)


def stacks_of(tree: Tree, column: int = 0) -> Stacks:
    """Back to stacks, root first, of whatever costs something."""
    out: Stacks = Counter()
    path: list[str] = []
    for node, (depth, name) in enumerate(zip(tree.depths, tree.names, strict=True)):
        assert depth <= len(path)  # preorder: at most one deeper than the node before
        path[depth:] = [tree.functions[name]]
        if node in tree.own:
            out[tuple(path[1:])] += tree.own[node][column]
    return out


def test_stacks_that_begin_alike_share_their_nodes() -> None:
    """Equal stacks are one node; a stack that is the beginning of another one ends inside it."""
    tree = merge([(profile({("m", "a", "b"): 1, ("m", "a"): 2, ("m", "c"): 3, (): 4}), [0])])
    assert tree.depths.tolist() == [0, 1, 2, 3, 2]
    assert [tree.functions[name] for name in tree.names] == ["", "m", "a", "b", "c"]
    assert tree.own == {0: (4,), 2: (2,), 3: (1,), 4: (3,)}


def test_two_profiles_stand_side_by_side() -> None:
    """What only one of them has is 0 in the other."""
    tree = merge([(profile({("a",): 5}), [0]), (profile({("b",): 7}), [0])])
    assert stacks_of(tree, 0) == Counter({("a",): 5})
    assert stacks_of(tree, 1)[("b",)] == 7


def test_above_the_bound_the_cheapest_subtrees_are_drawn_together() -> None:
    """Their sum stays with their caller, under a name that says what it is."""
    wide: dict[tuple[str, ...], int] = {("m", f"f{i:03}"): i for i in range(1, 100)}
    tree = merge([(profile({**wide, ("m", "f099", "deep"): 1}), [0])], max_nodes=10)
    found = stacks_of(tree)
    kept = {path: value for path, value in found.items() if SMALLER not in path}
    assert kept == {("m", f"f{i:03}"): i for i in range(92, 100)}
    assert found[("m", SMALLER)] == sum(range(1, 92))
    assert found[("m", "f099", SMALLER)] == 1
    assert tree.dropped == 92


paths = st.lists(st.sampled_from("abc"), max_size=6).map(tuple)


@given(st.dictionaries(paths, st.integers(-50, 1 << 62), max_size=20), st.integers(1, 12))
def test_nothing_is_lost(stacks: dict[tuple[str, ...], int], bound: int) -> None:
    """Without pruning every stack is there with its value; with it the sum is, and the bound holds."""
    whole = merge([(profile(stacks), [0])])
    assert {path: value for path, value in stacks_of(whole).items() if value} == {k: v for k, v in stacks.items() if v}
    small = merge([(profile(stacks), [0])], max_nodes=bound)
    assert sum(stacks_of(small).values()) == sum(stacks.values())
    assert sum(small.functions[name] != SMALLER for name in small.names) <= bound
