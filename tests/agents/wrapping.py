"""Programs that stand for the real tools: small scripts on PATH, and a wrapper that runs as it does in its image."""

import os
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Wrapper:
    """A module of toe_async.agent in a process group of its own, with fakes in front of PATH."""

    module: str
    folder: Path
    programs: Path

    def fake(self, name: str, body: str) -> None:
        """A Python program called `name`; `log(*words)` in it notes what happens in the file `calls`."""
        path = self.programs / name
        calls = self.programs / "calls"
        path.write_text(
            f"#!{sys.executable} -IS\n"
            "import os, signal, sys, time\n"
            "def log(*words):\n"
            f"    with open({str(calls)!r}, 'a') as file:\n"
            "        file.write(' '.join(map(str, words)) + '\\n')\n"
            f"{body}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def calls(self) -> list[str]:
        path = self.programs / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        code = f"import sys; from toe_async.agent.{self.module} import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object) -> tuple[int, str]:
        """To its own end; exit code and stderr."""
        process = self.start(*arguments)
        _, errors = process.communicate(timeout=20)
        return process.returncode, errors

    def stop(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
        """As the supervisor does: to the whole group."""
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=20)
        return process.returncode, errors

    def wait_for_call(self, process: subprocess.Popen[str], beginning: str) -> None:
        """Return when a fake has noted a line that begins so."""
        while not any(call.startswith(beginning) for call in self.calls):
            assert process.poll() is None, process.communicate()
