"""CustomResourceDefinitions from our kinds and their structs; the same input always gives the same bytes."""

from typing import Any, Final

import msgspec
import yaml
from msgspec import Struct, field

from toe_async.apis.kinds import BOLOMETER_CONFIGS, POWER_TOOL_CONFIGS, POWER_TOOLS, PROFILING_CONFIGS, Kind
from toe_async.apis.powertool import STARTED_RULES, PowerTool
from toe_async.apis.powertoolconfig import PowerToolConfig
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


_AGE: Final = Column(
    name="Age", type="date", json_path=".metadata.creationTimestamp", description="Since its creation."
)

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
    _AGE,
)


POWER_TOOL_COLUMNS: Final = (
    Column(name="Phase", type="string", json_path=".status.phase", description="Where the run stands."),
    Column(name="Tool", type="string", json_path=".spec.tool.name", description="The tool that runs."),
    Column(name="Selected", type="integer", json_path=".status.selectedPods", description="Targets of the run."),
    Column(
        name="Done", type="integer", json_path=".status.completedPods", description="Targets whose output is stored."
    ),
    Column(name="Failed", type="integer", json_path=".status.failedPods", description="Targets that failed."),
    Column(
        name="Reason",
        type="string",
        json_path='.status.conditions[?(@.type=="Running")].reason',
        description="Why it stands where it stands.",
    ),
    Column(
        name="Message",
        type="string",
        json_path='.status.conditions[?(@.type=="Running")].message',
        description="What is going on, in one sentence.",
        priority=1,
    ),
    Column(name="Mode", type="string", json_path=".spec.output.mode", description="Where output goes.", priority=1),
    Column(name="Bytes", type="integer", json_path=".status.bytesWritten", description="Bytes stored.", priority=1),
    _AGE,
)

POWER_TOOL_CONFIG_COLUMNS: Final = (
    Column(
        name="Ready",
        type="string",
        json_path='.status.conditions[?(@.type=="Ready")].status',
        description="Whether the tool can be used.",
    ),
    Column(name="Tool", type="string", json_path=".spec.name", description="The name that PowerTools ask for."),
    Column(name="Image", type="string", json_path=".spec.image", description="The tool's image.", priority=1),
    Column(
        name="Reason",
        type="string",
        json_path='.status.conditions[?(@.type=="Ready")].reason',
        description="Why it is ready or not.",
    ),
    Column(name="LastUsed", type="date", json_path=".status.lastUsed", description="Since a PowerTool ran it."),
    Column(
        name="Message",
        type="string",
        json_path='.status.conditions[?(@.type=="Ready")].message',
        description="What keeps it from being used, in one sentence.",
        priority=1,
    ),
    _AGE,
)


def crd(
    kind: Kind, struct: type[Struct], columns: tuple[Column, ...], object_rules: Schema | None = None
) -> dict[str, Any]:
    """The definition of one kind. `struct` has the fields `spec` and `status` beside the usual ones.

    `object_rules` sit on the object itself: on a write of the spec they see the status that is stored.
    """
    schema = schema_of(struct) | (object_rules or {})
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
    return (
        *(crd(kind, ProfilingConfig, PROFILING_CONFIG_COLUMNS) for kind in (PROFILING_CONFIGS, BOLOMETER_CONFIGS)),
        crd(POWER_TOOLS, PowerTool, POWER_TOOL_COLUMNS, STARTED_RULES),
        crd(POWER_TOOL_CONFIGS, PowerToolConfig, POWER_TOOL_CONFIG_COLUMNS),
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
