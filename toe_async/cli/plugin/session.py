"""One run of a verb against a cluster: signing in, signals, the deadline, and failures as sentences and exit codes."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from toe_async.cli.plugin import contexts
from toe_async.cli.plugin.console import Console
from toe_async.cli.plugin.exits import Exit, Stopped, Usage, code_of
from toe_async.cli.plugin.refusals import refused
from toe_async.cli.plugin.remote import RemoteLibrary
from toe_async.collector.errors import Refused
from toe_async.kube.client import ClientSettings, connect
from toe_async.kube.errors import KubeError
from toe_async.telemetry import log

T = TypeVar("T")
S = TypeVar("S")


class Session:
    """What a verb works with. `namespace` is empty for all of them."""

    def __init__(self, library: RemoteLibrary, namespace: str, console: Console, arguments: argparse.Namespace) -> None:
        self.library, self.namespace, self.console, self.arguments = library, namespace, console, arguments


Work = Callable[[Session], Awaitable[Exit]]


def run(arguments: argparse.Namespace, work: Work) -> Exit:
    """Run a verb to its end. Ctrl-C ends it in order, a second one at once."""
    console = Console(sys.stdout, sys.stderr, os.environ)
    log.configure("console", "warning", sys.stderr)
    try:
        with asyncio.Runner() as runner:
            return runner.run(_until_done(arguments, work, console))
    except asyncio.CancelledError:
        console.error("interrupted")
        return Exit.INTERRUPTED


async def _until_done(arguments: argparse.Namespace, work: Work, console: Console) -> Exit:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def asked() -> None:
        if task.cancelling():
            os._exit(Exit.INTERRUPTED)  # asked twice: whoever asks does not want to wait for anything
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    limit = asyncio.timeout(arguments.timeout)
    try:
        async with limit:
            return await _connected(arguments, work, console)
    except TimeoutError:
        if not limit.expired():
            raise
        console.error(f"not finished within --timeout {arguments.timeout:g}s")
        return Exit.TIMED_OUT
    except Refused as no:
        console.error(no.message)
        return code_of(no)
    except Usage as wrong:
        console.error(str(wrong))
        return Exit.USAGE
    except Stopped as stopped:
        console.error(str(stopped))
        return Exit.FAILED


async def _connected(arguments: argparse.Namespace, work: Work, console: Console) -> Exit:
    async with connected(arguments) as (library, default):
        namespace = "" if arguments.all_namespaces else arguments.namespace or default
        return await work(Session(library, namespace, console, arguments))


@asynccontextmanager
async def connected(arguments: argparse.Namespace) -> AsyncIterator[tuple[RemoteLibrary, str]]:
    """The library as the user of `kubeconfig` and `context` sees it, and the namespace that is meant by default.

    Raises:
        Refused: there is no usable kubeconfig, or nothing to sign in with.
    """
    environ = dict(os.environ)
    if not contexts.uses_pod(arguments.kubeconfig, environ):
        environ.pop("KUBERNETES_SERVICE_HOST", None)  # as with kubectl, a kubeconfig wins over the pod's own account
    default = await asyncio.to_thread(contexts.default_namespace, arguments.kubeconfig, arguments.context, environ)
    # Not strict about key identifiers in CAs: kubectl is not, and many clusters' own lack them.
    settings = ClientSettings(
        kubeconfig=arguments.kubeconfig, context=arguments.context, user_agent="kubectl-toe", disable_strict_tls=True
    )
    try:
        async with connect(settings, environ=environ) as client:
            yield RemoteLibrary(client, default), default
    except KubeError as error:
        raise refused(error) from error


async def each(items: Iterable[S], work: Callable[[S], Awaitable[T]], at_once: int) -> list[T]:
    """Run `work` for every item, so many at a time; results in the items' order. A failure is a result too."""
    places = asyncio.Semaphore(at_once)

    async def one(item: S) -> T:
        async with places:
            return await work(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item), name=f"item {number}") for number, item in enumerate(items)]
    return [task.result() for task in tasks]
