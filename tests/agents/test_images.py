"""How the tools' images are made: one shared stage, nothing without a checksum, nobody's user but their own."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "agents"
FILES = sorted(AGENTS.glob("*/Containerfile"))
TOOLS = [file for file in FILES if file.parent.name != "base"]
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)


def test_every_tool_has_its_files() -> None:
    for file in TOOLS:
        for name in ("powertoolconfig.yaml", "example.yaml"):
            assert (file.parent / name).exists(), f"{file.parent.name}/{name}"


@each
def test_the_supervisor_is_built_in_the_same_stage_everywhere(file: Path) -> None:
    """So that it is built once for all of them."""
    stage = re.search(r"FROM \$\{BASE_IMAGE\} AS supervisor\n.*?\n(?=\n)", file.read_text(), re.DOTALL)
    shared = re.search(
        r"FROM \$\{BASE_IMAGE\} AS supervisor\n.*?\n(?=\n)", (AGENTS / "base/Containerfile").read_text(), re.DOTALL
    )
    assert stage
    assert shared
    assert stage[0] == shared[0]


@each
def test_an_image_is_the_base_with_a_tool_and_starts_the_supervisor(file: Path) -> None:
    text = file.read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE_IMAGE}"}
    assert text.endswith('USER 65532:65532\nENTRYPOINT ["/opt/toe/supervisor"]\n')
    assert "COPY --from=supervisor /opt/toe/supervisor /opt/toe/supervisor\n" in text


@each
def test_nothing_is_fetched_without_a_signature_or_a_checksum(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"\b(curl|wget|git clone)\b|^ADD ", text, re.MULTILINE)
    assert "--allow-unauthenticated" not in text
    for command in re.findall(r"pip install[^\n]*", text):
        assert "--require-hashes" in command
    if "mvn" in text:
        assert "sha256sum --check" in text


def test_the_kustomization_has_every_tool_but_those_that_disturb() -> None:
    listed = yaml.safe_load((ROOT / "deploy/tools/kustomization.yaml").read_text())["resources"]
    assert listed == [f"../../agents/{file.parent.name}" for file in TOOLS if file.parent.name != "chaos"]
    for folder in listed:
        inner = yaml.safe_load((ROOT / "deploy/tools" / folder / "kustomization.yaml").read_text())
        assert inner["resources"] == ["powertoolconfig.yaml"]


@pytest.mark.parametrize(
    "source",
    [
        *sorted((ROOT / "toe_async/agent/tools").glob("*.py")),
        *sorted((ROOT / "toe_async/agent/sysreport").glob("*.py")),
        *sorted(AGENTS.glob("*/tool.py")),
    ],
    ids=lambda source: f"{source.parent.name}/{source.stem}",
)
def test_what_runs_in_images_is_python_3_9(source: Path) -> None:
    """By grammar; and no name of the typing module that came later is imported at run time."""
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
    later = {"Self", "Never", "assert_never", "StrEnum", "UTC", "TypeAlias", "ParamSpec", "override"}
    imported = {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert not imported & later
