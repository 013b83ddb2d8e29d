"""HTTP to one endpoint from inside a pod: the CA of the orders and no other, no proxy, no redirect, bounded answers.

One connection at a time, kept while it works. `abort` may be called from another thread and ends whatever is under way.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from toe_async.agent.faults import Broken, Stopped

SILENCE_SECONDS = 60.0
CONNECT_SECONDS = 10.0

_LARGEST_ANSWER = 64 << 10
_LOOK_SECONDS = 0.2
_CHUNK = 256 << 10
_EGRESS = "the request leaves from the target's network: a NetworkPolicy or a mesh there may forbid it"


@dataclass(frozen=True)
class Answer:
    """What the other side said; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Endpoint:
    """Where requests go. Raises ValueError when the URL or the CA cannot be used."""

    def __init__(self, url: str, ca: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("the endpoint is no http or https URL")
        self._host, self._prefix = parts.hostname, parts.path.rstrip("/")
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _context(ca) if parts.scheme == "https" else None
        self._where = f"{self._host}:{self._port}"
        self._reached = False
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()
        self._aborted = threading.Event()

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        length: int = 0,
        read: Callable[[int], bytes] = bytes,
    ) -> Answer:
        """Send a request and return its answer, whatever its status. `read` gives up to so many bytes of the body.

        Raises:
            Broken: the connection could not be made, or gave no answer.
            Stopped: `abort` was called.
        """
        try:
            connection = self._connected()
            connection.putrequest(method, self._prefix + path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if method in {"PUT", "POST"}:
                connection.putheader("Content-Length", str(length))
            reply = self._exchange(connection, length, read)
            body = reply.read(_LARGEST_ANSWER + 1)
            if len(body) > _LARGEST_ANSWER:
                raise Broken(f"{self._where} answers with more than {_LARGEST_ANSWER} bytes; is it a collector?")
            if reply.will_close:
                self.close()
            return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, body)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if self._aborted.is_set():
                raise Stopped from error
            raise Broken(self._words(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """End what is under way and refuse what comes: not a byte leaves after this."""
        with self._lock:
            self._aborted.set()
            sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                # On the plain socket: a TLS one would be unwrapped under the feet of the thread that uses it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _connected(self) -> http.client.HTTPConnection:
        with self._lock:
            if self._aborted.is_set():
                raise Stopped
            if self._connection is not None:
                return self._connection
        made = self._dialled()
        made.sock.settimeout(SILENCE_SECONDS)
        self._reached = True
        with self._lock:
            self._connection = made
        if self._aborted.is_set():
            raise Stopped
        return made

    def _dialled(self) -> http.client.HTTPConnection:
        """Connect in a thread of its own: nothing else can leave a resolver that does not answer."""
        if self._tls is None:
            made = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        else:
            made = http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_SECONDS, context=self._tls)
        failed: list[Exception] = []
        ready = threading.Event()

        def dial() -> None:
            try:
                made.connect()
            except Exception as error:  # noqa: BLE001 - raised again by whoever waits
                failed.append(error)
            ready.set()
            if self._aborted.is_set():
                made.close()

        threading.Thread(target=dial, name="connect", daemon=True).start()
        while not ready.wait(_LOOK_SECONDS):
            if self._aborted.is_set():
                raise Stopped
        if failed:
            raise failed[0]
        return made

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        length: int,
        read: Callable[[int], bytes],
    ) -> http.client.HTTPResponse:
        try:
            connection.endheaders()
            while length:
                piece = read(min(_CHUNK, length))
                if not piece:
                    raise http.client.HTTPException("the body ended early")
                connection.send(piece)
                length -= len(piece)
        except (BrokenPipeError, ConnectionResetError) as error:
            # Whoever refuses a body says so and closes: what he said may be there to be read.
            if self._aborted.is_set():
                raise
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self._closing(connection.getresponse())
            raise error from None
        return connection.getresponse()

    @staticmethod
    def _closing(reply: http.client.HTTPResponse) -> http.client.HTTPResponse:
        reply.will_close = True
        return reply

    def _words(self, error: Exception) -> str:
        if isinstance(error, socket.gaierror):
            return f"the name {self._host} of {self._where} cannot be resolved; {_EGRESS}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the certificate of {self._where} is not one of the CA that the operator gave for it"
        if isinstance(error, ssl.SSLError):
            return f"{self._where} and this container agree on no TLS 1.2 or later"
        if not self._reached:
            late = isinstance(error, (TimeoutError, socket.timeout))
            word = "no answer in time" if late else type(error).__name__
            return f"{self._where} cannot be reached ({word}); {_EGRESS}"
        return f"{self._where} gives no answer ({type(error).__name__})"


def _context(ca: str) -> ssl.SSLContext:
    try:
        # With a CA given, no other is trusted; without one, those of the image are.
        context = ssl.create_default_context(cadata=ca or None)
    except ssl.SSLError as error:
        raise ValueError("the CA for the endpoint holds no certificate") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # From Python 3.13 on chains must carry key identifiers by default; many private authorities leave them out.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
