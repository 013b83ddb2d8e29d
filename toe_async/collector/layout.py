"""The date layout that is in force: read from the mounted ConfigMap and read again when it changes.

A missing file means the default. A layout that cannot be used leaves the last good one in force and says so, in the log
once and in `trouble` for as long as it lasts.
"""

from pathlib import Path

from toe_async.collector.dateformat import DEFAULT_LAYOUT, DateLayout
from toe_async.telemetry import log

_FILE = "dateFormat"
_LONGEST = 4096
_log = log.get("collector.layout")


class Layout:
    """The layout in force. `reload` blocks and runs in a thread."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / _FILE if folder else None
        self._seen: str | None = None
        self.current = DateLayout(DEFAULT_LAYOUT)
        self.trouble: str | None = None

    def reload(self) -> None:
        """Look at the file and take a changed layout into force; never raises."""
        try:
            text = self._read()
        except (OSError, UnicodeDecodeError) as failed:
            text = f"\0{type(failed).__name__}"  # no layout, and different from every text
        if text == self._seen:
            return
        self._seen = text
        try:
            self.current = DateLayout(text)
        except ValueError as bad:
            self.trouble = f"{bad}; {self.current.layout!r} stays in force"
            _log.error("the date layout cannot be used", error=str(bad), in_force=self.current.layout)
        else:
            self.trouble = None
            _log.info("date layout in force", layout=self.current.layout)

    def _read(self) -> str:
        if self._file is None:
            return DEFAULT_LAYOUT
        try:
            with self._file.open(encoding="utf-8") as file:
                return file.read(_LONGEST)
        except FileNotFoundError:
            return DEFAULT_LAYOUT
