"""The real kubectl as a callable."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

KUBECTL = shutil.which("kubectl")
NEEDED = pytest.mark.skipif(
    KUBECTL is None, reason="kubectl is not on PATH, so what it makes of the sandbox is not tested"
)


class Kubectl:
    """Runs kubectl as the user of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent)}

    async def __call__(self, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        assert KUBECTL is not None
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            *arguments,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            output, _ = await process.communicate(stdin.encode())
        assert (process.returncode != 0) is fails, output.decode()
        return output.decode()
