"""Where artifacts are stored and how they are called."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.collector import paths

ID = "abcdefghijklmnopqrstuvwxyz234567"
leaves = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True).filter(paths.is_leaf)


def test_the_path_of_an_artifact_is_the_documented_one() -> None:
    """Namespace, labels, run, date, and a file that names pod, container, capture and leaf."""
    folder = paths.directory("shop", {"tier": "web", "app.kubernetes.io/name": "cart"}, "hot", ("2026", "01", "04"))
    assert "/".join(folder) == "shop/app.kubernetes.io%2Fname-cart,tier-web/hot/2026/01/04"
    assert paths.file_name("cart-0", "server", ID, "heap.pprof") == "cart-0-server-abcdefghij-heap.pprof"


def test_labels_give_one_path_in_whatever_order_they_come() -> None:
    """Two labels, two orders."""
    assert paths.labels_segment({"b": "2", "a": "1"}) == paths.labels_segment({"a": "1", "b": "2"}) == "a-1,b-2"


def test_no_labels_have_a_folder_too() -> None:
    """An empty selector is a legal one."""
    assert paths.labels_segment({}) == "no-labels"


def test_long_names_are_cut_with_a_hash_and_stay_apart() -> None:
    """Every segment fits NAME_MAX with the manifest's suffix, and two long names never meet."""
    one, two = (paths.file_name("p" * 252 + end, "c" * 63, ID, "l" * 100) for end in "ab")
    assert one != two
    assert len(one + paths.MANIFEST_SUFFIX) <= 255
    many = {f"key-{number}": "v" * 60 for number in range(64)}
    assert len(paths.labels_segment(many)) <= 255
    assert paths.labels_segment(many) != paths.labels_segment(many | {"key-0": "w"})


@pytest.mark.parametrize(
    ("leaf", "fine"),
    [
        ("heap.pprof", True),
        ("capture-0001.pcap.gz", True),
        ("A_b.C", True),
        ("x" * 100, True),
        ("x" * 101, False),
        ("", False),
        (".", False),
        ("..", False),
        (".hidden", False),
        ("a/b", False),
        ("a\\b", False),
        ("a\0b", False),
        ("a b", False),
        ("trailing.", False),
        ("CON", False),
        ("con.txt", False),
        ("naïve", False),
        ("a\u202egnp.pprof", False),
        ("heap.pprof.manifest.json", False),
        ("heap.part", False),
        ('a"b', False),
        ("a\nb", False),
        ("a\n", False),
    ],
)
def test_only_plain_file_names_are_leaves(leaf: str, fine: bool) -> None:
    """What a file system, a header or a terminal could read in another way is none."""
    assert paths.is_leaf(leaf) is fine


@pytest.mark.parametrize(
    ("leaf", "name"),
    [
        ("heap.pprof", "abcdefghij-heap.pprof"),
        ("cpu-1.pprof", "abcdefghij-cpu-1.pprof"),
        ("Heap.pprof", r"abcdefghij-heap\.pprof-[a-z2-7]{6}"),
        ("a_b", "abcdefghij-a-b-[a-z2-7]{6}"),
        ("a..b", r"abcdefghij-a\.b-[a-z2-7]{6}"),
        ("a-.b", r"abcdefghij-a\.b-[a-z2-7]{6}"),
    ],
)
def test_an_artifact_has_a_dns_name(leaf: str, name: str) -> None:
    """Unchanged where it can be, marked by a hash where it cannot."""
    assert re.fullmatch(name, paths.artifact_name(ID, leaf))


@given(leaves, leaves)
def test_two_leaves_never_share_a_file_or_a_name(one: str, two: str) -> None:
    """And every name is a DNS-1123 subdomain."""
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    for leaf in (one, two):
        assert re.fullmatch(rf"{label}(\.{label})*", paths.artifact_name(ID, leaf))
    assert (paths.artifact_name(ID, one) == paths.artifact_name(ID, two)) == (one == two)
    assert (paths.file_name("p", "c", ID, one) == paths.file_name("p", "c", ID, two)) == (one == two)


@given(st.text(max_size=300), st.dictionaries(st.text(max_size=80), st.text(max_size=80), max_size=5), st.text())
def test_whatever_is_registered_becomes_plain_segments(namespace: str, labels: dict[str, str], run: str) -> None:
    """The layout is safe by itself, even for text that registration refuses."""
    for segment in paths.directory(namespace, labels, run, ("2026",)):
        assert re.fullmatch(r"[A-Za-z0-9_,%=@+-][A-Za-z0-9._,%=@+-]*", segment)
        assert len(segment) <= 200
