"""``toe-async demo``: a real process gets hot, is profiled over a port-forward, and the profile is stored and shown.

Everything is real but the cluster, which is the sandbox: operator, collector and target are pods of it, that is
processes of this machine, and hold the service accounts, rights and admission policy that deploy/ gives them. When the
demo ends, however it ends, all of it is gone; only the fetched profiles stay.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from toe_async import __version__
from toe_async.cli import flags, process
from toe_async.cli.demo_cluster import DemoFailed, install
from toe_async.cli.demo_story import Story, draw, fetch
from toe_async.kube.client import Client, ClientSettings, connect
from toe_async.kube.errors import KubeError
from toe_async.lib.quantities import format_bytes
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.profiles.model import ProfileError
from toe_async.profiles.pprof import decode
from toe_async.profiles.top import top
from toe_async.sandbox.cluster import SandboxSettings, start
from toe_async.telemetry import log

_SECONDS = 120.0


class _Choices(Struct, frozen=True):
    """What the user asked for."""

    keep: bool
    output: Path


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    add = flags.from_environment(parser).add
    parser.add_argument(
        "--keep", action="store_true", help="leave it running afterwards, with a kubeconfig for kubectl"
    )
    add("output", flags.text, "demo-profiles", "folder for the fetched profiles", metavar="DIR")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    log.configure("console", "error")
    choices = _Choices(given.keep, Path(given.output))

    async def work(stop: asyncio.Event) -> None:
        # Whatever is under way is cancelled by the first Ctrl-C; leaving the contexts then ends every process.
        async with TaskOwner(lambda name, error: None) as owner:
            showing = owner.start(_show(choices, stop), name="demo")
            stopping = owner.start(stop.wait(), name="stop")
            await asyncio.wait({showing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if showing.done():
                showing.result()
            else:
                print("\nstopping, nothing stays behind", flush=True)
                await cancel_and_wait(showing)

    return process.run("toe-async demo", work, (DemoFailed, KubeError, OSError))


async def _show(choices: _Choices, stop: asyncio.Event) -> None:
    story = Story()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toe-demo-")))
        story.tell("cluster", f"toe-async {__version__} starts an API server and a node in this process")
        sandbox = await stack.enter_async_context(start(SandboxSettings()))
        kubeconfig = folder / "kubeconfig"
        await asyncio.to_thread(sandbox.write_kubeconfig, kubeconfig)
        client = await stack.enter_async_context(connect(ClientSettings(kubeconfig=str(kubeconfig))))
        story.tell("cluster", f"API server at {sandbox.url}")
        try:
            async with asyncio.timeout(_SECONDS):
                await install(client, sandbox, folder, story.tell)
                await _evidence(story, client, choices.output)
        except TimeoutError:
            raise DemoFailed(await story.post_mortem(client, f"no profile within {_SECONDS:g} s")) from None
        _look_further(choices, kubeconfig)
        if choices.keep:
            await stop.wait()


async def _evidence(story: Story, client: Client, output: Path) -> None:
    row = await story.follow(client)
    await asyncio.to_thread(output.mkdir, parents=True, exist_ok=True)
    print(f"\n{'PROFILE':<11} {'SIZE':>10}  WHERE AND WHAT IT SHOWS", flush=True)
    for artifact in row.artifacts:
        if not artifact.uri:
            print(f"{artifact.type:<11} {'-':>10}  not taken: {artifact.reason}: {artifact.message}")
            continue
        content = await fetch(client, artifact.uri, artifact.sha256)
        path = output / f"{artifact.type}.pprof"
        await asyncio.to_thread(path.write_bytes, content)
        await asyncio.to_thread(path.with_suffix(".html").write_bytes, await draw(client, artifact.uri))
        print(f"{artifact.type:<11} {format_bytes(artifact.size):>10}  {path} (sha256 checked), {path.stem}.html")
        for line in _hottest(content):
            print(f"{'':<24}{line}")


def _hottest(content: bytes) -> list[str]:
    try:
        found = top(decode(content), limit=3)
    except ProfileError as error:
        return [f"cannot be read as a profile: {error}"]
    whole = found.total or 1
    return [f"{row.flat / whole:6.1%} flat {row.cumulative / whole:6.1%} cum  {row.function}" for row in found.rows]


def _look_further(choices: _Choices, kubeconfig: Path) -> None:
    print(f"\nLook further:\n  {choices.output / 'cpu.html'}     the flame graph, in any browser, offline")
    print(f"  go tool pprof -top {choices.output / 'cpu.pprof'}")
    if not choices.keep:
        print("  python3 noxfile.py demo --keep     leaves it running for kubectl", flush=True)
        return
    print(f"  export KUBECONFIG={kubeconfig}")
    plugin = Path(sys.executable).with_name("kubectl-toe")
    for line in (
        "kubectl get artifacts -n demo",
        f"{plugin} ui -n demo     # the pages, in a browser",
        "kubectl get prof -n demo -o wide",
        "kubectl describe prof -n demo hot",
        "kubectl get events -n demo",
        "kubectl logs -n toe-system toe-operator",
    ):
        print(f"  {line}")
    print("Ctrl-C ends it and leaves nothing behind.", flush=True)
