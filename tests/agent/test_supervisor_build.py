"""The supervisor of tool images is one file, the same bytes from the same sources."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import toe_async

ROOT = Path(toe_async.__file__).parents[1]
BUILD = ROOT / "agents" / "supervisor" / "build.py"


def build(target: Path, root: Path = ROOT) -> bytes:
    script = root / BUILD.relative_to(ROOT)
    subprocess.run([sys.executable, "-I", "-S", str(script), str(target)], check=True, cwd="/")
    return target.read_bytes()


def test_it_runs_by_itself_with_nothing_but_a_python3(tmp_path: Path) -> None:
    target = tmp_path / "opt" / "toe" / "supervisor"
    build(target)
    assert os.access(target, os.X_OK)
    assert os.listdir(target.parent) == ["supervisor"]
    done = subprocess.run([target, "version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == f"{toe_async.__version__}\n"
    assert subprocess.run([target, "run"], capture_output=True, check=False).returncode == 2


def test_it_holds_the_agent_and_what_it_stands_on_and_nothing_else(tmp_path: Path) -> None:
    build(tmp_path / "supervisor")
    with zipfile.ZipFile(tmp_path / "supervisor") as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"__main__.py", "toe_async"}
    assert {name.split("/")[1] for name in names if "/" in name} == {"__init__.py", "lib", "agent"}
    assert "toe_async/agent/run.py" in names
    assert all(name.endswith(".py") for name in names)


def test_the_same_sources_give_the_same_bytes_whenever_and_wherever(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for part in ("agents/supervisor", "toe_async/lib", "toe_async/agent"):
        shutil.copytree(ROOT / part, copy / part, copy_function=shutil.copyfile)
    shutil.copyfile(ROOT / "toe_async/__init__.py", copy / "toe_async/__init__.py")
    for file in copy.rglob("*"):
        os.utime(file, (86_400 * 365 * 20, 86_400 * 365 * 20))
    first, second = build(tmp_path / "a"), build(tmp_path / "b", copy)
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()
