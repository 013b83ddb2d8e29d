"""Tool images may carry an old python3: all that the supervisor loads is 3.9 and nothing but the standard library."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import toe_async

ROOT = Path(toe_async.__file__).parents[1]
AGENT = ROOT / "toe_async" / "agent"


def imported(name: str, seen: dict[str, ast.Module]) -> set[str]:
    """The modules outside toe_async that this one needs, with all that it imports of toe_async."""
    path = ROOT.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    seen[name] = ast.parse(file.read_text(), feature_version=(3, 9))
    outside: set[str] = set()
    for node in ast.walk(seen[name]):
        if isinstance(node, ast.Import):
            wanted = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            wanted = [module]
            wanted += [f"{module}.{one.name}" for one in node.names if (ROOT / module.replace(".", "/")).is_dir()]
        else:
            continue
        for one in wanted:
            ours = one.startswith("toe_async") and ROOT.joinpath(*one.split("."))
            if not ours:
                outside.add(one.partition(".")[0])
            elif (ours.is_dir() or ours.with_suffix(".py").exists()) and one not in seen:
                outside |= imported(one, seen)
    return outside


def test_everything_the_agent_loads_parses_as_3_9_and_is_in_the_standard_library() -> None:
    seen: dict[str, ast.Module] = {}
    outside: set[str] = set()
    for file in AGENT.rglob("*.py"):
        outside |= imported(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), seen)
    assert outside <= sys.stdlib_module_names
    assert len(seen) > 20


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from at_run_time(node)


def test_the_agent_uses_nothing_that_came_after_3_9() -> None:
    late = {"kw_only", "slots"}  # of dataclass: no syntax, yet an error there
    for file in AGENT.rglob("*.py"):
        for node in at_run_time(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {one.arg for one in node.keywords}
                assert node.func.id != "dataclass" or not names & late, file
                assert node.func.id != "zip" or "strict" not in names, file
            if isinstance(node, ast.ImportFrom) and node.module in {"enum", "datetime", "typing"}:
                assert not {one.name for one in node.names} & {"StrEnum", "UTC", "Self", "assert_never"}, file


def test_every_module_with_annotations_of_a_later_kind_leaves_them_unevaluated() -> None:
    for file in AGENT.rglob("*.py"):
        tree = ast.parse(file.read_text())
        unions = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)]
        with_none = [one for one in unions if isinstance(one.right, ast.Constant) and one.right.value is None]
        lazy = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        assert lazy or not with_none, file


def old_pythons() -> list[str]:
    """Those of 3.9 and 3.10 that work, on PATH or among pyenv's."""
    versions = [path for old in ("3.9", "3.10") for path in Path.home().glob(f".pyenv/versions/{old}.*/bin/python3")]
    named = [found for name in ("python3.9", "python3.10") if (found := shutil.which(name))]
    all_found = [*named, *map(str, versions)]
    return [
        one for one in all_found if not subprocess.run([one, "-c", ""], capture_output=True, check=False).returncode
    ]


def test_old_pythons_run_the_supervisor() -> None:
    if not (pythons := old_pythons()):
        pytest.skip("there is no old python3 here")
    modules = ["run", "channel", "storing", "outputs", "fetching", "upload", "serving", "pvc"]
    code = f"import importlib\nfor one in {modules!r}: importlib.import_module('toe_async.agent.' + one)"
    for python in pythons:
        for arguments in (["-m", "toe_async.agent", "version"], ["-c", code]):
            done = subprocess.run(
                [python, "-W", "error", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
            )
            assert (done.returncode, done.stderr) == (0, "")
