"""Flags: flag over environment over default; what is wrong ends in one sentence and exit code 2."""

import argparse
import os
import subprocess
import sys
from datetime import timedelta

import pytest

from toe_async.cli import flags
from toe_async.cli.main import COMMANDS, main


def parsed(argv: list[str], environment: dict[str, str]) -> argparse.Namespace:
    """A parser with one flag of every sort."""
    parser = argparse.ArgumentParser(prog="test")
    add = flags.Flags(parser, environment).add
    add("spool-bytes", flags.size, 1024, "bytes")
    add("upload-deadline", flags.duration, timedelta(hours=1), "time")
    add("metrics-address", flags.address, ("", 8080), "address")
    add("leader-elect", flags.truth, True, "truth")
    add("max-captures", flags.count, 8, "number")
    nobody: tuple[str, ...] = ()
    add("users", flags.names, nobody, "names")
    add("policy", flags.one_of("required", "optional"), "required", "choice")
    return parser.parse_args(argv)


def test_a_flag_beats_the_environment_which_beats_the_default() -> None:
    """The three sources in their order."""
    environment = {"TOE_SPOOL_BYTES": "2Ki", "TOE_USERS": "a, b,,c"}
    found = parsed(["--spool-bytes", "1Mi"], environment)
    assert (found.spool_bytes, found.users, found.max_captures) == (1 << 20, ("a", "b", "c"), 8)
    assert parsed([], environment).spool_bytes == 2048


@pytest.mark.parametrize(
    ("argv", "environment", "said"),
    [
        (["--spool-bytes", "lots"], {}, "no quantity"),
        (["--spool-bytes", "0"], {}, "above zero"),
        (["--upload-deadline", "1"], {}, "no duration"),
        (["--upload-deadline", "0s"], {}, "above zero"),
        (["--metrics-address", "8080"], {}, "host:port"),
        (["--metrics-address", ":99999"], {}, "host:port"),
        (["--leader-elect", "perhaps"], {}, "true or false"),
        (["--max-captures", "-1"], {}, "at least 1"),
        (["--policy", "none"], {}, "one of required, optional"),
        ([], {"TOE_SPOOL_BYTES": "lots"}, "environment variable TOE_SPOOL_BYTES"),
        (["--unknown"], {}, "unrecognized"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(
    argv: list[str], environment: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the flag or the variable and what was expected."""
    with pytest.raises(SystemExit) as ended:
        parsed(argv, environment)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help ends with 0 and names the environment variables."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: toe-async" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["collector"], "--root is required"),
        (["collector", "--root", "/tmp/x", "--kubeconfig", "/nowhere"], "toe-async collector: "),
        (["operator", "--kubeconfig", "/nowhere/at/all"], "toe-async operator: "),
        (["crds", "/nowhere/at/all"], "is no folder"),
    ],
)
def test_a_process_that_cannot_start_says_so_and_ends(argv: list[str], said: str) -> None:
    """No traceback: one sentence, and a code that a supervisor understands."""
    addresses = {"TOE_METRICS_ADDRESS": "127.0.0.1:0", "TOE_HEALTH_ADDRESS": "127.0.0.1:0"}
    done = subprocess.run(
        [sys.executable, "-m", "toe_async", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, **addresses},
        check=False,
    )
    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert "Traceback" not in done.stderr
