"""``kubectl toe tools``: the approved tools, and which of them this user may run here."""

from toe_async.apis.kinds import POWER_TOOL_CONFIGS
from toe_async.apis.meta import find_condition
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.cli.plugin import printing
from toe_async.cli.plugin.exits import Exit
from toe_async.cli.plugin.powertools import PowerTools
from toe_async.cli.plugin.session import Session, each
from toe_async.lib.globs import any_match

_AT_ONCE = 8


async def run(session: Session) -> Exit:
    """A table; JSON and YAML have what the table has."""
    arguments, console = session.arguments, session.console
    tools = PowerTools(session.library.client)
    configs = sorted(await tools.configs(arguments.operator_namespace), key=lambda one: one.spec.name)

    async def usable(config: PowerToolConfig) -> bool:
        return await tools.may("use", POWER_TOOL_CONFIGS, arguments.operator_namespace, name=config.spec.name)

    may = await each(configs, usable, _AT_ONCE)
    rows = [_row(config, granted, session.namespace) for config, granted in zip(configs, may, strict=True)]
    if arguments.output in {"json", "yaml"}:
        keys = ("name", "ready", "use", "here", "sensitivity", "maxDuration", "description")
        told = {"tools": [dict(zip(keys, row, strict=True)) for row in rows]}
        console.table([(printing.as_json if arguments.output == "json" else printing.as_yaml)(told)])
    elif not rows:
        console.note(f"No tool is approved in namespace {arguments.operator_namespace}.")
    else:
        head = ["TOOL", "READY", "YOU MAY USE IT", "ALLOWED HERE", "SENSITIVITY", "LONGEST", "DESCRIPTION"]
        console.table(printing.aligned(head, rows))
    return Exit.OK


def _row(config: PowerToolConfig, granted: bool, namespace: str) -> list[str]:
    spec = config.spec
    ready = find_condition(config.status.conditions, "Ready")
    here = not spec.allowed_namespaces or _covers(spec.allowed_namespaces, namespace)
    return [
        spec.name,
        str(ready.status) if ready else "Unknown",
        "yes" if granted else "no",
        "yes" if here else "no",
        spec.sensitivity,
        spec.max_duration or "24h",
        spec.description,
    ]


def _covers(globs: tuple[str, ...], namespace: str) -> bool:
    try:
        return any_match(globs, namespace)
    except ValueError:  # its own status says so, and nobody may use it meanwhile
        return False
