"""The table of images: what can be pulled, and what stands for a program."""

import pytest

from toe_async.sandbox.images import Image, Program, PullError, fill, find

SUPERVISOR = Program(("python3", "-m", "there"))
TABLE = (
    Image("registry/broken:*", pullable=False),
    Image("registry/*", {"/opt/supervisor": SUPERVISOR}),
)


@pytest.mark.parametrize(
    ("image", "program", "expected"),
    [
        ("registry/tool:1", "/opt/supervisor", SUPERVISOR),
        ("registry/tool@sha256:abc", "/opt/supervisor", SUPERVISOR),
        ("registry/tool:1", "sh", None),
        ("elsewhere:1", "sh", None),
    ],
)
def test_a_program_is_what_the_first_fitting_row_says(image: str, program: str, expected: Program | None) -> None:
    assert find(TABLE, image, program) is expected


@pytest.mark.parametrize(
    ("image", "program"),
    [("registry/broken:1", "sh"), ("registry/broken:1", "/opt/supervisor"), ("elsewhere:1", "/opt/supervisor")],
)
def test_an_image_that_is_not_there_is_told_as_the_runtime_does(image: str, program: str) -> None:
    with pytest.raises(PullError, match=f'failed to pull and unpack image "{image}".*: not found'):
        find(TABLE, image, program)


def test_placeholders_are_filled_wherever_they_stand() -> None:
    values = {"target_pid": "7", "tmp": "/t"}
    assert fill(("--pid={target_pid}", "{tmp}/{tmp}", "{other}"), values) == ("--pid=7", "/t//t", "{other}")
