"""Custom resources: schema, defaults, pruning, CEL, status split and what kubectl prints of them."""

import json

import pytest

from tests.contract.clusters import JSON, Answer, Server

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
UNCHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
SPEC: JSON = {
    "type": "object",
    "required": ["mode"],
    "x-kubernetes-validations": [
        {"rule": "!has(self.size) || self.size != 13", "message": "thirteen is refused"},
        {
            "rule": "self.mode != 'B' || has(self.name)",
            "messageExpression": "'mode ' + self.mode + ' needs a name'",
            "reason": "FieldValueRequired",
            "fieldPath": ".name",
        },
    ],
    "properties": {
        "mode": {
            "type": "string",
            "enum": ["A", "B"],
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "mode is immutable"}],
        },
        "size": {"type": "integer", "minimum": 1, "maximum": 100, "format": "int32"},
        "name": {"type": "string", "maxLength": 5, "minLength": 2, "pattern": "^[a-z]+$"},
        "level": {"type": "string", "default": "low"},
        "list": {
            "type": "array",
            "maxItems": 2,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "required": ["k"],
                "properties": {"k": {"type": "string"}, "v": {"type": "string", "default": "dv"}},
            },
        },
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "port": {"x-kubernetes-int-or-string": True},
        "map": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}},
        "flag": {"type": "boolean"},
        "ratio": {"type": "number", "maximum": 1.5},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "when": {"type": "string", "format": "date-time"},
        "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "integer", "default": 3}}},
    },
}
STATUS: JSON = {
    "type": "object",
    "properties": {
        "observedGeneration": {"type": "integer"},
        "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
            },
        },
    },
}
COLUMNS: list[JSON] = [
    {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"},
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
    {"name": "Wide", "type": "string", "priority": 1, "jsonPath": ".spec.name"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def definition(group: str) -> JSON:
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": SPEC, "status": STATUS}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": COLUMNS,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": "probes", "singular": "probe", "kind": "Probe", "shortNames": ["prb"], "categories": ["toe"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"probes.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class Probes:
    """The served custom resource of one test."""

    def __init__(self, server: Server, group: str) -> None:
        self.server = server
        self.group = group
        self.path = f"/apis/{group}/v1/namespaces/{server.namespace}/probes"

    def body(self, name: str, spec: object) -> JSON:
        return {"apiVersion": f"{self.group}/v1", "kind": "Probe", "metadata": {"name": name}, "spec": spec}

    async def create(self, spec: object, name: str = "a", **query: str) -> Answer:
        return await self.server.call("POST", self.path, self.body(name, spec), params=query)


@pytest.fixture
async def probes(server: Server) -> Probes:
    """A definition of the test's own group, served."""
    held = Probes(server, f"{server.namespace}.toe.run")
    await server.make_cluster_wide(DEFINITIONS, definition(held.group))
    await server.eventually(lambda: server.call("GET", held.path), lambda answer: answer.status == 200)
    return held


async def test_a_definition_is_accepted_and_established(probes: Probes) -> None:
    held = await probes.server.until(f"{DEFINITIONS}/probes.{probes.group}", lambda one: "conditions" in one["status"])
    conditions = {one["type"]: (one["status"], one["reason"]) for one in held["status"]["conditions"]}
    assert conditions["NamesAccepted"] == ("True", "NoConflicts")
    assert conditions["Established"] == ("True", "InitialNamesAccepted")
    assert held["status"]["acceptedNames"]["listKind"] == "ProbeList"
    assert held["status"]["storedVersions"] == ["v1"]
    assert held["spec"]["conversion"] == {"strategy": "None"}


async def test_defaults_are_filled_in_and_unknown_fields_are_pruned(probes: Probes) -> None:
    spec = {
        "mode": "A",
        "list": [{"k": "x", "zz": 1}],
        "unknown": 1,
        "any": {"x": {"y": 1}},
        "nested": {},
        "level": None,
    }
    made = await probes.create(spec)
    assert made.status == 201
    assert made.body["spec"] == {
        "mode": "A",
        "list": [{"k": "x", "v": "dv"}],
        "any": {"x": {"y": 1}},
        "nested": {"deep": 3},
        "level": "low",
    }
    assert made.body["metadata"]["generation"] == 1


async def test_unknown_fields_warn_or_are_refused_on_demand(probes: Probes) -> None:
    spec = {"mode": "A", "unknown": 1, "list": [{"k": "x", "zz": 1}]}
    strict = await probes.create(spec, fieldValidation="Strict")
    warned = await probes.create(spec, fieldValidation="Warn")
    assert (strict.status, strict.body["reason"]) == (400, "BadRequest")
    assert strict.message.endswith(
        'strict decoding error: unknown field "spec.list[0].zz", unknown field "spec.unknown"'
    )
    assert warned.status == 201
    assert '299 - "unknown field \\"spec' in warned.headers["Warning"]


@pytest.mark.parametrize(
    ("spec", "said", "blocking"),
    [
        ({"mode": "C"}, 'spec.mode: Unsupported value: "C": supported values: "A", "B"', True),
        ({"mode": 5}, 'spec.mode: Invalid value: "integer": spec.mode in body must be of type string: "integer"', True),
        ({}, "spec.mode: Required value", True),
        ({"mode": None}, "spec.mode: Required value", True),
        (None, "spec: Required value", True),
        ([], 'spec: Invalid value: "array": spec in body must be of type object: "array"', True),
        (
            {"mode": "A", "size": 0},
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
            False,
        ),
        (
            {"mode": "A", "size": 101},
            "spec.size: Invalid value: 101: spec.size in body should be less than or equal to 100",
            False,
        ),
        (
            {"mode": "A", "size": "x"},
            'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"',
            True,
        ),
        (
            {"mode": "A", "size": 1.5},
            'spec.size: Invalid value: "float64": spec.size in body must be of type int32: "float64"',
            True,
        ),
        ({"mode": "A", "name": "toolong"}, "spec.name: Too long: may not be more than 5 bytes", True),
        (
            {"mode": "A", "name": "a"},
            'spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long',
            False,
        ),
        (
            {"mode": "A", "name": "AB"},
            "spec.name: Invalid value: \"AB\": spec.name in body should match '^[a-z]+$'",
            False,
        ),
        ({"mode": "A", "list": [{"k": "a"}, {"k": "a"}]}, 'spec.list[1]: Duplicate value: {"k":"a"}', False),
        (
            {"mode": "A", "list": [{"k": "a"}, {"k": "b"}, {"k": "c"}]},
            "spec.list: Too many: 3: must have at most 2 items",
            True,
        ),
        ({"mode": "A", "list": [{}]}, "spec.list[0].k: Required value", True),
        (
            {"mode": "A", "list": "x"},
            'spec.list: Invalid value: "string": spec.list in body must be of type array: "string"',
            True,
        ),
        ({"mode": "A", "map": {"a": "toolong"}}, "spec.map.a: Too long: may not be more than 3 bytes", True),
        (
            {"mode": "A", "map": {"a": 4}},
            'spec.map.a: Invalid value: "integer": spec.map.a in body must be of type string: "integer"',
            True,
        ),
        (
            {"mode": "A", "flag": "x"},
            'spec.flag: Invalid value: "string": spec.flag in body must be of type boolean: "string"',
            True,
        ),
        (
            {"mode": "A", "ratio": 2.5},
            "spec.ratio: Invalid value: 2.5: spec.ratio in body should be less than or equal to 1.5",
            False,
        ),
        ({"mode": "A", "set": ["a", "a"]}, 'spec.set[1]: Duplicate value: "a"', False),
        (
            {"mode": "A", "when": "x"},
            'spec.when: Invalid value: "x": spec.when in body must be of type date-time: "x"',
            True,
        ),
        (
            {"mode": "A", "port": True},
            'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"',
            True,
        ),
        ({"mode": "A", "size": 13}, "spec: Invalid value: thirteen is refused", False),
        ({"mode": "B"}, "spec.name: Required value: mode B needs a name", False),
    ],
)
async def test_each_fault_is_refused_in_the_servers_words(
    probes: Probes, spec: object, said: str, blocking: bool
) -> None:
    answer = await probes.create(spec, "faulty")
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.message.startswith(f'Probe.{probes.group} "faulty" is invalid: ')
    assert said in answer.message
    assert (UNCHECKED in answer.message) is blocking


async def test_a_transition_rule_sees_the_old_value(probes: Probes) -> None:
    await probes.create({"mode": "A"})
    answer = await probes.server.merge(f"{probes.path}/a", {"spec": {"mode": "B", "name": "xy"}})
    assert (answer.status, answer.causes) == (422, [("FieldValueInvalid", "spec.mode")])
    assert answer.message.endswith('spec.mode: Invalid value: "B": mode is immutable')


async def test_status_is_written_only_through_its_subresource(probes: Probes) -> None:
    path, server = f"{probes.path}/a", probes.server
    status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}
    body = probes.body("a", {"mode": "A"})
    created = await server.call("POST", probes.path, {**body, "status": status})
    main = await server.merge(path, {"status": status})
    patch = {"spec": {"size": 4}, "metadata": {"labels": {"l": "x"}}, "status": status}
    through = await server.merge(f"{path}/status", patch)
    spec = await server.merge(path, {"spec": {"size": 4}})
    assert "status" not in created.body
    assert "status" not in main.body
    assert main.body["metadata"]["resourceVersion"] == created.body["metadata"]["resourceVersion"]
    assert through.body["status"] == status
    assert ("size" in through.body["spec"], "labels" in through.body["metadata"]) == (False, False)
    assert through.body["metadata"]["generation"] == 1
    assert (spec.body["metadata"]["generation"], spec.body["status"]) == (2, status)


async def test_a_put_needs_a_version_and_strategic_patches_are_unknown(probes: Probes) -> None:
    await probes.create({"mode": "A"})
    path, server = f"{probes.path}/a", probes.server
    blind = await server.call("PUT", path, probes.body("a", {"mode": "A"}))
    kind = "application/strategic-merge-patch+json"
    strategic = await server.call("PATCH", path, {"spec": {"size": 1}}, content_type=kind)
    kindless = await server.call("POST", probes.path, {"metadata": {"name": "q"}, "spec": {"mode": "A"}})
    assert (blind.status, blind.causes) == (422, [("FieldValueInvalid", "metadata.resourceVersion")])
    assert strategic.status == 415
    assert kindless.status == 400
    assert "Object 'Kind' is missing" in kindless.message


async def test_lists_of_custom_resources_have_sorted_keys_and_items_with_kind(probes: Probes) -> None:
    await probes.create({"mode": "A"})
    answer = await probes.server.call("GET", probes.path)
    assert answer.raw.startswith(b'{"apiVersion":"%s/v1","items":[{"apiVersion":"' % probes.group.encode())
    assert b'],"kind":"ProbeList","metadata":{"continue":"","resourceVersion":"' in answer.raw or (
        b'],"kind":"ProbeList","metadata":{"resourceVersion":"' in answer.raw
    )
    assert [one["kind"] for one in answer.body["items"]] == ["Probe"]


async def test_printer_columns_make_the_table(probes: Probes) -> None:
    await probes.create({"mode": "A", "size": 4})
    await probes.server.merge(
        f"{probes.path}/a/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    )
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    one = await probes.server.call("GET", f"{probes.path}/a", accept=accept)
    many = await probes.server.call("GET", probes.path, accept=accept)
    table = one.body
    columns = [(column["name"], column["type"], column["priority"]) for column in table["columnDefinitions"]]
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert columns == [
        ("Name", "string", 0),
        ("Mode", "string", 0),
        ("Ready", "string", 0),
        ("Size", "integer", 0),
        ("Wide", "string", 1),
        ("Age", "date", 0),
    ]
    row = table["rows"][0]
    assert row["cells"][:5] == ["a", "A", "True", 4, None]
    assert row["cells"][5].endswith("s")
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert [row["cells"][0] for row in many.body["rows"]] == ["a"]


async def test_a_finalizer_holds_a_custom_resource_and_its_deletion_counts_as_generation(probes: Probes) -> None:
    body = probes.body("a", {"mode": "A"})
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await probes.server.make(probes.path, body)
    deleted = await probes.server.call("DELETE", f"{probes.path}/a")
    assert deleted.body["metadata"]["generation"] == 2
    released = await probes.server.merge(f"{probes.path}/a", {"metadata": {"finalizers": []}})
    assert released.status == 200
    assert (await probes.server.call("GET", f"{probes.path}/a")).status == 404


async def test_a_deleted_definition_takes_its_objects_and_its_path(probes: Probes) -> None:
    await probes.create({"mode": "A"})
    await probes.server.call("DELETE", f"{DEFINITIONS}/probes.{probes.group}")
    await probes.server.gone(f"{DEFINITIONS}/probes.{probes.group}")
    answer = await probes.server.eventually(
        lambda: probes.server.call("GET", probes.path), lambda found: found.status == 404
    )
    assert b"404 page not found" in answer.raw or json.loads(answer.raw)["reason"] == "NotFound"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "object", "properties": {"x": {}}}, "type"),
        (
            {
                "type": "object",
                "properties": {"x": {"type": "string", "x-kubernetes-validations": [{"rule": "self ==="}]}},
            },
            "",
        ),
        (
            {
                "type": "object",
                "properties": {
                    "x": {
                        "type": "object",
                        "additionalProperties": {"type": "string"},
                        "properties": {"y": {"type": "string"}},
                    }
                },
            },
            "additionalProperties",
        ),
    ],
)
async def test_a_schema_that_is_not_structural_or_does_not_compile_is_refused(
    server: Server, change: JSON, field: str
) -> None:
    body = definition(f"{server.namespace}.toe.run")
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = change
    answer = await server.call("POST", DEFINITIONS, body)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert field in answer.message
