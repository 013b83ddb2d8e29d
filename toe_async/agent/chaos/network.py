"""The target cannot reach one host and port: an nft table that belongs to a process of ours and goes with it."""

from __future__ import annotations

import ipaddress
import os
import select
import shutil
import socket
import subprocess

from toe_async.agent.chaos.effect import ChaosError, Effect, tell

_ANSWER_SECONDS = 10.0


class Connectivity(Effect):
    """Packets to HOST:PORT (TCP and UDP) are dropped, those of connections that exist already too.

    The host is resolved once, with the target's own resolver: what it changes to later is reachable.
    """

    def __init__(self, host: str, port: int) -> None:
        if not 1 <= port <= 65535:
            raise ChaosError(f"{port} is no port")
        self._host, self._port = host, port
        self._nft: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        addresses = _resolve(self._host)
        program = shutil.which("nft")
        if program is None:
            raise ChaosError("the image has no nft program; use the image of agents/chaos")
        self._nft = subprocess.Popen(
            [program, "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        assert self._nft.stdin is not None
        self._nft.stdin.write(rules(f"toe_chaos_{os.getpid()}", addresses, self._port).encode() + b"list tables\n")
        self._confirm(f"toe_chaos_{os.getpid()}")
        tell("blocked", host=self._host, addresses=addresses, port=self._port)

    def tick(self, elapsed: float) -> bool:
        if self._nft is None or self._nft.poll() is not None:
            raise ChaosError("the nft process that held the rules has ended")
        return True

    def end(self) -> None:
        if self._nft is not None:
            self._nft.kill()
            self._nft.wait()
            for pipe in (self._nft.stdin, self._nft.stdout):
                if pipe is not None:
                    pipe.close()

    def _confirm(self, table: str) -> None:
        """Read what nft says until it lists our table; anything it complains of before is why it does not."""
        assert self._nft is not None
        assert self._nft.stdout is not None
        said = b""
        while b"table inet " + table.encode() not in said:
            if not select.select([self._nft.stdout], [], [], _ANSWER_SECONDS)[0]:
                break
            chunk = os.read(self._nft.stdout.fileno(), 4096)
            said += chunk
            if not chunk or b"rror" in said:
                break
        if b"table inet " + table.encode() not in said:
            words = " ".join(said.decode(errors="replace").split())[:300] or "no answer"
            raise ChaosError(f"nft does not take the rules ({words}); the tool needs the capability NET_ADMIN")


def rules(table: str, addresses: list[str], port: int) -> str:
    """nft commands for a table that belongs to the socket that makes it."""
    lines = [
        f"add table inet {table} {{ flags owner; }}",
        f"add chain inet {table} out {{ type filter hook output priority 0; policy accept; }}",
    ]
    for address in addresses:
        family = "ip6" if ipaddress.ip_address(address).version == 6 else "ip"
        lines += [
            f"add rule inet {table} out {family} daddr {address} {protocol} dport {port} drop"
            for protocol in ("tcp", "udp")
        ]
    return "\n".join(lines) + "\n"


def _resolve(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ChaosError(f"{host} cannot be resolved from the target: {error}") from error
    return sorted({str(entry[4][0]).partition("%")[0] for entry in found})
