"""``kubectl toe ui``: the collector's pages on loopback, under the rights of the user's own kubeconfig.

The browser gets a cookie of this server for a key that works once, and never anything that the cluster would accept.
Whoever may read this user's processes could take the key first; then the user's own page says so.
"""

import asyncio
import os
import secrets
from contextlib import suppress

from aiohttp import web

from toe_async.cli.plugin import contexts
from toe_async.cli.plugin.exits import Exit, Stopped
from toe_async.cli.plugin.session import Session
from toe_async.cli.plugin.viewing import browse
from toe_async.collector.pages.routes import build_pages
from toe_async.collector.pages.viewers import OneViewer
from toe_async.lib.clock import SystemClock

_ADDRESS = "127.0.0.1"


async def run(session: Session) -> Exit:
    """Serve until Ctrl-C or the end of --timeout, which are both a good end."""
    arguments, console = session.arguments, session.console
    found = await asyncio.to_thread(contexts.read, contexts.files(arguments.kubeconfig, os.environ))
    title = arguments.context or found.current or "cluster"
    first = arguments.namespace or ""
    access = OneViewer(session.library, secrets.token_urlsafe(32), name=title, namespace=first)
    app = web.Application()
    app.add_routes(await asyncio.to_thread(build_pages, access, title=title, clock=SystemClock()))
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=15, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, _ADDRESS, arguments.port).start()
        except OSError as error:
            raise Stopped(f"cannot listen on {_ADDRESS}:{arguments.port}: {error.strerror}") from error
        url = f"http://{_ADDRESS}:{runner.addresses[0][1]}{access.first_path}"
        if await browse(session, url):
            console.note(f"Opened {url.partition('?')[0]} in the browser; Ctrl-C ends it.")
        else:
            console.data(url)
            console.flush()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()
    return Exit.OK
