"""``chaos [options] EFFECT ...``: the words that users' manifests carry, and how they become an effect."""

from __future__ import annotations

import argparse
import sys

from toe_async.agent.chaos.effect import ChaosError, Effect, keep_up
from toe_async.agent.chaos.load import Cpu, Memory
from toe_async.agent.chaos.network import Connectivity
from toe_async.agent.chaos.process import Suspend, Terminate
from toe_async.agent.chaos.storage import Fill

USAGE = """effects:
  [process] suspend [STOPPED RUNNING]       hold the target still for 5 s, let it run for 5 s, and so on
  [process] terminate-graceful              SIGTERM to the target's process
  [process] terminate-force                 kill it
  cpu PERCENT                               use so much of one core
  memory pressure MIB [linear|spike|oscillating]
  network connectivity HOST PORT            drop what the target sends there
  storage PERCENT PATH                      fill the file system of PATH in the target"""


def effect_of(words: list[str], target: int, root: str, seconds: float) -> Effect:
    """Raises ChaosError for words that name no effect."""
    given = words[1:] if words[:1] == ["process"] else words
    name, rest = (given[0], given[1:]) if given else ("", [])
    if name == "suspend" and len(rest) in {0, 2}:
        stopped, running = [_number(word) for word in rest] or [5, 5]
        if stopped < 1 or running < 1:
            raise ChaosError("suspend takes whole seconds from 1 on")
        return Suspend(target, stopped, running)
    if name in {"terminate-graceful", "terminate-force"} and not rest:
        return Terminate(target, force=name == "terminate-force")
    if words[:1] == ["process"]:
        raise ChaosError(f"process {' '.join(rest)[:60]!r} is no effect\n{USAGE}")
    if name == "cpu" and len(rest) == 1:
        return Cpu(_number(rest[0]))
    if name == "memory" and rest[:1] == ["pressure"] and len(rest) in {2, 3}:
        shape = rest[2] if len(rest) == 3 else "spike"
        if shape in {"linear", "spike", "oscillating"}:
            return Memory(_number(rest[1]), shape, seconds)
    if name == "network" and rest[:1] == ["connectivity"] and len(rest) == 3:
        return Connectivity(rest[1], _number(rest[2]))
    if name == "storage" and len(rest) == 2:
        return Fill(root, rest[1], _number(rest[0]))
    raise ChaosError(f"{' '.join(words)[:60]!r} is no effect\n{USAGE}")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 the effect was there, 1 it could not be had, 2 the words are wrong."""
    parser = argparse.ArgumentParser(prog="chaos", epilog=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=int, required=True, help="the target's process")
    parser.add_argument("--root", default="/", help="the target's root folder")
    parser.add_argument("--seconds", type=float, required=True, help="how long; nothing outlives it")
    parser.add_argument("words", nargs="+", metavar="EFFECT")
    given = parser.parse_args(argv)
    try:
        effect = effect_of(given.words, given.target, given.root, given.seconds)
    except ChaosError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    return keep_up(effect, given.seconds)


def _number(word: str) -> int:
    # isdecimal and int, nothing that evaluates: a shell's arithmetic would run what an array subscript holds
    if not (word.isascii() and word.isdecimal() and len(word) < 10):
        raise ChaosError(f"{word[:40]!r} is no whole number")
    return int(word)
