"""Leaves by HTTP on loopback: for whoever knows the key, and no way to keep others from them."""

import contextlib
import http.client
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.uploading import orders, state_folder
from toe_async.agent import keeping, serving
from toe_async.agent.outputs import Outputs
from toe_async.agent.serving import MOST_CONNECTIONS

KEY = "k3y" * 10
BODY = bytes(range(256)) * 40_000


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outputs]:
    monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.02)
    folder = state_folder(tmp_path, {"out/dump.pcap": BODY, "log": b"warned"})
    made = Outputs()
    made.start(orders(mode="s3", fetch_key=KEY), str(folder))
    made.finish(time.monotonic() + 5, lambda: None)
    yield made
    made.cancel()
    made.keep(time.monotonic())


def get(port: int, target: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        assert answer.getheader("Content-Length") is not None
        return answer.status, answer.read()
    finally:
        connection.close()


def test_whoever_knows_the_key_gets_the_leaves(outputs: Outputs) -> None:
    assert get(outputs.port, f"/{KEY}/dump.pcap") == (200, BODY)
    assert get(outputs.port, f"/{KEY}/tcpdump.log") == (200, b"warned")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/dump.pcap"),
        ("GET", "/wrong/dump.pcap"),
        ("GET", f"/{KEY[:-1]}/dump.pcap"),
        ("GET", f"/{KEY}x/dump.pcap"),
        ("GET", f"/{KEY}/"),
        ("GET", f"/{KEY}/../kept.json"),
        ("GET", f"/{KEY}/%2e%2e/kept.json"),
        ("GET", f"/{KEY}/other"),
        ("POST", f"/{KEY}/dump.pcap"),
        ("GET", "/wrong/.fetched"),
        ("DELETE", f"/{KEY}/.fetched"),
        ("GET", "//"),
        ("GET", "/" + "a" * 9000),
    ],
)
def test_everything_else_is_not_found(outputs: Outputs, method: str, target: str) -> None:
    thread = threading.Thread(target=lambda: outputs.keep(time.monotonic() + 60), daemon=True)
    thread.start()
    try:
        assert get(outputs.port, target, method) == (404, b"")
    except ConnectionResetError:
        assert len(target) > 8192  # it was not read to its end
    thread.join(0.1)
    assert thread.is_alive()
    assert get(outputs.port, f"/{KEY}/tcpdump.log") == (200, b"warned")


def test_the_reader_ends_it(outputs: Outputs, tmp_path: Path) -> None:
    port = outputs.port
    thread = threading.Thread(target=lambda: outputs.keep(time.monotonic() + 60), daemon=True)
    thread.start()
    assert get(port, f"/{KEY}/.fetched") == (200, b"")
    thread.join(5)
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        get(port, f"/{KEY}/dump.pcap")
    assert list((tmp_path / "toe-run" / "leaves").iterdir()) == []


def test_it_listens_on_loopback_only(outputs: Outputs) -> None:
    with open("/proc/self/net/tcp") as table:
        mine = [
            line.split()[1] for line in table if line.split()[1].endswith(f":{outputs.port:04X}") and " 0A " in line
        ]
    assert mine == [f"0100007F:{outputs.port:04X}"]


def test_readers_who_take_nothing_are_let_go_and_keep_nobody_away_for_good(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SILENCE_SECONDS", 0.3)
    slow = []
    for _ in range(MOST_CONNECTIONS):
        one = socket.create_connection(("127.0.0.1", outputs.port))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(f"GET /{KEY}/dump.pcap HTTP/1.1\r\n\r\n".encode())
        assert one.recv(1)
        slow.append(one)
    with socket.create_connection(("127.0.0.1", outputs.port)) as refused:
        assert refused.recv(1) == b""
    began = time.monotonic()
    while True:
        try:
            answer = get(outputs.port, f"/{KEY}/tcpdump.log")
            break
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() - began < 5
            threading.Event().wait(0.05)
    assert answer == (200, b"warned")
    for one in slow:
        one.close()


def test_a_head_that_does_not_come_is_not_waited_for(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", outputs.port)) as silent:
        silent.sendall(b"GET /")
        silent.settimeout(5)
        assert silent.recv(1) == b""


def test_a_head_that_trickles_keeps_nobody_away_for_longer(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", outputs.port)) as slow:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not select.select([slow], [], [], 0.05)[0]:
                assert time.monotonic() - began < 2
                slow.sendall(b"x")


def test_nothing_is_served_before_the_tool_has_ended(tmp_path: Path) -> None:
    outputs = Outputs()
    outputs.start(orders(mode="s3", fetch_key=KEY), str(state_folder(tmp_path, {})))
    assert outputs.port == 0
    assert os.listdir(tmp_path / "toe-run" / "leaves") == []
