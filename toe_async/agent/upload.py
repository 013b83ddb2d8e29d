"""Leaves to the collector, in pieces that survive a lost connection.

The collector's offset is the truth: it is asked before the first byte and after each break, and what lies before it is
never sent again. It is also asked whether it would take the leaf at all, so that a body is not sent to be refused.
Nothing counts as stored without a receipt for exactly our bytes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from toe_async.agent.faults import Again, Broken, Lost
from toe_async.agent.folders import open_file
from toe_async.agent.httpclient import Answer, Endpoint
from toe_async.agent.packing import Packed, disk_fault, measure
from toe_async.agent.protocol import Leaf

PIECE_BYTES = 8 << 20

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}={0,2}")
_WORD = re.compile(r"[A-Za-z]{1,40}")
_LONGEST_WAIT = 300.0
_FINAL = {"Complete", "Cancelled", "Taken", "Mismatch", "LeafNotRegistered"}
"""Refusals that are about this capture and stay as they are."""
_DAMAGED = {"DigestMismatch", "SizeMismatch"}


def is_token(text: str) -> bool:
    """Tell whether a text can be sent as a bearer token."""
    return _TOKEN.fullmatch(text) is not None


class CollectorUpload:
    """One capture's leaves to one collector. `leaves` is the open folder in which they lie."""

    def __init__(self, endpoint: Endpoint, capture: str, leaves: int) -> None:
        self._http, self._capture, self._leaves = endpoint, quote(capture, safe=""), leaves
        self.token = ""
        """What to authenticate with, from the next request on; nothing is sent without one."""

    def put(self, leaf: Packed) -> Leaf:
        """Send what the collector does not have of a leaf yet.

        Raises:
            Again, Lost, Stopped.
        """
        path = f"/v1/captures/{self._capture}/artifacts/{quote(leaf.name, safe='')}"
        try:
            source = open_file(self._leaves, leaf.name)
        except OSError as error:
            raise disk_fault(error) from error
        try:
            return self._send(source, path, leaf)
        finally:
            os.close(source)

    def complete(self, stored: Sequence[Leaf]) -> None:
        """Close the capture with the list of what was stored; raises as `put` does."""
        said = [{"name": leaf.name, "size": leaf.size, "sha256": leaf.sha256} for leaf in stored]
        body = json.dumps({"artifacts": said}).encode()
        headers = {"Content-Type": "application/json"}
        _judged(self._ask("POST", f"/v1/captures/{self._capture}/complete", headers, len(body), lambda _: body))

    def abort(self) -> None:
        """End what is under way; every later call raises Stopped."""
        self._http.abort()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _send(self, source: int, path: str, leaf: Packed) -> Leaf:
        begun = offset = self._offset(path, leaf)
        while True:
            before = offset
            try:
                answer = self._piece(source, path, leaf, offset)
                if answer.status in {200, 201}:
                    return _receipt(answer, leaf)
                offset = _told(answer, leaf)
                stuck = Again("the collector takes pieces and has no more of the leaf than before")
            except (Broken, _Elsewhere) as error:
                stuck = error if isinstance(error, Broken) else Again(str(error))
                offset = self._offset_after(before - begun, path, leaf)
            except _Damaged as error:
                if measure(source, bool) != (leaf.size, leaf.sha256):
                    raise _changed() from error
                raise Again(str(error)) from error
            if offset <= before:
                stuck.progressed = offset > begun
                raise stuck

    def _offset_after(self, gained: int, path: str, leaf: Packed) -> int:
        try:
            return self._offset(path, leaf)
        except Broken as error:
            error.progressed = gained > 0
            raise

    def _piece(self, source: int, path: str, leaf: Packed, offset: int) -> Answer:
        size = leaf.size
        end = min(offset + PIECE_BYTES, size)
        total = str(size) if end == size else "*"
        # Everything may be there, and stored: then no byte more is needed for the receipt.
        span = f"bytes {offset}-{end - 1}/{total}" if offset < size else f"bytes */{size}"
        at = [offset]

        def read(most: int) -> bytes:
            piece = os.pread(source, most, at[0])
            if not piece:
                raise _changed()
            at[0] += len(piece)
            return piece

        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": span,
            "X-Toe-Sha256": leaf.sha256,
        }
        return _judged(self._ask("PUT", path, headers, end - offset, read))

    def _offset(self, path: str, leaf: Packed) -> int:
        said = {"X-Toe-Sha256": leaf.sha256, "X-Toe-Size": str(leaf.size)}
        answer = _judged(self._ask("HEAD", path, said))
        return leaf.size if answer.headers.get("upload-complete") == "?1" else _told(answer, leaf)

    def _ask(self, method: str, path: str, headers: dict[str, str], length: int = 0, read: Any = bytes) -> Answer:
        if not self.token:
            raise Again("no token for the collector came", token=True)
        return self._http.ask(
            method, path, {"Authorization": f"Bearer {self.token}", **headers}, length=length, read=read
        )


class _Elsewhere(Exception):  # noqa: N818 - read as what has happened
    """416: the collector has another part than we thought."""


class _Damaged(Exception):  # noqa: N818 - read as what has happened
    """The collector got other bytes than were announced, and begins again."""


def _changed() -> Lost:
    return Lost("SpoolDamaged", "the leaf was changed in the tool's container while it was sent")


def _judged(answer: Answer) -> Answer:
    """Return an answer that says that all is well; raise what any other one means."""
    status = answer.status
    if status in {200, 201, 202}:
        return answer
    word = _reason(answer)
    message = f"the collector answers {status} {word}".rstrip()
    wait = answer.headers.get("retry-after", "")
    retry_after = min(float(wait), _LONGEST_WAIT) if wait.isdecimal() and len(wait) < 6 else 0.0
    if status == 416:
        raise _Elsewhere(message)
    if status == 400 and word in _DAMAGED:
        raise _Damaged(message)
    if status in {403, 409} and word in _FINAL:
        raise Lost("Cancelled" if word == "Cancelled" else "Conflicted", message)
    if status == 413:
        raise Lost("TooLarge", f"{message}: larger than it takes; raise --max-artifact-bytes there")
    if status in {400, 411, 431}:
        raise Lost("UploadFailed", message)
    if status == 507:
        message += ": its store, or this namespace's share of it, is full"
        raise Again(message, reason="StoreFull", retry_after=retry_after)
    # A capture that it does not know (404), or whose time is over, is registered again by the operator when he sends a
    # token; everything that is not said here may pass until the deadline.
    raise Again(message, retry_after=retry_after, token=status in {401, 403, 404})


def _reason(answer: Answer) -> str:
    try:
        body = json.loads(answer.body) if answer.body else {}
        # The answer to a HEAD has no body, and its reason in a header.
        word = body.get("reason") if answer.body else answer.headers.get("x-toe-reason", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return word if isinstance(word, str) and _WORD.fullmatch(word) else ""


def _told(answer: Answer, leaf: Packed) -> int:
    said = answer.headers.get("upload-offset", "")
    if not (said.isascii() and said.isdecimal()) or len(said) > 18 or int(said) > leaf.size:
        raise Again("the collector's offset cannot be read; is it a collector of this release?")
    return int(said)


def _receipt(answer: Answer, leaf: Packed) -> Leaf:
    try:
        said = json.loads(answer.body)
        uri, size, sha256 = said["uri"], said["size"], said["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Again("the collector's receipt cannot be read; is it a collector?") from error
    if (size, sha256) != (leaf.size, leaf.sha256):
        raise Lost("UploadFailed", "the collector's receipt is for other bytes than were sent")
    if not isinstance(uri, str) or len(uri) > 1024:
        raise Again("the collector's receipt names no artifact; is it a collector?")
    return Leaf(name=leaf.name, size=leaf.size, sha256=leaf.sha256, state="stored", uri=uri)
