"""One profile from one pod: a port-forward, one GET from a closed list of paths, a body that streams into a callback.

Memory is flat whatever the size: at most two blocks are held. Hashing and checking run in a thread, so that the event
loop never waits for them. Every failure is one CaptureFailed with the word for status, Events and metrics (D13, D14).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final

from msgspec import Struct

from toe_async.apis.profilingconfig import ProfileType
from toe_async.apis.reasons import Reason
from toe_async.capture.content import Content, GzipContent, TraceContent, Wholeness
from toe_async.capture.targets import PprofTarget
from toe_async.kube.client import Client
from toe_async.kube.errors import (
    ApiError,
    ConfigurationError,
    Forbidden,
    KubeError,
    NotFound,
    PortForwardError,
    Unauthorized,
    clip,
)
from toe_async.kube.portforward import PodResponse, pod_request
from toe_async.lib.quantities import format_bytes

__all__ = ["CaptureFailed", "Taken", "deadline_seconds", "request_path", "take"]

HEAD_SECONDS: Final = 30.0
"""How long the target may take to answer, beyond the seconds that it was asked to record."""
SILENCE_SECONDS: Final = 30.0
"""How long a body may pause."""
BODY_SECONDS: Final = 180.0
"""How long everything beyond the recording may take: 2 GiB at 12 MiB/s."""
BLOCK: Final = 256 << 10

_NAMES: Final[Mapping[ProfileType, str]] = {kind: kind.value for kind in ProfileType} | {ProfileType.CPU: "profile"}
_TIMED: Final = frozenset({ProfileType.CPU, ProfileType.TRACE})


class Taken(Struct, frozen=True, gc=False):
    """What was received. `verified` is False when nothing but the peer's close told the end (UnverifiedLength)."""

    size: int
    sha256: str
    verified: bool


class CaptureFailed(Exception):  # noqa: N818 -- it says what happened to the capture
    """No whole profile. `retry` says that the same request may succeed in a moment."""

    def __init__(self, reason: Reason, message: str, *, retry: bool = False) -> None:
        super().__init__(clip(message))
        self.reason = reason
        self.message = clip(message)
        self.retry = retry


def request_path(target: PprofTarget, profile: ProfileType, seconds: int) -> str:
    """Path and query of one profile; nothing in it but the checked prefix comes from outside."""
    query = f"?seconds={seconds}" if profile in _TIMED else ""
    return f"{target.path}/{_NAMES[profile]}{query}"


def deadline_seconds(profile: ProfileType, seconds: int) -> float:
    """The longest that `take` lasts; a claim that is older belongs to nobody."""
    return BODY_SECONDS + (seconds if profile in _TIMED else 0)


async def take(
    client: Client,
    target: PprofTarget,
    profile: ProfileType,
    seconds: int,
    write: Callable[[bytes], Awaitable[None]],
    *,
    max_bytes: int,
) -> Taken:
    """Stream one profile into `write`, in blocks of about 256 KiB, and say what it was.

    `seconds` is the length of a CPU profile or a trace. Bytes that were written before a failure are worth nothing:
    drop them. A port-forward names its pod and cannot name a UID: check that the pod is still the one that was chosen.

    Raises:
        CaptureFailed: nothing usable came. What `write` raises passes through unchanged.
    """
    content = TraceContent() if profile is ProfileType.TRACE else GzipContent()
    what = _what(target, profile)
    try:
        async with AsyncExitStack() as stack:
            response = await _open(stack, client, target, profile, seconds)
            _check_head(response, profile, what, max_bytes)
            chunks = response.chunks()
            while block := await _block(chunks, what):
                wrong = await asyncio.to_thread(content.feed, block)
                if wrong:
                    raise CaptureFailed(Reason.NOT_A_PROFILE, f"{what}: {wrong}")
                if content.size > max_bytes:
                    raise _too_large(what, max_bytes)
                await write(block)
            return _taken(content, what, framed=response.length_verified)
    except KubeError as error:
        raise _failure(error, target, profile) from error


async def _open(
    stack: AsyncExitStack, client: Client, target: PprofTarget, profile: ProfileType, seconds: int
) -> PodResponse:
    limit = HEAD_SECONDS + (seconds if profile in _TIMED else 0)
    request = pod_request(
        client,
        target.namespace,
        target.pod,
        target.port,
        request_path(target, profile, seconds),
        deadline_seconds=deadline_seconds(profile, seconds),
    )
    try:
        async with asyncio.timeout(limit):
            return await stack.enter_async_context(request)
    except TimeoutError as error:
        raise CaptureFailed(
            Reason.CAPTURE_TIMED_OUT, f"{_what(target, profile)}: no answer within {limit:g} s"
        ) from error


async def _block(chunks: AsyncIterator[bytes], what: str) -> bytes:
    """The next 256 KiB or a little more, less only at the end: frames of 32 KiB would cost a thread's turn each."""
    pieces: list[bytes] = []
    held = 0
    while held < BLOCK:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                piece = await anext(chunks, None)
        except TimeoutError as error:
            raise CaptureFailed(
                Reason.CAPTURE_TIMED_OUT, f"{what}: the target fell silent for {SILENCE_SECONDS:g} s"
            ) from error
        if piece is None:
            break
        pieces.append(piece)
        held += len(piece)
    return b"".join(pieces)


def _what(target: PprofTarget, profile: ProfileType) -> str:
    return f"{profile} profile of pod {target.namespace}/{target.pod}, port {target.port}"


def _check_head(response: PodResponse, profile: ProfileType, what: str, max_bytes: int) -> None:
    """Refuse by status and headers what is not worth reading."""
    status = response.status
    if status == 404:
        raise CaptureFailed(Reason.PROFILE_MISSING, f"{what}: the target serves none there (404)")
    if status == 500 and profile in _TIMED:
        raise CaptureFailed(Reason.PROFILER_BUSY, f"{what}: somebody else is profiling this process (500)", retry=True)
    if status != 200:
        hint = "; its WriteTimeout may be shorter than cpuSeconds" if status == 400 and profile in _TIMED else ""
        raise CaptureFailed(
            Reason.TARGET_ERROR, f"{what}: the target answered {status}{hint}", retry=status in {429, 502, 503, 504}
        )
    headers = response.headers
    if headers.get("content-type", "").lower().startswith("text/html"):
        raise CaptureFailed(Reason.NOT_A_PROFILE, f"{what}: the answer is a web page")
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > max_bytes:
        raise _too_large(what, max_bytes)


def _taken(content: Content, what: str, *, framed: bool) -> Taken:
    """Judge the end. `framed`: HTTP said where the body ends, and it did."""
    if content.size == 0:
        raise CaptureFailed(Reason.NOT_A_PROFILE, f"{what}: the answer is empty")
    wholeness = content.wholeness()
    if framed and wholeness is Wholeness.CUT:
        raise CaptureFailed(Reason.TRUNCATED, f"{what}: the target ended it early, after {content.size} bytes")
    return Taken(content.size, content.sha256, framed or wholeness is Wholeness.WHOLE)


def _too_large(what: str, max_bytes: int) -> CaptureFailed:
    return CaptureFailed(
        Reason.TOO_LARGE, f"{what}: larger than {format_bytes(max_bytes)}, the limit of --max-capture-bytes"
    )


def _failure(error: KubeError, target: PprofTarget, profile: ProfileType) -> CaptureFailed:
    """The one place where errors of the way to the pod become reasons."""
    if isinstance(error, PortForwardError):  # it names port and pod itself
        late = error.reason is Reason.DEADLINE_EXCEEDED
        again = error.reason in {Reason.PORT_FORWARD_FAILED, Reason.TRUNCATED}
        return CaptureFailed(
            Reason.CAPTURE_TIMED_OUT if late else error.reason, f"{profile} profile: {error}", retry=again
        )
    what = _what(target, profile)
    if isinstance(error, Forbidden | Unauthorized):
        return CaptureFailed(
            Reason.NOT_AUTHORIZED,
            f"{what}: the operator needs the verbs get and create on pods/portforward in namespace "
            f"{target.namespace} ({error})",
        )
    if isinstance(error, NotFound):
        return CaptureFailed(Reason.POD_GONE, f"{what}: the pod is gone")
    lasting = isinstance(error, ConfigurationError) or (
        isinstance(error, ApiError) and error.status < 500 and error.status != 429
    )
    return CaptureFailed(Reason.PORT_FORWARD_FAILED, f"{what}: {error}", retry=not lasting)
