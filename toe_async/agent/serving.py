"""Kept leaves over HTTP on loopback, for an operator that comes through a port-forward.

`GET /{key}/{leaf}` answers with the bytes, `GET /{key}/.fetched` ends the keeping. Whoever shares the pod's network can
connect, so the key is what admits, and everything else is 404. One answer a connection; few connections, each with
limits, so that somebody slow keeps nobody away for long.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import threading
import time
from collections.abc import Mapping

from toe_async.agent.folders import open_file
from toe_async.agent.protocol import Leaf

FETCHED = ".fetched"
MOST_CONNECTIONS = 4
HEAD_SECONDS = 10.0
"""For all of a request."""
SILENCE_SECONDS = 30.0
"""How long a reader may take nothing."""

_LONGEST_HEAD = 8 << 10
_CHUNK = 256 << 10


class LeafServer:
    """Serves leaves from an open folder until it is closed. `fetched` is set when its reader has it all."""

    def __init__(self, leaves: int, key: str, kept: Mapping[str, Leaf]) -> None:
        if not key:
            raise ValueError("leaves are served under a key, and there is none")
        self._leaves, self._key, self._kept = leaves, key, kept
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.fetched = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=MOST_CONNECTIONS)
        self._listener.settimeout(1.0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="leaves", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, and the answers under way."""
        with self._lock:
            self._closed.set()
            under_way = list(self._open)
        for one in (self._listener, *under_way):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._closed.is_set():
                    return
                continue
            with self._lock:
                if self._closed.is_set() or not self._room.acquire(blocking=False):
                    connection.close()
                    continue
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="leaf", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                self._answer(connection, _target(_head(connection)))
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
            self._room.release()

    def _answer(self, connection: socket.socket, target: str) -> None:
        key, _, name = target.lstrip("/").partition("/")
        admitted = hmac.compare_digest(key.encode(), self._key.encode())
        connection.settimeout(SILENCE_SECONDS)
        if admitted and name == FETCHED:
            connection.sendall(_headers("200 OK", 0))
            self.fetched.set()
        elif admitted and name in self._kept:
            self._send(connection, self._kept[name])
        else:
            connection.sendall(_headers("404 Not Found", 0))

    def _send(self, connection: socket.socket, leaf: Leaf) -> None:
        source = open_file(self._leaves, leaf.name)
        try:
            connection.sendall(_headers("200 OK", leaf.size))
            offset = 0
            while offset < leaf.size and (piece := os.pread(source, min(_CHUNK, leaf.size - offset), offset)):
                offset += len(piece)
                while piece:
                    piece = piece[connection.send(piece) :]
        finally:
            os.close(source)


def _head(connection: socket.socket) -> bytes:
    head, until = b"", time.monotonic() + HEAD_SECONDS
    while b"\r\n\r\n" not in head and len(head) < _LONGEST_HEAD and (left := until - time.monotonic()) > 0:
        connection.settimeout(left)
        piece = connection.recv(_LONGEST_HEAD - len(head))
        if not piece:
            break
        head += piece
    return head


def _target(head: bytes) -> str:
    """The path of a GET request, or "" for everything else."""
    if b"\r\n\r\n" not in head:
        return ""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    return words[1] if len(words) == 3 and words[0] == "GET" and words[2].startswith("HTTP/1.") else ""


def _headers(status: str, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n"
        "Connection: close\r\n\r\n"
    ).encode("latin-1")
