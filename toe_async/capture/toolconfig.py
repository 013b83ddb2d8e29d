"""Whether an approved tool can be used at all, and which one a name means. Pure.

Used by the controller of PowerToolConfigs, which tells it in their status, and again by whoever starts a tool: a status
can be edited.
"""

import re
from collections.abc import Iterable

from msgspec import Struct

from toe_async.apis.kinds import POWER_TOOL_CONFIGS
from toe_async.apis.powertoolconfig import PowerToolConfig, PowerToolConfigSpec, ToolSecurity
from toe_async.apis.reasons import Reason
from toe_async.capture.arguments import placeholder_fault, rule_fault
from toe_async.capture.refusals import Refused
from toe_async.capture.security import CAPABILITIES, as_root, normal
from toe_async.lib.durations import parse_duration
from toe_async.lib.globs import check_glob
from toe_async.lib.quantities import parse_quantity

# distribution/reference: optional host[:port], path components, optional tag, optional digest
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN = r"[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?"
_IMAGE = re.compile(
    rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?P<digest>@sha256:[0-9a-f]{{64}})?"
)
_LONGEST_IMAGE = 512


class ToolPolicy(Struct, frozen=True, kw_only=True):
    """What the administrator's flags say of every tool."""

    require_digest: bool = False
    heartbeat_tools: bool = True
    """Whether tools that need a heartbeat, which is those that do harm, may run at all (the kill switch)."""


def faults(config: PowerToolConfig, everyone: Iterable[PowerToolConfig], policy: ToolPolicy) -> tuple[str, ...]:
    """What keeps a tool from being used, one sentence each with the field in front; empty for a good one.

    `everyone` are all configurations of the namespace: two that claim one name are both unusable.
    """
    spec = config.spec
    found: list[str] = []
    same = sorted(
        o.metadata.name for o in everyone if o.spec.name == spec.name and o.metadata.name != config.metadata.name
    )
    if same:
        found.append(f"spec.name: {spec.name} is claimed by {', '.join(same[:3])} too; rename all but one")
    found += _image_faults(spec.image, policy)
    found += _security_faults("spec.securityContext", spec.security_context)
    for profile in spec.security_profiles:
        found += _security_faults(f"spec.securityProfiles[{profile.level}]", profile.security_context)
    for field, words in _templates(spec):
        found += [f"{field}: {fault}" for word in words if (fault := placeholder_fault(word)) is not None]
    found += [
        f"spec.allowedArgs: {fault}" for rule in spec.allowed_args or () if (fault := rule_fault(rule)) is not None
    ]
    found += _amount_faults(spec)
    found += _glob_faults(spec)
    if spec.suspend:
        found.append("spec.suspend: the administrator has suspended this tool")
    if spec.heartbeat and not policy.heartbeat_tools:
        found.append(
            "spec.heartbeat: tools that disturb their target are switched off here (operator flag --chaos=off)"
        )
    return tuple(found)


def resolve(name: str, everyone: Iterable[PowerToolConfig], policy: ToolPolicy) -> PowerToolConfig | Refused:
    """The one configuration that a tool's name means."""
    configs = list(everyone)
    named = sorted((one for one in configs if one.spec.name == name), key=lambda one: one.metadata.name)
    if not named:
        known = ", ".join(sorted({one.spec.name for one in configs})[:10]) or "none"
        return Refused(
            Reason.TOOL_NOT_FOUND, f"no {POWER_TOOL_CONFIGS.kind} has the name {name[:80]}; approved tools are: {known}"
        )
    if wrong := faults(named[0], configs, policy):
        return Refused(Reason.TOOL_NOT_READY, f"tool {name} cannot be used: {wrong[0]}")
    return named[0]


def _image_faults(image: str, policy: ToolPolicy) -> list[str]:
    match = _IMAGE.fullmatch(image) if len(image) <= _LONGEST_IMAGE else None
    if match is None:
        return [f"spec.image: {image[:120]!r} is no image reference such as registry.example/tool:1.2"]
    if policy.require_digest and not match["digest"]:
        return ["spec.image: tags are not accepted here (--require-image-digest); name the image with @sha256:..."]
    return []


def _security_faults(field: str, wanted: ToolSecurity) -> list[str]:
    found = []
    for part, names in (("add", wanted.capabilities.add), ("drop", wanted.capabilities.drop)):
        known = CAPABILITIES | {"ALL"} if part == "drop" else CAPABILITIES
        unknown = [one for one in names if normal(one) not in known]
        if "ALL" in map(normal, unknown):
            found.append(
                f"{field}.capabilities.add: ALL is not accepted; name what the tool needs, or set allowPrivileged"
            )
        elif unknown:
            found.append(f"{field}.capabilities.{part}: {unknown[0][:60]!r} is no Linux capability")
    if wanted.capabilities.add and as_root(wanted) is False:
        found.append(
            f"{field}.runAsRoot: false, but capabilities are added, which only root has; leave one of them out"
        )
    return found


def _templates(spec: PowerToolConfigSpec) -> list[tuple[str, tuple[str, ...]]]:
    presets = [(f"spec.presets[{one.name}].args", one.args) for one in spec.presets]
    return [("spec.command", spec.command), ("spec.defaultArgs", spec.default_args), *presets]


def _amount_faults(spec: PowerToolConfigSpec) -> list[str]:
    resources = (("requests", spec.resources.requests), ("limits", spec.resources.limits))
    quantities = [("spec.uploadLimit", spec.upload_limit)]
    for kind, amounts in resources:
        quantities += [(f"spec.resources.{kind}.{name}", getattr(amounts, name)) for name in ("cpu", "memory")]
    found = []
    for field, text in quantities:
        try:
            if text and parse_quantity(text) <= 0:
                found.append(f"{field}: {text[:60]} is not above zero")
        except ValueError as error:
            found.append(f"{field}: {error}")
    try:
        if spec.max_duration and parse_duration(spec.max_duration).total_seconds() <= 0:
            found.append("spec.maxDuration: it is not above zero")
    except ValueError as error:
        found.append(f"spec.maxDuration: {error}")
    return found


def _glob_faults(spec: PowerToolConfigSpec) -> list[str]:
    found = []
    for field, globs in (("spec.allowedNamespaces", spec.allowed_namespaces), ("spec.outputs", spec.outputs)):
        for glob in globs:
            try:
                check_glob(glob)
            except ValueError as error:
                found.append(f"{field}: {error}")
    found += [
        f"spec.outputs: {glob[:60]!r} leaves the tool's output folder"
        for glob in spec.outputs
        if glob.startswith("/") or ".." in glob.split("/")
    ]
    return found
