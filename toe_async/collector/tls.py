"""The server's side of TLS: at least 1.2, and a certificate that may be renewed while uploads go on.

A renewed pair makes a new context for connections to come; those that stand keep theirs. A pair that does not load,
half written or not matching, changes nothing and is tried again.
"""

import ssl
from pathlib import Path

from toe_async.collector.errors import SettingsError
from toe_async.telemetry import log

_log = log.get("collector.tls")
Signature = tuple[tuple[int, int, int], ...]


class Certificate:
    """A key pair on disk and the context made from it. Its methods block and run in a thread."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Load the pair.

        Raises:
            SettingsError: it is missing or does not load; one sentence.
        """
        self._cert, self._key = cert, key
        self.trouble: str | None = None
        try:
            self._seen = self._signature()
            self.context = self._load()
        except (OSError, ssl.SSLError) as failed:
            raise SettingsError(
                f"the key pair {str(cert)!r} and {str(key)!r} cannot be used ({_why(failed)}): put a PEM certificate "
                "and its key there"
            ) from failed

    def reload(self) -> None:
        """Take a changed pair into use; never raises."""
        try:
            seen = self._signature()
            if seen == self._seen and self.trouble is None:
                return
            self.context = self._load()
            self._seen, self.trouble = seen, None
            _log.info("the renewed certificate is in use")
        except (OSError, ssl.SSLError) as failed:
            if self.trouble is None:
                _log.error("the renewed certificate cannot be used; the old one stays", error=_why(failed))
            self.trouble = f"the key pair cannot be used ({_why(failed)}); the one before stays in use"

    def _signature(self) -> Signature:
        found = (path.stat() for path in (self._cert, self._key))
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # An encrypted key would make OpenSSL ask at the terminal.
        context.load_cert_chain(self._cert, self._key, password=lambda: "")
        return context


def _why(failed: OSError) -> str:
    return (failed.reason if isinstance(failed, ssl.SSLError) else failed.strerror) or type(failed).__name__
