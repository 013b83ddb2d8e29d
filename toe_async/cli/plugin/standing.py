"""``kubectl toe status``: where runs of tools stand, target by target."""

from collections.abc import Sequence

from toe_async.apis.powertool import PowerTool, StoredArtifact, TargetState
from toe_async.cli.plugin import printing, text
from toe_async.cli.plugin.exits import Exit
from toe_async.cli.plugin.powertools import PowerTools, code_of_phase, condition_words
from toe_async.cli.plugin.session import Session

_MOST_ROWS = 100


async def run(session: Session) -> Exit:
    """One run in detail, or all of a namespace as a table."""
    arguments, console = session.arguments, session.console
    tools = PowerTools(session.library.client)
    if not arguments.name:
        found = await tools.all(session.namespace)
        if not found:
            console.note(
                f"No runs of tools in {f'namespace {session.namespace}' if session.namespace else 'any namespace'}."
            )
        else:
            console.table(overview(found, namespaces=not session.namespace))
        return Exit.OK
    if arguments.output in {"json", "yaml"}:
        raw = await tools.raw(session.namespace, arguments.name)
        console.table([(printing.as_json if arguments.output == "json" else printing.as_yaml)(raw)])
        return Exit.OK
    if arguments.wait:
        return await follow(session, tools, session.namespace, arguments.name)
    console.table(detail(await tools.get(session.namespace, arguments.name)))
    return Exit.OK


async def follow(session: Session, tools: PowerTools, namespace: str, name: str) -> Exit:
    """Wait until it is over, with progress on a terminal; then the detail. The exit code tells how it went."""
    console = session.console

    def look(found: PowerTool) -> None:
        held = found.status
        console.progress(
            f"{name}: {held.phase or 'Pending'}, {held.completed_pods + held.failed_pods + held.cancelled_pods} of "
            f"{held.selected_pods} done, {held.running_pods} at work. {condition_words(found)}",
            last=True,
        )

    found = await tools.until_over(namespace, name, look)
    console.table(detail(found))
    return code_of_phase(found.status.phase)


def overview(found: Sequence[PowerTool], *, namespaces: bool) -> list[str]:
    """One line a run."""
    rows = []
    for one in found:
        held = one.status
        row = [
            one.metadata.name,
            one.spec.tool.name,
            str(held.phase or "Pending"),
            f"{held.completed_pods}/{held.selected_pods}",
            str(held.failed_pods),
            text.size(held.bytes_written),
            condition_words(one)[:100],
        ]
        rows.append([one.metadata.namespace, *row] if namespaces else row)
    head = ["NAME", "TOOL", "PHASE", "DONE", "FAILED", "BYTES", "MESSAGE"]
    return printing.aligned(["NAMESPACE", *head] if namespaces else head, rows)


def detail(found: PowerTool) -> list[str]:
    """Everything that a person wants to know of one run."""
    held = found.status
    lines = [
        f"{found.metadata.namespace}/{found.metadata.name}: {held.phase or 'Pending'}",
        condition_words(found),
        (
            f"tool {found.spec.tool.name} for {found.spec.tool.duration}, output {found.spec.output.mode}; "
            f"{held.selected_pods} targets: {held.pending_pods} pending, {held.running_pods} running, "
            f"{held.completed_pods} completed, {held.failed_pods} failed, {held.cancelled_pods} cancelled"
        ),
    ]
    lines = [text.clean(line) for line in lines if line]
    if held.targets:
        rows = [
            [
                f"{one.namespace or found.metadata.namespace}/{one.pod}",
                one.container,
                one.node,
                _state(one.state, one.attempt),
                one.reason,
                "" if one.exit_code is None else str(one.exit_code),
                text.size(one.bytes) if one.bytes else "",
                one.message,
            ]
            for one in held.targets[:_MOST_ROWS]
        ]
        lines += [
            "",
            *printing.aligned(["POD", "CONTAINER", "NODE", "STATE", "REASON", "EXIT", "SIZE", "MESSAGE"], rows),
        ]
    if held.artifacts:
        rows = [[_where(one), text.size(one.size), one.sha256[:12]] for one in held.artifacts]
        lines += ["", *printing.aligned(["ARTIFACT", "SIZE", "SHA256"], rows)]
    return lines


def _state(state: TargetState, attempt: int) -> str:
    return f"{state} (attempt {attempt})" if attempt > 1 else str(state)


def _where(one: StoredArtifact) -> str:
    return one.uri.removeprefix("artifacts://")
