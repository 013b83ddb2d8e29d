"""PowerToolConfig: a tool that administrators approve, written in the operator's namespace."""

from datetime import datetime
from typing import Literal

from msgspec import field

from toe_async.apis.meta import Condition, Decoder, ObjectMeta, Wire

Throttle = Literal["signal", "abort"]
Sensitivity = Literal["low", "moderate", "high"]
ParameterType = Literal["string", "integer", "number", "duration", "quantity", "boolean", "enum"]


class Capabilities(Wire, frozen=True, kw_only=True):
    """Linux capabilities, without the prefix CAP_."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class ToolSecurity(Wire, frozen=True, kw_only=True):
    """What the tool's container may do."""

    allow_privileged: bool | None = None
    allow_host_pid: bool | None = field(name="allowHostPID", default=None)
    run_as_root: bool | None = None
    capabilities: Capabilities = Capabilities()


class LeveledSecurity(Wire, frozen=True, kw_only=True):
    """An alternative security context for namespaces of one Pod Security level (D29)."""

    level: Literal["privileged", "baseline", "restricted"]
    security_context: ToolSecurity


class Amounts(Wire, frozen=True, kw_only=True):
    """Amounts as Kubernetes quantities."""

    cpu: str = ""
    memory: str = ""


class ToolResources(Wire, frozen=True, kw_only=True):
    """What the tool may use; the supervisor sees to it."""

    requests: Amounts = Amounts()
    limits: Amounts = Amounts()


class ArgumentRule(Wire, frozen=True, kw_only=True):
    """One kind of argument that authors may give: an anchored regular expression, or a typed parameter.

    With `flag` the rule is for that flag and the value behind it (`--rate 5`, `--rate=5`); without, for one argument.
    """

    flag: str = ""
    pattern: str = ""
    type: ParameterType | None = None
    values: tuple[str, ...] = ()
    minimum: str = ""
    maximum: str = ""


class Preset(Wire, frozen=True, kw_only=True):
    """The arguments that stand for one resolutionPreset."""

    name: Literal["low", "medium", "high"]
    args: tuple[str, ...] = ()


class PowerToolConfigSpec(Wire, frozen=True, kw_only=True):
    """The tool."""

    name: str
    image: str
    security_context: ToolSecurity
    security_profiles: tuple[LeveledSecurity, ...] = ()
    allowed_namespaces: tuple[str, ...] = ()
    description: str = ""
    version: str = ""
    command: tuple[str, ...] = ()
    default_args: tuple[str, ...] = ()
    allowed_args: tuple[ArgumentRule, ...] | None = None
    presets: tuple[Preset, ...] = ()
    resources: ToolResources = ToolResources()
    max_duration: str = ""
    outputs: tuple[str, ...] = ()
    compatible_with: tuple[str, ...] = ()
    sensitivity: Sensitivity = "moderate"
    upload_limit: str = ""
    throttle: Throttle = "signal"
    heartbeat: bool = False
    suspend: bool = False


class PowerToolConfigStatus(Wire, frozen=True, kw_only=True):
    """What validation found, and when the tool ran last."""

    observed_generation: int = 0
    phase: Literal["", "Ready", "NotReady"] = ""
    last_validated: datetime | None = None
    last_used: datetime | None = None
    conditions: tuple[Condition, ...] = ()


class PowerToolConfig(Wire, frozen=True, kw_only=True):
    """One approved tool."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PowerToolConfigSpec
    status: PowerToolConfigStatus = PowerToolConfigStatus()


decode_power_tool_config = Decoder(PowerToolConfig)
