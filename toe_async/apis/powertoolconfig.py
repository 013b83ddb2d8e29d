"""PowerToolConfig: a tool that administrators approve, written in the operator's namespace.

The classes here are the source of the CRD; wire names are part of the API and never change.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from toe_async.apis.fieldtypes import (
    ATOMIC,
    TOOL_NAME_PATTERN,
    Argument,
    duration_meta,
    list_map,
    quantity_meta,
)
from toe_async.apis.meta import MOST, Condition, Decoder, ObjectMeta, Wire
from toe_async.apis.schema import Schema, rule, rules

Throttle = Literal["signal", "abort"]
Sensitivity = Literal["low", "moderate", "high"]
ParameterType = Literal["string", "integer", "number", "duration", "quantity", "boolean", "enum"]

_SET: Final[Schema] = {"x-kubernetes-list-type": "set"}
_IMAGE_PART: Final = "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = (
    f"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{{1,5}})?/)?{_IMAGE_PART}(/{_IMAGE_PART})*"
    "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)

_Capability = Annotated[
    str,
    Meta(
        description="Name of a Linux capability, such as NET_RAW or CAP_NET_RAW.",
        max_length=64,
        extra_json_schema=rules(
            rule(
                "self.matches('^[A-Z][A-Z0-9_]*$')",
                "a capability is written in upper case, such as NET_RAW or CAP_NET_RAW",
                "FieldValueInvalid",
            )
        ),
    ),
]
_Arguments = tuple[Argument, ...]


class Capabilities(Wire, frozen=True, kw_only=True):
    """Linux capabilities, with or without the prefix CAP_."""

    add: Annotated[
        tuple[_Capability, ...],
        Meta(
            description="Capabilities beyond those that the runtime gives.",
            max_length=48,
            extra_json_schema={
                **_SET,
                **rules(
                    rule(
                        "!self.exists(one, one == 'ALL' || one == 'CAP_ALL')",
                        "ALL cannot be added: name what the tool needs, or set allowPrivileged",
                        "FieldValueForbidden",
                    )
                ),
            },
        ),
    ] = ()
    drop: Annotated[
        tuple[_Capability, ...],
        Meta(description="Capabilities that are taken away; ALL takes all.", max_length=48, extra_json_schema=_SET),
    ] = ()


class ToolSecurity(Wire, frozen=True, kw_only=True):
    """What the tool's container may do."""

    allow_privileged: Annotated[
        bool | None, Meta(description="True runs the tool privileged; absent and false do not.")
    ] = None
    allow_host_pid: Annotated[
        bool | None,
        Meta(
            description=(
                "True runs the tool as an agent pod on the target's node, which sees all processes of the node, rather "
                "than as an ephemeral container of the target."
            )
        ),
    ] = field(name="allowHostPID", default=None)
    run_as_root: Annotated[
        bool | None,
        Meta(description="True runs the tool as root, false as the target's user; absent as the tool needs."),
    ] = None
    capabilities: Annotated[Capabilities, Meta(description="Linux capabilities of the tool.")] = Capabilities()


class LeveledSecurity(Wire, frozen=True, kw_only=True):
    """An alternative security context for namespaces of one Pod Security level (D29)."""

    level: Annotated[
        Literal["privileged", "baseline", "restricted"],
        Meta(description="Pod Security level that the target's namespace enforces."),
    ]
    security_context: Annotated[ToolSecurity, Meta(description="What the tool's container may do there.")]


class Amounts(Wire, frozen=True, kw_only=True):
    """Amounts as Kubernetes quantities."""

    cpu: Annotated[str, quantity_meta("CPU, in cores or thousandths: 1 or 250m.")] = ""
    memory: Annotated[str, quantity_meta("Memory in bytes: 64Mi or 1Gi.")] = ""


class ToolResources(Wire, frozen=True, kw_only=True):
    """What the tool may use; the supervisor sees to it."""

    requests: Annotated[
        Amounts,
        Meta(
            description=(
                "What the tool needs. A pod whose containers may not use so much memory together is refused; with cpu "
                "the tool has the priority of others, without it gives way to them."
            )
        ),
    ] = Amounts()
    limits: Annotated[Amounts, Meta(description="What the tool may use; over it the tool is slowed down or ended.")] = (
        Amounts()
    )


class ArgumentRule(Wire, frozen=True, kw_only=True):
    """One kind of argument that authors may give: an anchored regular expression, or a typed parameter.

    With `flag` the rule is for that flag and the value behind it (`--rate 5`, `--rate=5`); without, for one argument.
    """

    flag: Annotated[
        str,
        Meta(
            description="Flag that the rule is for, such as -i or --rate; empty for an argument that stands alone.",
            max_length=64,
            pattern=r"^(--?[A-Za-z0-9][A-Za-z0-9_.-]*)?$",
        ),
    ] = ""
    pattern: Annotated[str, Meta(description="Regular expression that the whole value must match.", max_length=512)] = (
        ""
    )
    type: Annotated[ParameterType | None, Meta(description="Type of the value, instead of a pattern.")] = None
    values: Annotated[
        tuple[Annotated[str, Meta(description="A value that is allowed.", max_length=256)], ...],
        Meta(description="The values of type enum.", max_length=64, extra_json_schema=_SET),
    ] = ()
    minimum: Annotated[str, Meta(description="Smallest value, written as the type is.", max_length=32)] = ""
    maximum: Annotated[str, Meta(description="Largest value, written as the type is.", max_length=32)] = ""


_BOUNDED: Final = "['integer', 'number', 'duration', 'quantity']"
_HAS_PATTERN: Final = "(has(self.pattern) && self.pattern != '')"
_RULE_RULES: Final = rules(
    rule(
        f"{_HAS_PATTERN} || has(self.type)",
        "a rule needs a pattern or a type: say what values are allowed",
        "FieldValueRequired",
        ".pattern",
    ),
    rule(
        f"!({_HAS_PATTERN} && has(self.type))",
        "a rule has either a pattern or a type: remove one of them",
        "FieldValueForbidden",
        ".type",
    ),
    rule(
        "!has(self.type) || self.type != 'enum' || (has(self.values) && size(self.values) > 0)",
        "type enum needs its values: list at least one",
        "FieldValueRequired",
        ".values",
    ),
    rule(
        "(has(self.type) && self.type == 'enum') || !has(self.values) || size(self.values) == 0",
        "values are for type enum only: remove them or change the type",
        "FieldValueForbidden",
        ".values",
    ),
    *(
        rule(
            f"(has(self.type) && self.type in {_BOUNDED}) || !has(self.{bound}) || self.{bound} == ''",
            f"{bound} is for the types integer, number, duration and quantity only: remove it or change the type",
            "FieldValueForbidden",
            f".{bound}",
        )
        for bound in ("minimum", "maximum")
    ),
)


class Preset(Wire, frozen=True, kw_only=True):
    """The arguments that stand for one resolutionPreset."""

    name: Annotated[Literal["low", "medium", "high"], Meta(description="The resolutionPreset.")]
    args: Annotated[
        _Arguments, Meta(description="Arguments that it stands for.", max_length=64, extra_json_schema=ATOMIC)
    ] = ()


_NamespaceGlob = Annotated[
    str,
    Meta(
        description="Name of a namespace, or a glob such as team-*.",
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9*?!,{}\[\]-]+$",
    ),
]
_OutputGlob = Annotated[
    str,
    Meta(
        description="Glob of files below the tool's output folder.",
        min_length=1,
        max_length=256,
        extra_json_schema=rules(
            rule(
                r"!self.startsWith('/') && !self.matches(r'(^|/)[.][.](/|$)') && !self.matches(r'[\x00-\x1f\x7f]')",
                "a glob stays below the output folder: no slash in front, no segment .. and no control characters",
                "FieldValueInvalid",
            )
        ),
    ),
]


class PowerToolConfigSpec(Wire, frozen=True, kw_only=True):
    """The tool."""

    name: Annotated[
        str,
        Meta(
            description="The name by which PowerTools ask for it, and which the verb `use` is granted on; unique.",
            min_length=1,
            max_length=63,
            pattern=TOOL_NAME_PATTERN,
        ),
    ]
    image: Annotated[
        str,
        Meta(
            description="Container image of the tool, best named by digest.",
            min_length=1,
            max_length=512,
            extra_json_schema=rules(
                rule(
                    f"self.matches('{_IMAGE}')",
                    "an image is written like registry.example/tools/perf:1.2, best with @sha256: and its digest",
                    "FieldValueInvalid",
                )
            ),
        ),
    ]
    security_context: Annotated[ToolSecurity, Meta(description="What the tool's container may do.")]
    security_profiles: Annotated[
        tuple[Annotated[LeveledSecurity, Meta(description="Security context at one level.")], ...],
        Meta(
            description="Alternatives to securityContext by the Pod Security level of the target's namespace.",
            max_length=3,
            extra_json_schema=list_map("level"),
        ),
    ] = ()
    allowed_namespaces: Annotated[
        tuple[_NamespaceGlob, ...],
        Meta(
            description="Namespaces whose pods the tool may be used on, by name or glob; empty means any.",
            max_length=256,
            extra_json_schema=_SET,
        ),
    ] = ()
    description: Annotated[str, Meta(description="What the tool does, for people.", max_length=4096)] = ""
    version: Annotated[str, Meta(description="Version of the tool, for people.", max_length=128)] = ""
    command: Annotated[
        _Arguments,
        Meta(
            description=(
                "Argument vector that begins with the program; {target_pid}, {target_root}, {output} and {duration} "
                "are filled in. Empty means /opt/toe/tool of the image."
            ),
            max_length=64,
            extra_json_schema=ATOMIC,
        ),
    ] = ()
    default_args: Annotated[
        _Arguments,
        Meta(
            description="Arguments that always come first and that no author can take away.",
            max_length=64,
            extra_json_schema=ATOMIC,
        ),
    ] = ()
    allowed_args: Annotated[
        tuple[
            Annotated[
                ArgumentRule, Meta(description="One kind of argument that is allowed.", extra_json_schema=_RULE_RULES)
            ],
            ...,
        ]
        | None,
        Meta(
            description=(
                "What authors may give as arguments; an empty list allows none. Absent allows any: set it for a tool "
                "that can write files or start programs."
            ),
            extra_json_schema={"maxItems": 64, **ATOMIC},
        ),
    ] = None
    presets: Annotated[
        tuple[Annotated[Preset, Meta(description="One resolutionPreset.")], ...],
        Meta(
            description="Arguments that stand for the resolutionPresets.",
            max_length=3,
            extra_json_schema=list_map("name"),
        ),
    ] = ()
    resources: Annotated[ToolResources, Meta(description="What the tool may use; the supervisor sees to it.")] = (
        ToolResources()
    )
    max_duration: Annotated[str, duration_meta("Longest run that an author may ask for; empty means 24h.")] = ""
    outputs: Annotated[
        tuple[_OutputGlob, ...],
        Meta(
            description="Files that the tool leaves and that are stored; empty means all below its output folder.",
            max_length=64,
            extra_json_schema=_SET,
        ),
    ] = ()
    compatible_with: Annotated[
        tuple[
            Annotated[str, Meta(description="Name of a tool.", min_length=1, max_length=63, pattern=TOOL_NAME_PATTERN)],
            ...,
        ],
        Meta(
            description="Tools that may look at the same container at the same time, where both say so.",
            max_length=64,
            extra_json_schema=_SET,
        ),
    ] = ()
    sensitivity: Annotated[
        Sensitivity,
        Meta(description="How much of what a process keeps to itself the output may hold; moderate unless said."),
    ] = "moderate"
    upload_limit: Annotated[
        str,
        quantity_meta("Largest amount of output of one run on one target, such as 512Mi; empty means the operator's."),
    ] = ""
    throttle: Annotated[
        Throttle,
        Meta(
            description=(
                "What is done to a tool over its CPU: signal (unless said) stops and continues it, abort ends it. A "
                "tool that stops its target by ptrace needs abort."
            )
        ),
    ] = "signal"
    heartbeat: Annotated[
        bool,
        Meta(
            description=(
                "True for a tool that disturbs its target: it is ended when the operator is silent for 60 s, and the "
                "operator's flag --chaos=off ends all of them."
            )
        ),
    ] = False
    suspend: Annotated[bool, Meta(description="True allows no new run, and ends those that go on.")] = False


class PowerToolConfigStatus(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What validation found, and when the tool ran last."""

    observed_generation: Annotated[
        Annotated[int, Meta(ge=0, le=MOST)], Meta(description="Generation of the spec that this status speaks of.")
    ] = 0
    phase: Annotated[
        Literal["", "Ready", "NotReady"],
        Meta(description="Whether the tool can be used; the condition Ready in short."),
    ] = ""
    last_validated: Annotated[datetime | None, Meta(description="When its spec was judged last.")] = None
    last_used: Annotated[datetime | None, Meta(description="When a PowerTool ran it last.")] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(description="Ready, with the reason.", max_length=16, extra_json_schema=list_map("type")),
    ] = ()


class PowerToolConfig(Wire, frozen=True, kw_only=True):
    """A tool that administrators approve: image, rights, arguments and limits, in the operator's namespace."""

    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[PowerToolConfigSpec, Meta(description="The tool, its rights and its limits.")]
    status: Annotated[PowerToolConfigStatus, Meta(description="What is the case; written by the operator.")] = (
        PowerToolConfigStatus()
    )


decode_power_tool_config = Decoder(PowerToolConfig)
