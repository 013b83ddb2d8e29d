"""CustomResourceDefinitions from our kinds and their structs; the same input always gives the same bytes."""

from typing import Any, Final

import msgspec
import yaml
from msgspec import Struct, field

from toe_async.apis.kinds import BOLOMETER_CONFIGS, PROFILING_CONFIGS, Kind
from toe_async.apis.profilingconfig import ProfilingConfig
from toe_async.apis.schema import Schema, schema_of

CATEGORY: Final = "toe"
_HEADER: Final = "# Made from toe_async/apis by `python3 noxfile.py crds`; change the types there, not this file.\n"

_OBJECT_FIELDS: Final[Schema] = {
    "apiVersion": {"type": "string", "description": "Group and version of this representation."},
    "kind": {"type": "string", "description": "Kind of the resource."},
    "metadata": {"type": "object"},  # the server allows no description here
}


class Column(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A column of `kubectl get`. Priority 1 shows only with `-o wide`."""

    name: str
    type: str
    json_path: str = field(name="jsonPath")
    description: str
    priority: int = 0


PROFILING_CONFIG_COLUMNS: Final = (
    Column(
        name="Ready",
        type="string",
        json_path='.status.conditions[?(@.type=="Ready")].status',
        description="Whether pods are being watched.",
    ),
    Column(
        name="Reason",
        type="string",
        json_path='.status.conditions[?(@.type=="Ready")].reason',
        description="Why it is ready or not.",
    ),
    Column(name="Pods", type="integer", json_path=".status.activePods", description="Pods that have opted in."),
    Column(name="Profiles", type="integer", json_path=".status.totalProfiles", description="Profiles taken."),
    Column(name="Uploads", type="integer", json_path=".status.totalUploads", description="Profiles stored."),
    Column(name="Last", type="date", json_path=".status.lastProfileTime", description="Since the last capture."),
    Column(
        name="Bucket",
        type="string",
        json_path=".spec.s3Config.bucket",
        description="The S3 bucket, empty for the collector.",
        priority=1,
    ),
    Column(
        name="Message",
        type="string",
        json_path='.status.conditions[?(@.type=="Ready")].message',
        description="What is going on, in one sentence.",
        priority=1,
    ),
    Column(name="Age", type="date", json_path=".metadata.creationTimestamp", description="Since its creation."),
)


def crd(kind: Kind, struct: type[Struct], columns: tuple[Column, ...]) -> dict[str, Any]:
    """The definition of one kind. `struct` has the fields `spec` and `status` beside the usual ones."""
    schema = schema_of(struct)
    schema["properties"] = schema["properties"] | _OBJECT_FIELDS
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "labels": {"app.kubernetes.io/part-of": "toe-async"}},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": kind.list_kind,
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": kind.version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [msgspec.to_builtins(column) for column in columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def all_crds() -> tuple[dict[str, Any], ...]:
    """Every CustomResourceDefinition of the project."""
    return tuple(
        crd(kind, ProfilingConfig, PROFILING_CONFIG_COLUMNS) for kind in (PROFILING_CONFIGS, BOLOMETER_CONFIGS)
    )


class _Dumper(yaml.SafeDumper):
    """Writes shared parts out in full: anchors would tie one CRD's text to another's."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def render_all() -> dict[str, str]:
    """File name -> YAML text, one file a definition."""
    return {
        f"{one['metadata']['name']}.yaml": _HEADER + yaml.dump(one, Dumper=_Dumper, width=120, allow_unicode=False)
        for one in all_crds()
    }
