"""The CustomResourceDefinitions: what is checked in is what the types say, and an API server can live with it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from toe_async.apis.crd import all_crds, render_all

CRDS = Path(__file__).parents[2] / "crds"
DEFINITIONS = all_crds()
REASONS = {"FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden", "FieldValueDuplicate"}
each_definition = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: one["metadata"]["name"])

Node = tuple[str, dict[str, Any]]


def schema(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(node: dict[str, Any], path: str = "") -> Iterator[Node]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from walk(node["additionalProperties"], f"{path}{{}}")


def ours(definition: dict[str, Any]) -> Iterator[Node]:
    """Everything below spec and status: the rest is the API server's."""
    for name in ("spec", "status"):
        yield from walk(schema(definition)["properties"][name], f".{name}")


def test_the_files_are_what_the_types_say() -> None:
    """Run `python3 noxfile.py crds` after a change in toe_async/apis."""
    made = render_all()
    assert {path.name for path in CRDS.glob("*.yaml")} - {"kustomization.yaml"} == set(made)
    for name, text in made.items():
        assert (CRDS / name).read_text() == text, name
    assert yaml.safe_load((CRDS / "kustomization.yaml").read_text())["resources"] == sorted(made)


def test_making_them_again_gives_the_same_bytes() -> None:
    """A diff in a CRD is a change of the API and nothing else."""
    assert render_all() == render_all()


def test_both_groups_serve_the_same_schema() -> None:
    """A manifest may move from one to the other by its apiVersion alone."""
    first, second = (one for one in DEFINITIONS if one["spec"]["names"]["kind"] == "ProfilingConfig")
    assert first["spec"]["versions"] == second["spec"]["versions"]
    assert {one["spec"]["group"] for one in (first, second)} == {"profiling.io", "bolometer.io"}


def test_short_names_do_not_clash() -> None:
    """Both definitions live in one cluster."""
    names = [name for one in DEFINITIONS for name in one["spec"]["names"]["shortNames"]]
    assert len(names) == len(set(names))
    assert {"pc", "pt", "ptc"} <= set(names)


@each_definition
def test_the_object_itself_is_valid(definition: dict[str, Any]) -> None:
    """Judged by Kubernetes's published schema of CustomResourceDefinition."""
    kubernetes_validate.validate(definition, "1.36", strict=True)


@each_definition
def test_it_fits_into_the_annotation_of_a_client_side_apply(definition: dict[str, Any]) -> None:
    """kubectl keeps the whole object in an annotation of at most 256 KiB."""
    assert len(yaml.safe_dump(definition)) < 256 * 1024


COLUMNS = {
    "ProfilingConfig": ["Ready", "Reason", "Pods", "Profiles", "Uploads", "Last", "Age"],
    "PowerTool": ["Phase", "Tool", "Selected", "Done", "Failed", "Reason", "Age"],
    "PowerToolConfig": ["Ready", "Tool", "Reason", "LastUsed", "Age"],
}
WIDE = {
    "ProfilingConfig": ["Bucket", "Message"],
    "PowerTool": ["Message", "Mode", "Bytes"],
    "PowerToolConfig": ["Image", "Message"],
}


@each_definition
def test_the_columns_end_with_the_age_and_show_state_and_reason(definition: dict[str, Any]) -> None:
    """Details come only with -o wide."""
    version = definition["spec"]["versions"][0]
    columns = version["additionalPrinterColumns"]
    kind = definition["spec"]["names"]["kind"]
    assert [column["name"] for column in columns if column.get("priority", 0) == 0] == COLUMNS[kind]
    assert [column["name"] for column in columns if column.get("priority", 0) == 1] == WIDE[kind]
    assert columns[-1]["name"] == "Age"
    assert version["subresources"] == {"status": {}}
    assert definition["spec"]["names"]["categories"] == ["toe"]


@each_definition
def test_columns_point_at_fields_that_exist(definition: dict[str, Any]) -> None:
    """A wrong path shows an empty column and no error."""
    known = {path for path, _ in ours(definition)} | {".metadata.creationTimestamp"}
    for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", column["jsonPath"])
        assert path in known, column


@each_definition
def test_every_node_is_structural(definition: dict[str, Any]) -> None:
    """The rules of apiextensions: one type a node, no composition, never both kinds of properties."""
    for path, node in walk(schema(definition)):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        forbidden = {"$ref", "anyOf", "oneOf", "allOf", "not", "title", "uniqueItems", "nullable", "definitions"}
        assert not forbidden & set(node), path
        assert "x-kubernetes-preserve-unknown-fields" not in node, path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node.get("type") == "array":
            assert "items" in node, path
        if node.get("type") == "object" and path:
            assert "properties" in node or "additionalProperties" in node or path == ".metadata", path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert isinstance(node.get(bound, True), bool), path
        if "default" in node:
            assert "default" not in node.get("items", {}), path
        assert set(node.get("required", ())) <= set(node.get("properties", {})), path


@each_definition
def test_every_field_is_described(definition: dict[str, Any]) -> None:
    """`kubectl explain` is the manual that people have at hand."""
    for path, node in walk(schema(definition)):
        if path.endswith(("[]", ".metadata")):
            continue
        text = node.get("description", "")
        assert len(text) > 10, path
        assert text[0].isupper() or not text[0].isalpha(), path


@each_definition
def test_every_text_list_map_and_number_has_a_bound(definition: dict[str, Any]) -> None:
    """The cost of CEL is reckoned from the bounds, and nobody can fill etcd through a field without one."""
    for path, node in ours(definition):
        match node.get("type"):
            case "string":
                assert "maxLength" in node or "enum" in node or node.get("format") == "date-time", path
            case "array":
                assert "maxItems" in node, path
            case "object" if "additionalProperties" in node:
                assert "maxProperties" in node, path
            case "integer" | "number":
                assert "minimum" in node, path
                assert "maximum" in node, path


@each_definition
def test_every_list_says_how_it_merges(definition: dict[str, Any]) -> None:
    """Lists of objects with a key are list-maps, so that server-side apply does not replace a neighbour's entry."""
    for path, node in ours(definition):
        if node.get("type") != "array":
            continue
        kind = node.get("x-kubernetes-list-type")
        assert kind in {"map", "set", "atomic"}, path
        keys = node.get("x-kubernetes-list-map-keys", [])
        assert bool(keys) == (kind == "map"), path
        for key in keys:
            assert key in node["items"]["required"], path


@each_definition
def test_every_rule_says_what_is_wrong_and_where(definition: dict[str, Any]) -> None:
    """Message, reason, and the field where the rule does not sit on it."""
    nodes = walk(schema(definition))
    found = [(path, node, one) for path, node in nodes for one in node.get("x-kubernetes-validations", ())]
    assert len(found) >= 8
    for path, node, one in found:
        assert one["reason"] in REASONS, path
        assert len(one["message"]) > 20, path
        assert "\n" not in one["message"], path
        if "properties" in node:
            inner = node
            for name in one["fieldPath"].removeprefix(".").split("."):
                assert name in inner["properties"], path
                inner = inner["properties"][name]


DEFAULTS: dict[str, dict[str, Any]] = {
    "ProfilingConfig": {
        ".spec.selector.labelSelector": {},
        ".spec.thresholds.of": "Auto",
        ".spec.thresholds.checkIntervalSeconds": 30,
        ".spec.thresholds.cooldownSeconds": 300,
        ".spec.thresholds.forSeconds": 0,
        ".spec.thresholds.risePercent": 0,
        ".spec.thresholds.rearmPercent": 0,
        ".spec.onDemand.enabled": False,
        ".spec.onDemand.intervalSeconds": 35,
        ".spec.profileTypes": ["heap", "cpu", "goroutine", "mutex"],
        ".spec.cpuSeconds": 30,
        ".spec.maxConcurrent": 1,
        ".spec.suspend": False,
    },
    "PowerTool": {
        ".spec.targets.pick": "All",
        ".spec.output.compress": "gzip",
        ".spec.failurePolicy.onError": "continue",
        ".spec.failurePolicy.backoff.initial": "10s",
        ".spec.failurePolicy.backoff.max": "5m",
        ".spec.failurePolicy.backoff.multiplier": "2",
        ".spec.failurePolicy.backoff.attempts": 3,
        ".spec.suspend": False,
        ".spec.concurrencyPolicy": "Forbid",
    },
    "PowerToolConfig": {},
}


@each_definition
def test_defaults_are_those_that_are_promised_and_no_more(definition: dict[str, Any]) -> None:
    """A default is stored in every object and can never be taken back: above all none for the two thresholds."""
    defaults = {path: node["default"] for path, node in walk(schema(definition)) if "default" in node}
    assert defaults == DEFAULTS[definition["spec"]["names"]["kind"]]
