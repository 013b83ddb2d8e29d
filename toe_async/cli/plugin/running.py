"""``kubectl toe run``: write a PowerTool from flags, and wait for it when asked to."""

import argparse
import asyncio
from typing import Any

import msgspec

from toe_async.apis.kinds import POWER_TOOLS
from toe_async.apis.selectors import parse
from toe_async.cli.plugin import printing
from toe_async.cli.plugin.exits import Exit, Usage
from toe_async.cli.plugin.powertools import PowerTools, name_of
from toe_async.cli.plugin.session import Session
from toe_async.cli.plugin.standing import follow


async def run(session: Session) -> Exit:
    """Create it; prints its name, or with --wait how it went."""
    arguments, console = session.arguments, session.console
    body = manifest(arguments)
    tools = PowerTools(session.library.client)
    made = await tools.create(session.namespace, body, dry_run=arguments.dry_run)
    name = str(made["metadata"].get("name", ""))
    waits = arguments.wait and not arguments.dry_run  # then the answer is how it went
    if arguments.output in {"json", "yaml"} and not waits:
        console.table([(printing.as_json if arguments.output == "json" else printing.as_yaml)(made)])
    elif not waits:
        console.data(f"{name_of(name)} would be created" if arguments.dry_run else name_of(name))
    if not waits:
        return Exit.OK
    try:
        return await follow(session, tools, session.namespace, name)
    except asyncio.CancelledError:
        console.note(f"{name} goes on; kubectl toe status {name} shows it, kubectl toe cancel {name} ends it.")
        raise


def manifest(arguments: argparse.Namespace) -> dict[str, Any]:
    """The object as a user would write it by hand. Raises Usage for a selector that is none."""
    try:
        selector = parse(arguments.selector)
    except ValueError as error:
        raise Usage(f"-l: {error}") from error
    labels: dict[str, Any] = {"matchLabels": selector.equality} if selector.equality else {}
    if selector.requirements:
        labels["matchExpressions"] = msgspec.to_builtins(selector.requirements)
    targets = {
        "labelSelector": labels,
        "container": arguments.container,
        "maxTargets": arguments.max_targets,
        "pick": arguments.pick,
        "namespaceSelector": {"matchNames": arguments.from_namespaces.split(",")}
        if arguments.from_namespaces
        else None,
    }
    tool = {
        "name": arguments.tool,
        "duration": arguments.duration,
        "args": arguments.args,
        "warmup": arguments.warmup,
        "resolutionPreset": arguments.preset,
        "maxCPUPercent": arguments.max_cpu,
    }
    output: dict[str, Any] = {
        "mode": arguments.mode,
        "compress": arguments.compress,
        "rollingInterval": arguments.rolling,
        "retentionDays": arguments.retention_days,
    }
    if arguments.mode == "pvc":
        output["pvc"] = _given(claimName=arguments.claim, path=arguments.path)
    if arguments.mode == "s3":
        output["s3"] = _given(bucket=arguments.bucket, prefix=arguments.prefix, endpoint=arguments.endpoint)
    spec = {
        "targets": _given(**targets),
        "tool": _given(**tool),
        "output": _given(**output),
        "budgets": _given(maxConcurrentPods=arguments.at_once, perPodOverheadTarget=arguments.overhead) or None,
        "failurePolicy": {"onError": arguments.on_error} if arguments.on_error else None,
        "activeDeadlineSeconds": int(arguments.deadline) if arguments.deadline else None,
        "ttlSecondsAfterFinished": int(arguments.ttl) if arguments.ttl else None,
    }
    metadata = {"name": arguments.name} if arguments.name else {"generateName": f"{arguments.tool}-"}
    return {
        "apiVersion": POWER_TOOLS.api_version,
        "kind": POWER_TOOLS.kind,
        "metadata": metadata,
        "spec": _given(**spec),
    }


def _given(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, "", [], ())}
