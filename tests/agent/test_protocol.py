"""Orders have one spelling, and nothing else is taken for them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from supervised import orders

from toe_async.agent.protocol import Orders, decode_orders, digest, encode_orders, message, orders_message


def body(**changed: Any) -> dict[str, Any]:
    return {**json.loads(encode_orders(orders("tool", "{output}"))), **changed}


def test_orders_come_back_as_they_were_sent() -> None:
    told = orders("tool", "é", "\udcff", warmup=1.5, outputs=("*.x",), nice=3)
    assert decode_orders(json.loads(orders_message(told))["orders"]) == told


def test_a_whole_number_of_seconds_has_the_same_digest_however_it_is_written() -> None:
    assert digest(orders("tool", duration=30)) == digest(orders("tool", duration=30.0))
    assert digest(decode_orders(body(duration=10))) == digest(orders("tool", "{output}"))


def test_every_field_is_part_of_the_digest() -> None:
    told = orders("tool")
    seen = {digest(told)}
    for name, value in ((one, getattr(told, one)) for one in Orders.__dataclass_fields__):
        other: Any = (
            value + 1 if isinstance(value, int | float) else (*value, "x") if value != str(value) else value + "x"
        )
        seen.add(digest(replace(told, **{name: other})))
    assert len(seen) == len(Orders.__dataclass_fields__) + 1


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        body(unknown=1),
        body(argv="tool"),
        body(argv=[1]),
        body(argv=[]),
        body(duration="10"),
        body(duration=0),
        body(duration=-1),
        body(duration=True),
        body(max_bytes=1.5),
        body(max_bytes=1 << 70),
        body(duration=float("inf")),
        body(duration=float("nan")),
        body(grace=-0.5),
        body(nice=-5),
        {key: value for key, value in body().items() if key != "mode"},
    ],
)
def test_what_are_no_orders_is_refused_with_a_sentence(wrong: object) -> None:
    with pytest.raises(ValueError, match="orders"):
        decode_orders(wrong)


def test_a_message_is_one_line_whatever_it_holds() -> None:
    line = message("token", token="a\nb\u2028")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"type": "token", "token": "a\nb\u2028"}
