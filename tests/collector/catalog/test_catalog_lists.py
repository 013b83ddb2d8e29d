"""What a list holds: order, filters, pages and tokens."""

import base64
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.collector.catalog.catalogrig import T0, listed, manifest, names
from toe_async.apis.meta import LabelSelectorRequirement, SelectorOperator
from toe_async.apis.selectors import Selector, parse
from toe_async.collector.captures import Manifest
from toe_async.collector.catalog import Catalog, FieldTerm, Page, Query, Usage
from toe_async.collector.catalog.query import order, place_of, to_token
from toe_async.collector.catalog.rows import ROWS_LOOKED_AT

SHOP = Query(namespace="shop")


async def test_the_newest_comes_first_and_namespaces_do_not_mix(catalog: Catalog) -> None:
    """Equal instants go by namespace and name."""
    await catalog.add([manifest("b", 1), manifest("a", 1), manifest("c", 2), manifest("x", 1, namespace="bank")])
    assert await listed(catalog, SHOP) == ["c", "a", "b"]
    assert await listed(catalog, Query(namespace="bank")) == ["x"]
    assert await listed(catalog, Query(namespace="nowhere")) == []
    assert await listed(catalog) == ["c", "x", "a", "b"]
    assert await catalog.namespaces() == ["bank", "shop"]


FOUND = [
    (Query(namespace="shop", run="hot"), ["c", "a"]),
    (Query(namespace="shop", run="u-2"), ["c", "b"]),
    (Query(run="u-2"), ["d", "c", "b"]),
    (Query(namespace="shop", run="cold"), ["b"]),
    (Query(namespace="shop", run="none"), []),
    (Query(since=T0 + timedelta(seconds=3)), ["d", "c"]),
    (Query(until=T0 + timedelta(seconds=3)), ["b", "a"]),
    (Query(since=T0 + timedelta(seconds=2), until=T0 + timedelta(seconds=4)), ["c", "b"]),
    (Query(namespace="shop", run="hot", until=T0 + timedelta(seconds=3)), ["a"]),
    (Query(text="CART"), ["c", "a"]),
    (Query(text="93.1 %"), ["b"]),
    (Query(text="STRASSE"), ["d"]),
    (Query(text="shop"), []),
    (Query(fields=(FieldTerm("artifact.pod", "cart-1"),)), ["a"]),
    (Query(fields=(FieldTerm("artifact.pod", "cart-1", equal=False),)), ["d", "c", "b"]),
    (Query(fields=(FieldTerm("metadata.namespace", "bank"),)), ["d"]),
    (Query(namespace="shop", fields=(FieldTerm("metadata.namespace", "bank"),)), []),
    (Query(fields=(FieldTerm("metadata.name", "c"), FieldTerm("artifact.runUID", "u-2"))), ["c"]),
    (Query(labels=parse("tier=web")), ["c", "a"]),
    (Query(labels=parse("tier!=web")), ["d", "b"]),
    (Query(labels=parse("!tier")), ["d"]),
    (Query(labels=parse("tier in (web, db),canary")), ["c"]),
    (Query(namespace="shop", run="u-2", labels=parse("tier"), text="cart", since=T0), ["c"]),
]  # fmt: skip


@pytest.mark.parametrize(("query", "wanted"), FOUND)
async def test_every_part_of_a_query_narrows_the_list(catalog: Catalog, query: Query, wanted: list[str]) -> None:
    """And one artifact a page gives the same as all at once."""
    await catalog.add(
        [
            manifest("a", 1, pod="cart-1", labels={"tier": "web"}),
            manifest("b", 2, pod="till-1", run="cold", run_uid="u-2", labels={"tier": "db"}, trigger="cpu at 93.1 %"),
            manifest("c", 3, pod="Cart-2", run_uid="u-2", labels={"tier": "web", "canary": ""}),
            manifest("d", 4, namespace="bank", run="warm", run_uid="u-2", reason="stra\u00dfe"),
        ]
    )
    assert await listed(catalog, query) == wanted
    assert await listed(catalog, query, limit=1) == wanted


def test_a_field_that_is_none_cannot_be_asked_for() -> None:
    """Else a mistyped one would select nothing, or everything."""
    with pytest.raises(ValueError, match=r"'artifact.sha' cannot be selected by; there are metadata.name"):
        FieldTerm("artifact.sha", "x")


_KEYS, _VALUES = st.sampled_from(["a", "b"]), st.sampled_from(["", "x", "y"])
_LABELS = st.dictionaries(_KEYS, _VALUES)
_TERMS = st.one_of(
    st.builds(
        LabelSelectorRequirement,
        key=_KEYS,
        operator=st.sampled_from([SelectorOperator.IN, SelectorOperator.NOT_IN]),
        values=st.lists(_VALUES, min_size=1, max_size=2).map(tuple),
    ),
    st.builds(
        LabelSelectorRequirement,
        key=_KEYS,
        operator=st.sampled_from([SelectorOperator.EXISTS, SelectorOperator.DOES_NOT_EXIST]),
    ),
)


@given(held=st.lists(_LABELS, max_size=6), equal=_LABELS, terms=st.lists(_TERMS, max_size=2))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_labels_are_selected_as_kubernetes_does(
    catalog: Catalog, held: list[dict[str, str]], equal: dict[str, str], terms: list[LabelSelectorRequirement]
) -> None:
    """NotIn and DoesNotExist select what has no such label; the rule is written out here once more."""

    def holds(one: LabelSelectorRequirement, labels: dict[str, str]) -> bool:
        inside = one.key in labels and labels[one.key] in one.values
        return {
            SelectorOperator.IN: inside,
            SelectorOperator.NOT_IN: not inside,
            SelectorOperator.EXISTS: one.key in labels,
            SelectorOperator.DOES_NOT_EXIST: one.key not in labels,
        }[one.operator]

    for name in await listed(catalog):
        await catalog.remove("shop", name)
    await catalog.add([manifest(f"n{number}", -number, labels=labels) for number, labels in enumerate(held)])
    wanted = [
        f"n{number}"
        for number, labels in enumerate(held)
        if all(labels.get(key) == value for key, value in equal.items()) and all(holds(one, labels) for one in terms)
    ]
    assert await listed(catalog, Query(namespace="shop", labels=Selector.of(equal, terms))) == wanted


@given(
    seconds=st.lists(st.integers(0, 9), max_size=25),
    limit=st.integers(1, 6),
    drop=st.booleans(),
    run=st.sampled_from(["", "hot", "u-1"]),
    only=st.sampled_from(["", "shop"]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_join_to_the_whole_list_even_when_it_changes_between_them(
    catalog: Catalog, seconds: list[int], limit: int, drop: bool, run: str, only: str
) -> None:
    """Nothing twice, nothing left out that was there all the time; what comes meanwhile is newer and not in it."""
    for known in ("shop", "bank"):
        for name in await listed(catalog, Query(namespace=known)):
            await catalog.remove(known, name)
    made = [
        manifest(f"n{number}", second, namespace=("shop", "bank")[number % 2], run_uid=f"u-{number % 3}")
        for number, second in enumerate(seconds)
    ]
    await catalog.add(made)
    query = Query(namespace=only, run=run)
    wanted = [
        one.name for one in sorted(made, key=order) if only in {"", one.namespace} and run in {"", one.run, one.run_uid}
    ]
    got, after, late = list[str](), "", 0
    while True:
        page = await catalog.page(query, limit, after)
        got += names(page.entries)
        late += 1
        await catalog.add([manifest(f"late{late}", 100 + late)])
        if drop and page.entries:
            await catalog.remove(page.entries[-1].manifest.namespace, page.entries[-1].manifest.name)
        after = page.continue_
        if not after:
            break
    assert got == wanted


_GOOD = to_token(place_of(manifest("a", 1), 3))


def _coded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "!", "\u00e9", "A" * 9, "A" * 100_000, _GOOD[:-4], _GOOD + "\n",
        _coded(b"not json"), _coded(b"[]"), _coded(b'["a",1]'), _coded(b'[1,"shop","a"]'),
        _coded(b'[1,"shop","a",0,0]'), _coded(b'[1,"shop","a",-1]'), _coded(b'[99999999999999999999999,"shop","a",0]'),
        _coded(b'[9223372036854775807,"shop","a",0]'), _coded(b'[1,"sh\xff",\"a\",0]'), _coded(b'{"age":1}'),
    ],
)  # fmt: skip
async def test_a_made_up_continue_token_is_refused(catalog: Catalog, token: str) -> None:
    """It is data from outside like any other."""
    with pytest.raises(ValueError, match="begin the list again"):
        await catalog.page(Query(), 1, token)


async def test_a_page_looks_at_a_bounded_number_of_rows(catalog: Catalog) -> None:
    """A filter that matches little gives short pages and a way to go on, instead of a long silence."""
    count = 2 * ROWS_LOOKED_AT + 700
    await catalog.add(
        manifest(f"n{number}", -number, labels={"last": "y"} if number == count - 1 else {}) for number in range(count)
    )
    pages, after = list[Page](), ""
    while True:
        pages.append(await catalog.page(Query(namespace="shop", labels=parse("last")), 500, after))
        after = pages[-1].continue_
        if not after:
            break
    assert [len(page.entries) for page in pages] == [0, 0, 1]
    assert [page.remaining for page in pages] == [None, None, None]


async def test_how_many_remain_is_told_where_it_is_known(catalog: Catalog) -> None:
    """Of a whole namespace or of all; not of a filter, and not where nothing remains."""
    await catalog.add([manifest(f"n{number}", number) for number in range(7)] + [manifest("x", namespace="bank")])
    first = await catalog.page(SHOP, 3, "")
    second = await catalog.page(SHOP, 3, first.continue_)
    third = await catalog.page(SHOP, 3, second.continue_)
    assert [first.remaining, second.remaining, third.remaining] == [4, 1, None]
    assert (await catalog.page(Query(), 3, "")).remaining == 5
    assert (await catalog.page(Query(namespace="shop", run="hot"), 3, "")).remaining is None


async def test_a_full_last_page_has_no_continue(catalog: Catalog) -> None:
    """Or every client would ask once more for nothing."""
    await catalog.add([manifest(f"n{number}", number) for number in range(4)])
    for query in (SHOP, Query(), Query(namespace="shop", text="cart"), Query(namespace="shop", run="hot")):
        assert (await catalog.page(query, 4, "")).continue_ == ""


async def test_adding_twice_and_removing_keep_the_list_true(catalog: Catalog) -> None:
    """A commit and a build may both bring an artifact; versions grow with each that is new or changed."""
    await catalog.add([manifest("a", 1), manifest("b", 2)])
    first = await catalog.get("shop", "a")
    await catalog.add([manifest("a", 1)])
    assert await catalog.get("shop", "a") == first
    await catalog.add([manifest("a", 1, hold="case 7")])
    held = await catalog.get("shop", "a")
    assert first is not None
    assert held is not None
    assert (held.manifest.hold, held.version > first.version) == ("case 7", True)
    assert (await catalog.page(SHOP, 5, "")).version >= held.version
    await catalog.forget(first)
    assert await listed(catalog, SHOP) == ["b", "a"]
    await catalog.forget(held)
    await catalog.remove("shop", "b")
    await catalog.remove("shop", "never")
    assert await listed(catalog, SHOP) == []
    assert await catalog.get("shop", "b") is None


async def test_the_artifacts_of_a_capture_are_found_by_the_beginning_of_its_id(catalog: Catalog) -> None:
    """Names carry ten characters of it, captures with the same ones are told apart by the rest."""
    one, other = "abcdefghij" + "k" * 22, "abcdefghij" + "m" * 22

    def stored(name: str, capture: str, namespace: str = "shop") -> Manifest:
        return manifest(name, capture=capture, namespace=namespace)

    await catalog.add([stored("abcdefghij-cpu", one), stored("abcdefghij-heap", one), stored("abcdefghij-x", other)])
    await catalog.add(
        [stored("abcdefghik-cpu", "abcdefghik" + "k" * 22), stored("abcdefghij-z", one, namespace="bank")]
    )
    assert names(await catalog.capture("shop", one)) == ["abcdefghij-cpu", "abcdefghij-heap"]
    assert names(await catalog.capture("shop", "abcdefghij")) == ["abcdefghij-cpu", "abcdefghij-heap", "abcdefghij-x"]
    assert len(await catalog.capture("shop", "abc")) == 4
    assert await catalog.capture("shop", "") == ()
    assert await catalog.capture("shop", "zzz") == ()


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "hold"]),
        st.integers(0, 5),
        st.sampled_from(["shop", "bank"]),
        st.integers(0, 99),
    ),
    max_size=30,
)


@given(changes=_CHANGES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_a_namespace_holds_is_always_what_a_count_would_give(
    catalog: Catalog, changes: list[tuple[str, int, str, int]]
) -> None:
    """It is kept by the changes themselves, whatever their order."""
    for namespace in await catalog.namespaces():
        for name in await listed(catalog, Query(namespace=namespace)):
            await catalog.remove(namespace, name)
    model: dict[tuple[str, str], Manifest] = {}
    for what, number, namespace, size in changes:
        key = (namespace, f"n{number}")
        if what == "remove":
            model.pop(key, None)
            await catalog.remove(*key)
        else:
            model[key] = manifest(key[1], namespace=namespace, size=size, hold="kept" if what == "hold" else "")
            await catalog.add([model[key]])
    for namespace in ("", "shop", "bank", "nowhere"):
        held = [one for one in model.values() if namespace in {"", one.namespace}]
        assert await catalog.usage(namespace) == Usage(len(held), sum(one.size for one in held))
    kept = [one for one in model.values() if one.hold]
    assert await catalog.held() == Usage(len(kept), sum(one.size for one in kept))
    assert await catalog.namespaces() == sorted({namespace for namespace, _ in model})
