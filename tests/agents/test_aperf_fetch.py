"""aperf's binary comes from an archive with the right checksum or not at all."""

import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

FETCH = Path(__file__).parents[2] / "agents/aperf/fetch.py"


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("aperf_fetch", FETCH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def archive(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"aperf-v1/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def test_the_program_of_a_release_is_found(fetch: ModuleType) -> None:
    made = archive(LICENSE=b"words", aperf=b"\x7fELF")
    assert fetch.binary(made, hashlib.sha256(made).hexdigest().upper()) == b"\x7fELF"


@pytest.mark.parametrize("sha256", ["", "0" * 64])
def test_another_digest_is_refused(fetch: ModuleType, sha256: str) -> None:
    with pytest.raises(ValueError, match="the archive has SHA-256"):
        fetch.binary(archive(aperf=b"evil"), sha256)


def test_an_archive_without_the_program_is_refused(fetch: ModuleType) -> None:
    made = archive(README=b"words")
    with pytest.raises(ValueError, match="no file aperf"):
        fetch.binary(made, hashlib.sha256(made).hexdigest())


@pytest.mark.parametrize("url", ["", "http://example.test/aperf.tar.gz", "file:///etc/passwd"])
def test_only_https_is_asked(url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, FETCH, url, "0" * 64, tmp_path / "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "give APERF_URL" in done.stderr
