"""``kubectl toe preflight``: everything that would keep a run from happening, in one go, before anything is written."""

import msgspec
from msgspec import Struct

from toe_async.apis.captures import Target
from toe_async.apis.core import NamespaceObject, decode_namespace
from toe_async.apis.kinds import NAMESPACES, PODS, POWER_TOOL_CONFIGS, POWER_TOOLS
from toe_async.apis.meta import Decoder, Wire
from toe_async.apis.pods import DEFAULT_CONTAINER
from toe_async.apis.podspec import PodDetail
from toe_async.apis.powertool import PowerToolSpec
from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.capture.arguments import render
from toe_async.capture.preflight import preflight
from toe_async.capture.refusals import Refused as Verdict
from toe_async.capture.toolconfig import ToolPolicy, resolve
from toe_async.capture.toolrun import ToolCapture
from toe_async.cli.plugin import printing
from toe_async.cli.plugin.exits import Exit
from toe_async.cli.plugin.powertools import PowerTools
from toe_async.cli.plugin.refusals import refused
from toe_async.cli.plugin.running import manifest
from toe_async.cli.plugin.session import Session
from toe_async.collector.errors import Refused
from toe_async.kube import requests
from toe_async.kube.client import Client
from toe_async.kube.errors import KubeError
from toe_async.lib.clock import SystemClock
from toe_async.lib.globs import any_match

_MOST_PODS = 200


class Check(Struct, frozen=True):
    """One finding. `fine` is None where nobody could tell."""

    what: str
    fine: bool | None
    words: str = ""
    denied: bool = False


class _Pods(Wire, frozen=True):
    items: tuple[PodDetail, ...] = ()


_decode_pods = Decoder(_Pods)


async def run(session: Session) -> Exit:
    """Prints each check; the exit code is 0 when nothing stands against the run, 3 when rights are missing."""
    arguments, console = session.arguments, session.console
    tools = PowerTools(session.library.client)
    wanted = manifest(arguments)
    spec = msgspec.convert(wanted["spec"], PowerToolSpec)
    checks = [*await _rights(session, tools), *await _tool(session, tools, spec)]
    checks.append(await _admission(session, tools, wanted))
    if arguments.output in {"json", "yaml"}:
        told = {"checks": msgspec.to_builtins(checks)}
        console.table([(printing.as_json if arguments.output == "json" else printing.as_yaml)(told)])
    else:
        marks = {True: "ok", False: "NO", None: "?"}
        console.table(printing.aligned(["", "CHECK", "WHY"], [[marks[c.fine], c.what, c.words] for c in checks]))
    wrong = [one for one in checks if one.fine is False]
    if not wrong:
        return Exit.OK
    return Exit.DENIED if any(one.denied for one in wrong) else Exit.FAILED


async def _rights(session: Session, tools: PowerTools) -> list[Check]:
    arguments, namespace = session.arguments, session.namespace
    asked = (
        ("create powertools", await tools.may("create", POWER_TOOLS, namespace)),
        (
            "patch pods/ephemeralcontainers",
            await tools.may("patch", PODS, namespace, subresource="ephemeralcontainers"),
        ),
        (
            f"use powertoolconfigs/{arguments.tool}",
            await tools.may("use", POWER_TOOL_CONFIGS, arguments.operator_namespace, name=arguments.tool),
        ),
    )
    where = f"in namespace {namespace}"
    return [
        Check(f"you may {what}", fine, "" if fine else f"ask for the right to {what} {where}", denied=not fine)
        for what, fine in asked
    ]


async def _tool(session: Session, tools: PowerTools, spec: PowerToolSpec) -> list[Check]:
    arguments = session.arguments
    try:
        configs = await tools.configs(arguments.operator_namespace)
    except Refused as no:
        return [Check("the tool is approved", None, f"you may not look: {no.message}")]
    config = resolve(arguments.tool, configs, ToolPolicy())
    if isinstance(config, Verdict):
        return [Check("the tool is approved", False, config.message)]
    globs = config.spec.allowed_namespaces
    here = not globs or any_match(globs, session.namespace)
    argv = render(config.spec, spec.tool)
    return [
        Check("the tool is approved", True, config.spec.image),
        Check("it is allowed in this namespace", here, "" if here else f"it is allowed in {', '.join(globs[:10])}"),
        Check("it takes these arguments", *_verdict(argv)),
        *await _pods(session, config, spec),
    ]


async def _pods(session: Session, config: PowerToolConfig, spec: PowerToolSpec) -> list[Check]:
    client, namespace = session.library.client, session.namespace
    try:
        pods = await _matching(client, namespace, session.arguments.selector)
        held = await _namespace(client, namespace)
    except KubeError as error:
        return [Check("the pods can be looked at", None, refused(error, PODS).message)]
    running = [one for one in pods if one.status.phase == "Running" and one.metadata.deletion_timestamp is None]
    checks = [Check("running pods match", bool(running), f"{len(running)} of {len(pods)} that match are running")]
    for pod in running:
        found = preflight(_capture(pod, config, spec), pod, held)
        words = "; ".join(f"{one.reason}: {one.message}" for one in found) if isinstance(found, tuple) else ""
        checks.append(Check(f"it can run in pod {pod.metadata.name}", not isinstance(found, tuple), words))
    return checks


async def _admission(session: Session, tools: PowerTools, wanted: dict[str, object]) -> Check:
    try:
        await tools.create(session.namespace, wanted, dry_run=True)
    except Refused as no:
        return Check("the API server takes it", False, no.message, denied=no.status == 403)
    return Check("the API server takes it", True)


async def _matching(client: Client, namespace: str, selector: str) -> tuple[PodDetail, ...]:
    request = requests.list_(PODS, namespace, label_selector=selector, limit=_MOST_PODS)
    return _decode_pods(await client.send(request)).items


async def _namespace(client: Client, name: str) -> NamespaceObject | None:
    """None for a user who may not read it: its Pod Security level is told by nobody then."""
    try:
        return decode_namespace(await client.send(requests.get(NAMESPACES, None, name)))
    except KubeError:
        return None


def _capture(pod: PodDetail, config: PowerToolConfig, spec: PowerToolSpec) -> ToolCapture:
    meta = pod.metadata
    names = [one.name for one in pod.spec.containers]
    default = meta.annotations.get(DEFAULT_CONTAINER, "")
    container = spec.targets.container or (default if default in names else next(iter(names), ""))
    target = Target(
        namespace=meta.namespace,
        pod=meta.name,
        pod_uid=meta.uid,
        container=container,
        node=pod.spec.node_name,
        labels=meta.labels,
        service="",
    )
    return ToolCapture(
        id="",
        namespace=meta.namespace,
        name="",
        uid="",
        run="",
        attempt=1,
        claimed_at=SystemClock().now(),
        target=target,
        tool=config.spec,
        spec=spec,
        matching_labels={},
    )


def _verdict(found: object) -> tuple[bool, str]:
    return (False, f"{found.reason}: {found.message}") if isinstance(found, Verdict) else (True, "")
