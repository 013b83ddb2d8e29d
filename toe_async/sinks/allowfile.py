"""The administrator's sinks file as it is on disk now: a mounted ConfigMap changes while we run.

Read again every ten seconds (the kubelet takes up to a minute to bring a change anyway). A file that cannot be used
leaves the last good one in force and is told once; at the start it is an error, since there is nothing to fall back to.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

from toe_async.apis.captures import SinkRef
from toe_async.sinks.allow import Allowed, AllowList, Refused, parse_policy
from toe_async.sinks.errors import BadSinksFile
from toe_async.telemetry import log

_LOOK_SECONDS = 10.0
_log = log.get(__name__)


class AllowFile:
    """The allow-list in force; decides as `AllowList` does."""

    def __init__(self, path: Path | None, collector: str, text: str) -> None:
        self._path, self._text = path, text
        self.collector = collector
        self._list = AllowList(parse_policy(text), collector)

    @classmethod
    async def open(cls, path: Path | None, collector: str) -> Self:
        """Read the file; None is an empty list.

        Raises:
            BadSinksFile: it cannot be read or used.
        """
        return cls(path, collector, await _read(path) if path is not None else "")

    def allow(self, ref: SinkRef, namespace: str) -> Allowed | Refused:
        """Decide for one sink of a config in `namespace`."""
        return self._list.allow(ref, namespace)

    async def run(self, on_change: Callable[[], None]) -> None:
        """Follow the file until cancelled."""
        told = ""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._path is None:
                continue
            try:
                text = await _read(self._path)
                if text == self._text:
                    continue
                self._list = AllowList(parse_policy(text), self.collector)
            except BadSinksFile as error:
                if str(error) != told:
                    told = str(error)
                    _log.error("the sinks file cannot be used, the last good one stays in force", why=told)
                continue
            self._text, told = text, ""
            _log.info("the sinks file changed and is in force", file=str(self._path))
            on_change()


async def _read(path: Path) -> str:
    try:
        return await asyncio.to_thread(path.read_text, "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSinksFile(f"the sinks file {path} cannot be read: {error}") from error
