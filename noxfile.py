"""Every command of the project: demo, tests, types, lint, crds, e2e, bench, nightly.

On a machine that has nothing but Python: ``python3 noxfile.py demo`` makes a virtual environment of its own in
``.venv`` and runs the session there. Where nox is installed, ``nox -s demo`` runs the same commands.
"""

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"

PYTEST = ["python", "-m", "pytest", "-q"]

# session -> (extra to install, the commands; arguments after `--` go to the last one)
SESSIONS: dict[str, tuple[str, list[list[str]]]] = {
    "demo": ("sandbox", [["python", "-m", "toe_async", "demo"]]),
    # In two processes, a file to each: two cores are what every machine has.
    "tests": ("dev", [[*PYTEST, "-n", "2", "--dist", "loadfile", "--durations=5"]]),
    "types": ("dev", [["mypy"]]),
    "lint": ("dev", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["lint-imports"]]),
    "crds": ("dev", [["python", "-m", "toe_async", "crds", "crds"]]),
    "e2e": ("dev", [[*PYTEST, "-m", "e2e and not slow", "--timeout=600", "tests/apis", "tests/e2e"]]),
    "bench": ("dev", [["python", "-m", "benchmarks"]]),
    "nightly": (
        "dev",
        [
            [*PYTEST, "-m", "nightly", "--timeout=1800", "tests"],
            [*PYTEST, "-m", "e2e", "--timeout=1800", "tests/e2e"],
        ],
    ),
}

if __name__ != "__main__":  # read by nox itself
    NOX: Any = importlib.import_module("nox")

    def _register(name: str, extra: str, commands: list[list[str]]) -> None:
        def session(session: Any) -> None:
            session.install("-e", f".[{extra}]")
            for command in commands[:-1]:
                session.run(*command)
            session.run(*commands[-1], *session.posargs)

        session.__doc__ = " && ".join(" ".join(command) for command in commands)
        NOX.session(session, name=name, default=name == "tests")

    for _name, (_extra, _commands) in SESSIONS.items():
        _register(_name, _extra, _commands)


def _prepare(extra: str) -> None:
    """Make the virtual environment, or bring it up to date when pyproject.toml changed."""
    if sys.version_info < (3, 11):  # noqa: UP036  this file is what an older Python meets first
        sys.exit(f"toe-async needs Python 3.11 or later; this is {sys.version.split()[0]} ({sys.executable})")
    wanted = hashlib.sha256((HERE / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    stamp = VENV / f"toe-{extra}.stamp"
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    try:
        import ensurepip  # noqa: F401  Debian leaves it out of python3
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"This Python cannot make virtual environments: install the package python{version}-venv "
            f"(apt-get install python{version}-venv), then run the same command again."
        )
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    print(f"Installing toe-async[{extra}] into .venv ...", flush=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", f".[{extra}]"]
    if subprocess.run(pip, cwd=HERE, check=False).returncode:
        sys.exit("pip could not install the packages named above; check the network and the index, then run it again.")
    stamp.write_text(wanted)


def main(argv: list[str]) -> int:
    """Run one session in our own virtual environment; returns its exit code."""
    if not argv or argv[0] not in SESSIONS:
        print(f"usage: python3 noxfile.py {{{','.join(SESSIONS)}}} [arguments]", file=sys.stderr)
        return 2
    extra, commands = SESSIONS[argv[0]]
    _prepare(extra)
    given = [argument for argument in argv[1:] if argument != "--"]
    environment = {**os.environ, "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    for number, command in enumerate(commands, 1):
        last = given if number == len(commands) else []
        line = [str(VENV / "bin" / command[0]), *command[1:], *last]
        if number == len(commands):
            # The last command takes over this process, so that Ctrl-C and the exit code are its own.
            os.chdir(HERE)
            os.execve(line[0], line, environment)
        if code := subprocess.run(line, cwd=HERE, env=environment, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
