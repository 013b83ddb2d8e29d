"""A real S3 server for tests: SeaweedFS on loopback, with one user and one bucket."""

import contextlib
import json
import random
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ACCESS_KEY, SECRET_KEY, BUCKET = "AKIATEST", "secretkey123", "profiles"


@contextlib.contextmanager
def running_seaweed(root: Path) -> Iterator[str]:
    """Run the server in an empty folder; yields its endpoint."""
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (root / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (root / "data").mkdir()
    ports = dict(zip(("master", "volume", "filer", "s3", "admin"), _free_ports(5), strict=True))
    log = (root / "log").open("wb")
    server = subprocess.Popen(
        [
            str(Path(sysconfig.get_path("scripts")) / "weed"), "mini",
            f"-dir={root / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-bucket={BUCKET}", f"-s3.config={root / 's3.json'}",
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *(f"-{name}.port.grpc={port + 10000}" for name, port in ports.items()),
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=root,
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    try:
        for url in (f"{endpoint}/healthz", f"http://127.0.0.1:{ports['filer']}/buckets/{BUCKET}/"):
            _wait_until_good(server, url, root / "log")
        yield endpoint
    finally:
        server.kill()
        server.wait()
        log.close()


def _wait_until_good(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, f"weed ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"weed is not ready: {log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    """Ports below the ephemeral range whose gRPC twin 10000 above is free too."""
    found: list[int] = []
    for port in random.sample(range(12000, 22000), 500):
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
