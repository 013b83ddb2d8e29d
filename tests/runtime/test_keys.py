"""Keys are told apart and read well."""

from toe_async.runtime.keys import Key


def test_a_key_reads_as_people_write_it() -> None:
    """Cluster-wide objects have no slash."""
    assert str(Key("ns", "a")) == "ns/a"
    assert str(Key("", "node-1")) == "node-1"


def test_keys_of_two_namespaces_never_meet() -> None:
    """Unlike joined texts would."""
    assert len({Key("a", "b"), Key("a", "b"), Key("", "a/b"), Key("a/b", "")}) == 3
