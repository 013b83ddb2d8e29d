#!/usr/bin/env python3
"""Fetch aperf's release for its image and refuse anything that is not what the checksum says.

python3 fetch.py URL SHA256 TARGET
"""

import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path

LARGEST = 512 << 20


def binary(archive: bytes, sha256: str) -> bytes:
    """The program `aperf` of a release's tar archive; raises ValueError for another digest or an archive without it."""
    found = hashlib.sha256(archive).hexdigest()
    if found != sha256.lower():
        raise ValueError(f"the archive has SHA-256 {found}, not {sha256 or '(give APERF_SHA256)'}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            if member.isfile() and Path(member.name).name == "aperf":
                content = opened.extractfile(member)
                assert content is not None
                return content.read()
    raise ValueError("the archive holds no file aperf")


def main(arguments: list[str]) -> int:
    """0 when TARGET is the program."""
    url, sha256, target = arguments
    if not url.startswith("https://"):
        sys.stderr.write("give APERF_URL, an https:// address of a release of aperf\n")
        return 2
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310  https, as checked above
        archive = answer.read(LARGEST)
    try:
        program = binary(archive, sha256)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_bytes(program)
    Path(target).chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
