"""The frames of a port-forward over ``v4.channel.k8s.io`` (one port), without I/O.

Every websocket message starts with its channel: 0 carries the pod's bytes, 1 the runtime's error text. Each channel is
a stream of bytes that begins with the port as two bytes, little endian; where the messages are cut means nothing.
"""

from msgspec import Struct

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
_LARGEST_ERROR = 4096


class ChannelError(Exception):
    """The peer does not keep to the protocol."""


class Received(Struct, frozen=True):
    """What one message brought: bytes of the pod, or words of the runtime; both empty when it only opened a channel."""

    data: bytes = b""
    error: str = ""


class Channels:
    """The receiving side of one forwarded port."""

    def __init__(self, port: int) -> None:
        self._port = port.to_bytes(2, "little")
        self._preamble = {DATA: b"", ERROR: b""}

    def receive(self, message: bytes) -> Received:
        """Take one binary message.

        Raises:
            ChannelError: no channel byte, a channel of another port, or another port's number in front.
        """
        if not message or message[0] not in self._preamble:
            raise ChannelError(f"a message for channel {message[0] if message else 'none'}, expected 0 or 1")
        channel, payload = message[0], message[1:]
        seen = self._preamble[channel]
        if len(seen) < len(self._port):
            missing = len(self._port) - len(seen)
            seen, payload = seen + payload[:missing], payload[missing:]
            if not self._port.startswith(seen):
                raise ChannelError(
                    f"channel {channel} opened for port {int.from_bytes(seen, 'little')}, "
                    f"expected {int.from_bytes(self._port, 'little')}"
                )
            self._preamble[channel] = seen
        if channel == DATA:
            return Received(data=payload)
        return Received(error=payload[:_LARGEST_ERROR].decode(errors="replace"))

    def frame(self, data: bytes) -> bytes:
        """The message that carries bytes to the pod."""
        return bytes([DATA]) + data
