"""The control channel between operator and supervisor: one JSON object a line, orders in, events out.

In (the container's stdin, by attach): `orders` once, `token`, `heartbeat` and `cancel` as often as needed. A second
`orders` with the same digest only makes the supervisor say its state again; any other is refused. Out (stdout): events.
Whoever attaches may write here, so nothing that comes in is believed but what the container's own arguments vouch for:
`--orders` is the SHA-256 of the orders. A token proves itself to the collector. The end of stdin means nothing.

This package runs in images whose python3 may be as old as 3.9.

Messages, operator -> supervisor (`type`, further fields; a `capture` that is another's gets the message refused):
  orders {orders: {...Orders}}         made by `orders_message`
  token {token, capture?}              made by `message("token", ...)`, like the rest
  heartbeat {capture?}                 answered by `state`
  cancel {capture?, discard?}          ends the tool; what it has collected is still stored or kept, unless `discard` is
                                       true. While a result is kept it ends the keeping

Events, supervisor -> operator:
  ready {capture}                      started; waits for orders
  accepted {digest}                    orders taken (again for the same digest)
  refused {message}                    a message that was not understood, is another capture's or too long
  state {phase, seconds, bytes, target}  answer to repeated orders, to each heartbeat, and when the phase changes:
                                       waiting, warmup, running, stopping, storing, keeping, done. `bytes` is what lies
                                       in the output folder; `target` says which process was chosen and why
  need-token {}                        an upload waits for a (fresh) token
  result {...Result}                   what the termination message will say, and the leaves that it has no room for; in
                                       modes ephemeral and s3 it comes when the output is ready, while the supervisor
                                       stays up to be fetched from, and again after repeated orders
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

SUPERVISOR = "/opt/toe/supervisor"
"""Where every tool image keeps the supervisor, an executable zip file of Python."""
LONGEST_LINE = 256 << 10
LONGEST_RESULT = 4096
"""Bytes of a termination message that a kubelet keeps."""
COMPLETED, FAILED, USAGE, NO_ORDERS, WAS_CANCELLED = range(5)
"""Exit codes of `supervisor run`."""


@dataclass(frozen=True)
class Orders:
    """All that the supervisor is told once. Durations in seconds, sizes in bytes, 0 is no limit unless said otherwise.

    `argv` may hold `{target_pid}`, `{target_root}`, `{output}` (the folder for output files) and `{duration}`,
    which the supervisor fills in; `{{` and `}}` are braces. The tool's stdout becomes the leaf `{tool}.out` unless it
    is empty. A tool that is told `{duration}` is expected to end by itself and gets `grace` more before it is ended.
    """

    capture: str
    tool: str
    argv: tuple[str, ...]
    duration: float  # above 0
    mode: str  # collector, pvc, ephemeral, s3
    max_bytes: int
    max_output_bytes: int  # all leaves together, as they lie on the disk before compression
    upload_seconds: float  # how long after the tool's end an upload may take
    warmup: float = 0.0
    outputs: tuple[str, ...] = ()  # globs below the output folder
    compress: str = "gzip"
    rolling: float = 0.0
    keep_seconds: float = 900.0  # how long an ephemeral result, or one for S3, is kept for whoever fetches it
    grace: float = 10.0  # between SIGTERM and SIGKILL
    endpoint: str = ""
    ca: str = ""  # PEM
    pvc_path: str = ""  # absolute, below the mount
    fetch_key: str = ""  # s3: the first path segment under which the operator fetches by port-forward
    cpu_percent: float = 0.0  # cap, per cent of one core
    overhead_percent: float = 0.0  # cap, per cent of the target's own CPU
    throttle: str = "signal"  # or abort
    memory_bytes: int = 0
    nice: int = 0
    heartbeat_seconds: float = 0.0  # the tool is ended after so long without a heartbeat; 0 = never
    target_pod_uid: str = ""  # for agent pods: whose processes
    target_container_id: str = ""  # wherever other processes than the target's can be seen
    target_container: str = ""


def encode_orders(orders: Orders) -> bytes:
    """The one spelling of orders; its digest is what the container's arguments name. A whole float is a float in it."""
    return json.dumps(_body(orders), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest(orders: Orders) -> str:
    """SHA-256 in hex of the one spelling."""
    return hashlib.sha256(encode_orders(orders)).hexdigest()


def orders_message(orders: Orders) -> bytes:
    """The line that hands orders over."""
    return message("orders", orders=_body(orders))


def _body(orders: Orders) -> dict[str, Any]:
    kinds: dict[str, object] = {name: one.type for name, one in Orders.__dataclass_fields__.items()}
    body: dict[str, Any] = asdict(orders)
    return {name: float(value) if kinds[name] == "float" else value for name, value in body.items()}


def decode_orders(body: object) -> Orders:
    """Raises ValueError for an unknown or missing field, a wrong type, or a number that no limit can be."""
    if not isinstance(body, dict):
        raise ValueError("orders are no JSON object")
    fields = Orders.__dataclass_fields__
    if unknown := body.keys() - fields.keys():
        raise ValueError(f"orders hold the unknown field {sorted(unknown)[0][:60]!r}")
    try:
        orders = Orders(**{name: _typed(name, value, str(fields[name].type)) for name, value in body.items()})
    except TypeError as error:
        raise ValueError("orders are incomplete") from error
    if not orders.argv or orders.duration <= 0:
        raise ValueError("orders name no command or no duration")
    return orders


def _typed(name: str, value: Any, kind: str) -> Any:
    if kind.startswith("tuple"):
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
            raise ValueError(f"orders: {name} is no list of strings")
        return tuple(value)
    expected = {"str": (str,), "int": (int,), "float": (int, float)}[kind]
    if isinstance(value, bool) or not isinstance(value, expected):
        raise ValueError(f"orders: {name} has a wrong type")
    if isinstance(value, str):
        return value
    number: Any = value
    if not (math.isfinite(number) and 0 <= number < 1 << 62):
        raise ValueError(f"orders: {name} is out of range")
    return float(number) if kind == "float" else number


def message(kind: str, **fields: Any) -> bytes:
    """One line of the channel: `{"type": kind, ...}` and a newline."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


@dataclass(frozen=True)
class Leaf:
    """One file of output. `state` is stored, kept (ephemeral or waiting for the operator's fetch) or lost."""

    name: str
    size: int
    sha256: str
    state: str
    uri: str = ""


@dataclass(frozen=True)
class Result:
    """The termination message. `outcome` is completed, failed or cancelled; `reason` one word of apis.reasons."""

    capture: str
    outcome: str
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    seconds: float = 0.0  # that the tool ran
    cpu_seconds: float = 0.0
    overhead_percent: float | None = None
    max_rss_bytes: int = 0
    throttled_seconds: float = 0.0
    size: int = 0
    leaves: tuple[Leaf, ...] = ()
    more_leaves: int = 0  # that did not fit
    port: int = 0  # mode s3: where on loopback the leaves are served, below the orders' fetch_key
