"""Port-forward frames mean the same however they are cut."""

import itertools
import random

import pytest

from toe_async.kube.channels import DATA, ERROR, ChannelError, Channels

PORT = 6060
OPENING = PORT.to_bytes(2, "little")


def collect(messages: list[bytes]) -> tuple[bytes, str]:
    channels = Channels(PORT)
    received = [channels.receive(message) for message in messages]
    return b"".join(part.data for part in received), "".join(part.error for part in received)


def pieces(stream: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    edges = [0, *cuts, len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def test_data_is_the_same_at_every_cut() -> None:
    """Cut anywhere, also inside of the port's two bytes, also into empty messages."""
    stream = OPENING + b"HTTP/1.1"
    for cuts in itertools.combinations_with_replacement(range(len(stream) + 1), 2):
        assert collect([bytes([DATA]) + piece for piece in pieces(stream, cuts)]) == (b"HTTP/1.1", ""), cuts


def test_the_channels_do_not_disturb_each_other() -> None:
    """A thousand random interleavings of cut streams, seeded."""
    rng = random.Random(7)
    data, error = rng.randbytes(300), "connection refused"
    for _ in range(1000):
        queues = {
            channel: pieces(stream, tuple(sorted(rng.choices(range(len(stream) + 1), k=rng.randint(0, 6)))))
            for channel, stream in ((DATA, OPENING + data), (ERROR, OPENING + error.encode()))
        }
        messages = []
        while live := [channel for channel, queue in queues.items() if queue]:
            channel = rng.choice(live)
            messages.append(bytes([channel]) + queues[channel].pop(0))
        assert collect(messages) == (data, error)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x02",
        b"\x02" + OPENING,
        b"\xff" + OPENING,
        b"\x00\x00\x00",
        b"\x00" + PORT.to_bytes(2, "big"),
        b"\x01\x01",
    ],
)
def test_a_message_that_breaks_the_protocol_is_refused(message: bytes) -> None:
    """No channel, a channel of another port, another port's number, big endian, a wrong first half."""
    with pytest.raises(ChannelError, match=r"expected"):
        Channels(PORT).receive(message)


def test_random_messages_are_taken_or_refused_but_nothing_else() -> None:
    """Ten thousand random messages, seeded: ChannelError is the only way to fail."""
    rng = random.Random(11)
    for _ in range(2000):
        channels = Channels(rng.randint(1, 65535))
        for _ in range(5):
            message = rng.choice([b"", b"\0", b"\1", b"\2"]) + rng.randbytes(rng.randint(0, 4))
            try:
                channels.receive(message)
            except ChannelError:
                break


def test_what_the_runtime_says_is_cut_and_always_text() -> None:
    """An error is for people: bounded, and no bytes that are no text."""
    channels = Channels(PORT)
    assert channels.receive(bytes([ERROR]) + OPENING).error == ""
    assert channels.receive(bytes([ERROR]) + b"\xff oops").error == "\ufffd oops"
    assert len(channels.receive(bytes([ERROR]) + b"x" * 100_000).error) == 4096


def test_bytes_to_the_pod_go_on_the_data_channel() -> None:
    """One channel byte in front; no port of ours."""
    assert Channels(PORT).frame(b"GET") == b"\x00GET"
