"""``toe-async crds FOLDER``: the types, written out as CustomResourceDefinitions."""

import argparse
import sys
from pathlib import Path

from toe_async.apis.crd import render_all


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.add_argument("folder", type=Path, help="where to write them, one file a definition")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    folder: Path = given.folder
    if not folder.is_dir():
        print(f"toe-async crds: {folder} is no folder; make it first", file=sys.stderr)
        return 1
    for name, content in render_all().items():
        (folder / name).write_text(content)
        print(folder / name)
    return 0
