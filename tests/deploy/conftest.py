"""Manifests rendered as a user renders them, once each."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@cache
def _kustomize(folder: Path) -> list[Manifest]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl kustomize {folder}: {done.stderr}"
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """``render("base")`` is deploy/base; ``render("base", components=["network-policy"])`` adds components of ours."""
    if shutil.which("kubectl") is None:
        pytest.skip("rendering needs kubectl (it carries kustomize) in the PATH")

    def folder(name: str, *, components: tuple[str, ...] = (), **fields: Any) -> list[Manifest]:
        if not components and not fields:
            return _kustomize(DEPLOY / name)
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(DEPLOY / name, tmp_path)],
            "components": [os.path.relpath(DEPLOY / "components" / component, tmp_path) for component in components],
            **fields,
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return _kustomize(tmp_path)

    return folder
