"""The frames of attach and exec over ``v5.channel.k8s.io`` and ``v4.channel.k8s.io``, without I/O.

Every binary message starts with its channel: 0 stdin, 1 stdout, 2 stderr, 3 one metav1.Status as JSON about how it
ended. Only v5 can end one channel alone, by a message of channel 255 that names it. Where messages are cut means
nothing, so the Status is whole when the peer closes; a message of no byte, or with a channel and nothing else, opens
that channel and says nothing.
"""

from typing import Final

import msgspec
from msgspec import Struct

from toe_async.kube.channels import ChannelError

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
PROTOCOLS: Final = (V5, V4)
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
LARGEST_FRAME: Final = 32 << 10
"""Bytes of one message to the peer; larger ones are cut."""
_LARGEST_STATUS = 64 << 10


class Cause(Struct, frozen=True):
    """One detail of a Status; the exit code comes as reason ExitCode."""

    reason: str | None = None
    message: str | None = None


class _Details(Struct, frozen=True):
    causes: tuple[Cause, ...] | None = None


class _Status(Struct, frozen=True):
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None


class Ended(Struct, frozen=True):
    """How the command or the attached process ended, as far as the peer tells; `exit_code` None: it was not told."""

    success: bool
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class RemoteChannels:
    """The receiving side of one attach or exec, and the frames of its sending side."""

    def __init__(self, protocol: str) -> None:
        if protocol not in PROTOCOLS:
            raise ChannelError(
                f"the server chose the protocol {protocol!r} where {' and '.join(PROTOCOLS)} were offered"
            )
        self._half_close = protocol == V5
        self._status = b""

    def receive(self, message: bytes) -> tuple[int, bytes] | None:
        """Take one binary message; None when it brought no output.

        Raises:
            ChannelError: a channel that a peer may not send on, or a Status without end.
        """
        if not message:
            return None
        channel, payload = message[0], message[1:]
        if channel in {STDOUT, STDERR}:
            return (channel, payload) if payload else None
        if channel == ERROR:
            self._status += payload
            if len(self._status) > _LARGEST_STATUS:
                raise ChannelError(f"a status of more than {_LARGEST_STATUS} bytes")
            return None
        # Stdin is opened by the peer too. A v5 peer may tell that a channel has ended; v4 knows no such message.
        if (channel == STDIN and not payload) or (channel == CLOSE and self._half_close):
            return None
        raise ChannelError(f"a message for channel {channel}, expected {STDOUT}, {STDERR} or {ERROR}")

    def ended(self) -> Ended | None:
        """Tell how it ended, once the peer said so; None until then, and when it did not say it well."""
        try:
            told = msgspec.json.decode(self._status, type=_Status)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        code = 0 if told.status == "Success" else None
        for cause in (told.details.causes or ()) if told.details is not None else ():
            words = cause.message or ""
            if cause.reason == "ExitCode" and words.isascii() and words.isdecimal() and len(words) < 6:
                code = int(words)
        return Ended(told.status == "Success", told.reason or "", told.message or "", code)

    def frames(self, data: bytes) -> list[bytes]:
        """Return the messages that carry bytes to stdin."""
        pieces = range(0, len(data), LARGEST_FRAME)
        return [bytes([STDIN]) + data[at : at + LARGEST_FRAME] for at in pieces]
