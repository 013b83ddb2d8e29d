"""The server's side of TLS: at least 1.2, and files that may be renewed while uploads go on.

A renewed pair or client CA makes a new context for connections to come; those that stand keep theirs. What does not
load, half written or not matching, changes nothing and is tried again.
"""

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

from toe_async.collector.errors import SettingsError
from toe_async.telemetry import log

_log = log.get("collector.tls")
Signature = tuple[tuple[int, int, int] | bytes, ...]


class ServerContext(ssl.SSLContext):
    """A context that tells whose clients it verifies: by it a handler knows which CA let a connection in."""

    client_ca: bytes | None = None
    """PEM certificates; None: no certificate was asked for."""


class Certificate:
    """A key pair on disk, whose clients are let in, and the context made from both. Its methods block: use a thread.

    With `client_ca`, which returns PEM certificates each time it is asked, only clients with a certificate of one of
    them get through the handshake; with none in it, nobody does. The client's verified certificate is then
    `request.transport.get_extra_info("peercert")`. While it returns None no certificate is asked for, and it is the
    application's to say so.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Callable[[], bytes | None] | None = None) -> None:
        """Load all of it.

        Raises:
            SettingsError: something is missing or does not load; one sentence.
        """
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self.trouble: str | None = None
        try:
            authorities = self._authorities()
        except OSError as failed:
            raise SettingsError(
                f"the client CA cannot be read ({_why(failed)}): give --client-ca a file of PEM certificates"
            ) from failed
        try:
            self._seen = self._signature(authorities)
            self.context = self._load(authorities)
        except _AuthorityError as failed:
            raise SettingsError(f"{failed}: give --client-ca a file of PEM certificates") from failed
        except (OSError, ssl.SSLError) as failed:
            raise SettingsError(
                f"the key pair {str(cert)!r} and {str(key)!r} cannot be used ({_why(failed)}): put a PEM certificate "
                "and its key there"
            ) from failed

    def reload(self) -> None:
        """Take changed files into use; never raises."""
        try:
            authorities = self._authorities()
            seen = self._signature(authorities)
            if seen == self._seen and self.trouble is None:
                return
            self.context = self._load(authorities)
            self._seen, self.trouble = seen, None
            _log.info("the renewed certificate is in use")
        except (OSError, ssl.SSLError, _AuthorityError) as failed:
            if self.trouble is None:
                _log.error("the renewed certificate cannot be used; the old one stays", error=_why(failed))
            self.trouble = f"the key pair or client CA cannot be used ({_why(failed)}); the one before stays in use"

    def _authorities(self) -> bytes | None:
        return None if self._client_ca is None else self._client_ca()

    def _signature(self, authorities: bytes | None) -> Signature:
        found = (path.stat() for path in (self._cert, self._key))
        stats = tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)
        return (*stats, hashlib.sha256(authorities or b"").digest())

    def _load(self, authorities: bytes | None) -> ServerContext:
        context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # An encrypted key would make OpenSSL ask at the terminal.
        context.load_cert_chain(self._cert, self._key, password=lambda: "")
        if authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            _trust(context, authorities)
            context.client_ca = authorities
        return context


class _AuthorityError(Exception):
    """The client CA holds something that is no certificate."""


def _trust(context: ssl.SSLContext, authorities: bytes) -> None:
    try:
        if authorities.strip():
            context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError) as bad:
        raise _AuthorityError("the client CA holds no PEM certificate") from bad


def _why(failed: Exception) -> str:
    if isinstance(failed, ssl.SSLError):
        return failed.reason or type(failed).__name__
    return (failed.strerror if isinstance(failed, OSError) else str(failed)) or type(failed).__name__
