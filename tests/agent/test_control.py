"""Whoever may attach may write anything: only what the container's arguments vouch for counts, in bounded memory."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervised import CAPTURE, orders

from toe_async.agent.control import (
    LONGEST_QUEUE,
    Cancel,
    Command,
    Desk,
    Heartbeat,
    Lines,
    OrdersCame,
    Outbox,
    Refuse,
    TokenCame,
)
from toe_async.agent.protocol import LONGEST_LINE, digest, message, orders_message

TOLD = orders("tool", "-x")
OTHERS = orders("tool", "-y")


def desk() -> Desk:
    return Desk(CAPTURE, digest(TOLD))


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (orders_message(TOLD), OrdersCame(TOLD, again=False)),
        (message("token", token="ey.x.y"), TokenCame("ey.x.y")),
        (message("token", capture=CAPTURE, token="t"), TokenCame("t")),
        (message("heartbeat"), Heartbeat()),
        (message("heartbeat", capture=CAPTURE), Heartbeat()),
        (message("cancel"), Cancel(discard=False)),
        (message("cancel", discard=True), Cancel(discard=True)),
        (message("cancel", discard="yes"), Cancel(discard=False)),
    ],
)
def test_a_message_of_the_channel_is_understood(line: bytes, command: Command) -> None:
    assert desk().judge(line) == command


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (orders_message(OTHERS), "not those that the container's arguments name"),
        (orders_message(orders("tool", "-x", capture="other")), "for another capture"),
        (message("orders"), "no JSON object"),
        (message("orders", orders={"argv": ["x"]}), "incomplete"),
        (message("token", capture="other", token="t"), "another capture"),
        (message("token"), "the token is none"),
        (message("token", token=""), "the token is none"),
        (message("token", token="a\nb"), "the token is none"),
        (message("token", token="x" * 20000), "the token is none"),
        (message("cancel", capture="other"), "another capture"),
        (message("result"), "type is none of"),
        (b"{}", "type is none of"),
        (b"[]", "no JSON object"),
        (b"1" * 100_000, "no JSON of this channel"),
        (b'{"a":NaN}', "no JSON of this channel"),
        (b"[" * 100_000, "no JSON of this channel"),
        (b"\xff\xfe", "no JSON of this channel"),
        (b"", "no JSON of this channel"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(line: bytes, words: str) -> None:
    command = desk().judge(line)
    assert isinstance(command, Refuse)
    assert words in command.message


def test_the_same_orders_are_taken_once_and_others_never() -> None:
    one = desk()
    assert one.judge(orders_message(TOLD)) == OrdersCame(TOLD, again=False)
    assert isinstance(one.judge(orders_message(OTHERS)), Refuse)
    assert one.judge(orders_message(TOLD)) == OrdersCame(TOLD, again=True)


@given(st.binary() | st.text().map(str.encode))
def test_no_line_makes_it_raise(line: bytes) -> None:
    assert isinstance(desk().judge(line), Command)


@given(
    st.dictionaries(
        st.sampled_from(["type", "orders", "token", "capture", "discard"]),
        st.sampled_from(["orders", "token", "cancel", CAPTURE])
        | st.recursive(
            st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        ),
    )
)
def test_no_object_makes_it_raise_or_is_taken_for_orders(said: dict[str, object]) -> None:
    assert not isinstance(desk().judge(json.dumps(said).encode()), OrdersCame)


@given(st.lists(st.binary(max_size=50)), st.integers(1, 20))
def test_lines_are_cut_alike_however_they_arrive(lines: list[bytes], piece: int) -> None:
    whole = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in whole)
    cutter = Lines()
    found = [line for at in range(0, len(stream), piece) for line in cutter.feed(stream[at : at + piece])]
    assert found == [line.strip() for line in whole if line.strip()]


def test_a_line_without_end_is_refused_once_and_the_next_one_is_read() -> None:
    cutter = Lines()
    found = [line for _ in range(100) for line in cutter.feed(b"x" * 65536)]
    assert found == [None]
    assert list(cutter.feed(b"x\nnext\n" + b"y" * (LONGEST_LINE + 1) + b"\nlast\n")) == [b"next", None, b"last"]


def test_a_line_of_the_greatest_length_passes() -> None:
    assert list(Lines().feed(b"x" * LONGEST_LINE + b"\n")) == [b"x" * LONGEST_LINE]


def test_events_that_nobody_reads_are_bounded_and_the_result_stays() -> None:
    box = Outbox()
    box.put(b"result\n", keep=True)
    for number in range(10_000):
        box.put(b"state %d %s\n" % (number, b"x" * 100))
    assert box.pending <= LONGEST_QUEUE + len(b"result\n")
    read, write = os.pipe()
    os.set_blocking(write, False)
    sent = b""
    while box.pending:
        box.write(write)
        sent += os.read(read, 1 << 16)
    os.close(read)
    os.close(write)
    lines = sent.splitlines()
    assert lines[0] == b"result"
    assert lines[-1].startswith(b"state 9999 ")
    assert [int(line.split()[1]) for line in lines[1:]] == list(range(10_001 - len(lines), 10_000))


def test_an_event_half_written_is_finished_before_anything_is_dropped() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    box = Outbox()
    first = b"a" * 100_000 + b"\n"
    box.put(first, keep=True)
    box.write(write)
    for number in range(2000):
        box.put(b"state %d %s\n" % (number, b"x" * 100))
    sent = b""
    while box.pending:
        sent += os.read(read, 1 << 16)
        box.write(write)
    os.set_blocking(read, False)
    sent += os.read(read, 1 << 16)
    os.close(read)
    os.close(write)
    assert sent.startswith(first + b"state ")


def test_the_same_event_waits_only_once() -> None:
    box = Outbox()
    for _ in range(100):
        box.put(b"need-token\n")
        box.put(b"result\n", keep=True)  # whoever repeats the orders and does not read
    assert box.pending == len(b"need-token\nresult\n")


def test_a_long_result_that_nobody_reads_displaces_no_other_event() -> None:
    box = Outbox()
    box.put(b"r" * LONGEST_LINE, keep=True)
    box.put(b"state\n")
    assert box.pending == LONGEST_LINE + len(b"state\n")
