"""CustomResourceDefinitions: checked when they are written, served at once, and gone together with their objects."""

from typing import Any

from toe_async.sandbox.cel import CelError, SchemaRules
from toe_async.sandbox.resources import CUSTOM_VERBS, Column, Resource
from toe_async.sandbox.schema import Structural, structural_faults
from toe_async.sandbox.status import Cause, JsonObject

_AGE = Column("Age", "date", ".metadata.creationTimestamp")


def default(crd: JsonObject) -> None:
    """Fill in what the real server fills in, in place."""
    spec = crd["spec"]
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})


def validate(crd: JsonObject) -> list[Cause]:
    """What is wrong with a definition: its name, its versions, its schemas, its CEL rules."""
    spec = crd["spec"]
    causes: list[Cause] = []
    expected = f"{spec['names']['plural']}.{spec['group']}"
    if crd["metadata"].get("name") != expected:
        message = f'Invalid value: "{crd["metadata"].get("name")}": must be spec.names.plural+"."+spec.group'
        causes.append(Cause("FieldValueInvalid", message, "metadata.name"))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        causes.append(Cause("FieldValueInvalid", message, "spec.versions"))
    for index, version in enumerate(spec["versions"]):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        root = _schema(version)
        if root is None:
            causes.append(Cause("FieldValueRequired", "Required value: schemas are required", path))
            continue
        causes += structural_faults(root, path)
        try:
            SchemaRules(root)
        except CelError as error:
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {error}", path))
    return causes


def accepted(crd: JsonObject, now: str) -> JsonObject:
    """The status of a definition that is served."""
    names = crd["spec"]["names"]
    stored = [version["name"] for version in crd["spec"]["versions"] if version.get("storage")]
    conditions = [
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ]
    return {
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
            for kind, reason, message in conditions
        ],
        "acceptedNames": names,
        "storedVersions": stored,
    }


def resources(crd: JsonObject) -> list[Resource]:
    """What a definition serves. The sandbox converts nothing: only the storage version is served."""
    spec, names = crd["spec"], crd["spec"]["names"]
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            singular=names["singular"],
            list_kind=names["listKind"],
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            verbs=CUSTOM_VERBS,
            subresources=("status",) if "status" in (version.get("subresources") or {}) else (),
            generation=True,
            unconditional=False,
            fields=tuple(one["jsonPath"].lstrip(".") for one in version.get("selectableFields") or ()),
            schema=_structural(version),
            columns=_columns(version),
        )
        for version in spec["versions"]
        if version.get("served") and version.get("storage")
    ]


def _schema(version: JsonObject) -> JsonObject | None:
    held: Any = (version.get("schema") or {}).get("openAPIV3Schema")
    return held if isinstance(held, dict) else None


def _structural(version: JsonObject) -> Structural:
    root = _schema(version) or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    rules = SchemaRules(root)
    return Structural(root, None if rules.empty else rules)


def _columns(version: JsonObject) -> tuple[Column, ...]:
    columns = version.get("additionalPrinterColumns")
    if columns is None:
        return (_AGE,)
    return tuple(
        Column(
            one["name"],
            one["type"],
            one["jsonPath"],
            one.get("priority", 0),
            one.get("format", ""),
            one.get("description") or f"Custom resource definition column (in JSONPath format): {one['jsonPath']}",
        )
        for one in columns
    )
