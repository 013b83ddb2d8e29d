#!/usr/bin/env python3
"""Builds the supervisor of tool images: one executable zip file that any python3 from 3.9 on runs.

    python3 agents/supervisor/build.py /opt/toe/supervisor

The same sources give the same bytes, whatever the machine, the time, the order of files or the zlib.
"""

import os
import sys
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = "import sys\n\nfrom toe_async.agent.main import main\n\nsys.exit(main(sys.argv[1:]))\n"
PARTS = ("toe_async/__init__.py", "toe_async/lib", "toe_async/agent")
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first instant that a zip file can name


def sources(root: Path) -> dict[str, bytes]:
    """Every Python file of the parts, by its name in the archive."""
    found = {}
    for part in PARTS:
        path = root / part
        for file in [path] if path.is_file() else path.rglob("*.py"):
            found[file.relative_to(root).as_posix()] = file.read_bytes()
    return found


def build(root: Path, target: Path) -> None:
    """Write the executable; an existing one is replaced in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with part.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in sorted({"__main__.py": MAIN.encode(), **sources(root)}.items()):
                entry = zipfile.ZipInfo(name, LONG_AGO)
                entry.create_system = 3  # Unix, on every machine
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, text)
    part.chmod(0o755)
    os.replace(part, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("build.py wants one argument, the file to write")
    build(Path(__file__).resolve().parents[2], Path(sys.argv[1]))
