"""The pod index answers as a walk over all pods would."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from profilingconfig_facts import pod

from toe_async.apis.pods import Pod
from toe_async.apis.selectors import Selector, parse
from toe_async.capture.targets import opted_in
from toe_async.controllers.profilingconfig.matching import PodIndex

SELECTORS = [parse(text) for text in ("", "app=a", "app=a,tier=x", "tier", "app in (a,b)", "!tier", "app=a,tier!=y")]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from("pqrs"),
        st.sampled_from(["shop", "other"]),
        st.none() | st.fixed_dictionaries({}, optional={"app": st.sampled_from("ab"), "tier": st.sampled_from("xy")}),
        st.booleans(),
    ),
    max_size=30,
)


@given(CHANGES, st.lists(st.sets(st.sampled_from(["app", "tier"])), max_size=3))
def test_any_churn_leaves_the_index_equal_to_a_walk(
    changes: list[tuple[str, str, dict[str, str] | None, bool]], keys: list[set[str]]
) -> None:
    """Adds, changes, deletions and changing keys in use: counts and opted-in pods are always right."""
    index, model = PodIndex(opted_in), dict[tuple[str, str], Pod]()
    for number, (name, namespace, labels, opted) in enumerate(changes):
        if number % 7 == 0 and keys:
            index.use_keys(keys.pop())
        old = model.pop((namespace, name), None)
        if labels is None:
            index.handle(old, None)
            continue
        annotations = {"profiling.io/enabled": "true"} if opted else {}
        new = replace(pod(name), namespace=namespace, labels=labels, annotations=annotations)
        model[namespace, name] = new
        index.handle(old, new)
    for namespace in ("shop", "other"):
        for selector in SELECTORS:
            expected = [one for (where, _), one in model.items() if where == namespace and selector.matches(one.labels)]
            found = index.match(namespace, selector)
            assert found.total == len(expected)
            assert found.opted_in == tuple(sorted(filter(opted_in, expected), key=lambda one: one.name))


def test_a_counted_selector_walks_only_its_smallest_label_set() -> None:
    """At 50,000 pods a walk per configuration would be quadratic; the index looks at no pod it need not."""

    class Counting(dict[str, str]):
        looks = 0

        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            Counting.looks += 1
            return super().get(key, default)

    index = PodIndex(opted_in)
    index.use_keys(["app"])
    for number in range(2000):
        labels = Counting(app="rare" if number < 5 else "common", tier="x")
        index.handle(None, replace(pod(f"p{number}"), labels=labels))
    Counting.looks = 0
    assert index.match("shop", Selector.of({"app": "rare", "tier": "x"})).total == 5
    assert len(index.match("shop", Selector.of({"app": "common"})).opted_in) == 1995
    assert Counting.looks <= 20
