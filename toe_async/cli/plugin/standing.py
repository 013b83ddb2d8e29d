"""``kubectl toe status``: where runs of tools stand, target by target."""

from collections.abc import Sequence

from toe_async.apis.kinds import ARTIFACTS
from toe_async.apis.powertool import Phase, PowerTool, StoredArtifact, TargetState
from toe_async.cli.plugin import printing, text
from toe_async.cli.plugin.exits import Exit, Stopped
from toe_async.cli.plugin.powertools import PowerTools, code_of_phase, condition_words, goes_on, name_of
from toe_async.cli.plugin.session import Session

_MOST_ROWS = 100


async def run(session: Session) -> Exit:
    """One run in detail, or all of a namespace as a table."""
    arguments, console = session.arguments, session.console
    tools = PowerTools(session.library.client)
    if not arguments.name:
        await _all(session, tools)
        return Exit.OK
    found = await tools.get(session.namespace, arguments.name)
    if not arguments.wait:
        console.table(await shown(session, tools, found))
        return Exit.OK
    if found.spec.schedule and not goes_on(found):
        raise Stopped(f"{arguments.name} runs by a schedule and has no run to wait for now; {condition_words(found)}")
    return await follow(session, tools, session.namespace, arguments.name)


async def _all(session: Session, tools: PowerTools) -> None:
    form, console = session.arguments.output, session.console
    if form in {"json", "yaml"}:
        raw = await tools.raw_all(session.namespace)
        console.table([(printing.as_json if form == "json" else printing.as_yaml)(raw)])
        return
    found = await tools.all(session.namespace)
    if form == "name":
        for one in found:
            console.data(name_of(one.metadata.name))
    elif found:
        console.table(overview(found, namespaces=not session.namespace))
    else:
        where = f"namespace {session.namespace}" if session.namespace else "any namespace"
        console.note(f"No runs of tools in {where}.")


async def follow(session: Session, tools: PowerTools, namespace: str, name: str) -> Exit:
    """Wait until it is over, or the run of its schedule that goes on; then the detail.

    Says what it waits for as long as nothing has begun. The exit code tells how it went.
    """
    console, told = session.console, ""

    def look(found: PowerTool) -> None:
        nonlocal told
        held, words = found.status, condition_words(found)
        if held.conditions and held.phase in {None, Phase.PENDING, Phase.CONFLICTED} and words != told:
            told = words
            console.note(f"{name} waits: {words}")
        console.progress(
            f"{name}: {held.phase or 'Pending'}, {held.completed_pods + held.failed_pods + held.cancelled_pods} of "
            f"{held.selected_pods} done, {held.running_pods} at work. {words}",
            last=True,
        )

    found, phase = await tools.until_over(namespace, name, look)
    console.table(await shown(session, tools, found))
    return code_of_phase(phase)


async def shown(session: Session, tools: PowerTools, found: PowerTool) -> list[str]:
    """One run in the form that is asked for."""
    match session.arguments.output:
        case "json":
            return [printing.as_json(await tools.raw(found.metadata.namespace, found.metadata.name))]
        case "yaml":
            return [printing.as_yaml(await tools.raw(found.metadata.namespace, found.metadata.name))]
        case "name":
            return [name_of(found.metadata.name)]
        case _:
            return detail(found)


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
        rows = [[_where(one, found.metadata.namespace), text.size(one.size), one.sha256[:12]] for one in held.artifacts]
        lines += ["", *printing.aligned(["ARTIFACT", "SIZE", "SHA256"], rows)]
    return lines


def _state(state: TargetState, attempt: int) -> str:
    return f"{state} (attempt {attempt})" if attempt > 1 else str(state)


def _where(one: StoredArtifact, namespace: str) -> str:
    """As `kubectl toe get` takes it, where that has it: the collector's files are in the run's own namespace."""
    return one.uri.removeprefix(ARTIFACTS.path(namespace) + "/")
