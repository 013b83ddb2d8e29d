"""Names of leaves: what the collector takes, and never the same for two files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.agent.leafnames import is_compressed, is_leaf, leaf_name
from toe_async.collector import paths

NAMES = st.one_of(
    st.text(min_size=1, max_size=140),
    st.from_regex(r"[A-Za-z0-9._ /-]{1,120}", fullmatch=True),
    st.sampled_from(["..", ".", "con.txt", "a.manifest.json", "a.part", "-x", "_", "é.pcap", "\udcff.bin", "a/../b"]),
)


@given(NAMES)
def test_our_rule_is_the_collectors(text: str) -> None:
    assert is_leaf(text) == paths.is_leaf(text)


@given(st.lists(NAMES, unique=True, max_size=30), st.sampled_from(["", ".gz", ".zst"]))
def test_any_files_get_names_that_the_collector_takes_and_never_share_one(files: list[str], suffix: str) -> None:
    taken: set[str] = set()
    for file in files:
        name = leaf_name(file, suffix, taken)
        assert paths.is_leaf(name)
        assert name.endswith(suffix)
        assert name not in taken
        taken.add(name)


@pytest.mark.parametrize(
    ("path", "suffix", "begin", "end"),
    [
        ("dump.pcap", ".gz", "dump.pcap.gz", ""),
        ("sub/dump.pcap", "", "sub-dump.pcap", ""),
        ("my dump é.pcap", ".gz", "my_dump-", ".pcap.gz"),
        ("-rf.txt", "", "rf-", ".txt"),
        ("..hidden", "", "hidden-", ""),
        ("x" * 200 + ".pcap", ".gz", "x" * 20, ".pcap.gz"),
        ("data.part", "", "data", ""),
        ("日本", "", "file-", ""),
    ],
)
def test_a_name_keeps_what_tells_its_reader_what_it_is(path: str, suffix: str, begin: str, end: str) -> None:
    name = leaf_name(path, suffix, ())
    assert name.startswith(begin)
    assert name.endswith(end)
    assert is_leaf(name)


def test_a_compressed_file_and_one_that_will_be_called_like_it_stay_apart() -> None:
    first = leaf_name("a", ".gz", ())
    second = leaf_name("a.gz", "", {first})
    assert (first, second == first) == ("a.gz", False)
    assert second.endswith(".gz")


def test_what_is_compressed_is_known_by_its_ending() -> None:
    assert [name for name in ("a.tar.GZ", "b.zst", "c.jfr", "d.pcap", "e") if is_compressed(name)] == [
        "a.tar.GZ",
        "b.zst",
    ]
