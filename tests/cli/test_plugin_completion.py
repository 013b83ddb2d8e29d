"""Completion: what the last word stands for, kubectl's protocol, and the scripts for shells."""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.cli.aggregated import Aggregated, Plugin, artifact
from toe_async.cli.plugin.completion import read
from toe_async.cli.plugin.shells import Shell, script


@pytest.mark.parametrize(
    ("words", "verb", "place", "word"),
    [
        ([""], "", "verb", ""), (["li"], "", "verb", "li"), (["-n", ""], "", "namespace", ""),
        (["-n", "a", "ge"], "", "verb", "ge"), (["-n", "a", "-A", "ge"], "", "verb", "ge"),
        (["get", "a"], "get", "an artifact", "a"), (["get", "--run", "n"], "get", "run", "n"),
        (["get", "--run=n"], "get", "run", "n"),
        (["rm", "--force", "x"], "delete", "an artifact", "x"), (["rm", "-y", "x"], "delete", "an artifact", "x"),
        (["run", ""], "run", "a tool", ""), (["can-i", "t"], "preflight", "a tool", "t"),
        (["run", "tcpdump", ""], "run", "", ""), (["run", "--name", "x"], "run", "name", "x"),
        (["run", "tcpdump", "--", "-i"], "run", "", "-i"), (["run", "tcpdump", "--", ""], "run", "", ""),
        (["status", "--wait", "t"], "status", "a run", "t"), (["cancel", ""], "cancel", "a run", ""),
        (["cancel", "x", ""], "cancel", "", ""),
        (["tools", "--operator-namespace", "t"], "tools", "operator_namespace", "t"),
        (["list", "--ku"], "list", "flag", "--ku"), (["list", "x"], "list", "", "x"),
        (["get", "-O", "f"], "get", "output_file", "f"),
        (["completion", ""], "completion", "a shell", ""), (["open", "a", "--as", ""], "open", "as_", ""),
        (["--nonsense", "li"], "", "verb", "li"), ([], "", "verb", ""),
    ],
)  # fmt: skip
def test_the_last_word_stands_for(words: list[str], verb: str, place: str, word: str) -> None:
    """A verb, a flag, a flag's value, or a name."""
    typed = read(words)
    assert (typed.verb, typed.place, typed.word) == (verb, place, word)


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["l"], ["list\tlist artifacts, newest first (ls)", ":4"]),
        (["completion", ""], ["bash", "zsh", "fish", ":4"]),
        (["list", "-o", "y"], ["yaml", ":4"]),
        (["diff", "a", "b", "--as", ""], ["page", "top", ":4"]),
        (["list", "--output=w"], ["--output=wide", ":4"]),
        (["get", "x", "--kubeconfig", "/"], [":0"]),
        (["get", "x", "-d", ""], [":0"]),
        (["list", "--context", "e"], ["elsewhere", ":4"]),
        (["get", "a"], ["a1-heap\theap.pb.gz of web-0", "a2-heap\theap.pb.gz of web-0", ":4"]),
        (["get", "a1-heap", "a"], ["a2-heap\theap.pb.gz of web-0", ":4"]),
        (["-n", "bank", "get", ""], ["b-heap\theap.pb.gz of web-0", ":4"]),
        (["list", "--run", ""], ["morning", "night", ":4"]),
        (["list", "-n", ""], ["bank", "shop", ":4"]),
        (["list", "x"], [":4"]),
    ],
)
async def test_candidates_come_one_a_line_with_the_directive_last(
    api: Aggregated, plugin: Plugin, words: list[str], lines: list[str]
) -> None:
    """As kubectl reads them from `kubectl_complete-toe`."""
    hostile = artifact("a\x1b]52;c;x\x07")
    api.put(artifact("a1-heap"), artifact("a2-heap", run="morning"), artifact("b-heap", namespace="bank"), hostile)
    ran = await plugin.run(*words, program="complete")
    assert (ran.code, ran.lines, ran.err) == (0, lines, "")


KINDS = "/apis/codriverlabs.ai.toe.run/v1alpha1/namespaces"


def run_of(name: str, **status: object) -> dict[str, object]:
    spec = {
        "targets": {"labelSelector": {"matchLabels": {"app": "web"}}},
        "tool": {"name": "tcpdump", "duration": "30s"},
        "output": {"mode": "collector"},
    }
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["run", "t"], ["tcpdump\tpackets", ":4"]),
        (["preflight", ""], ["strace", "tcpdump\tpackets", ":4"]),
        (["run", "--operator-namespace", "home", ""], [":4"]),
        (["run", "tcpdump", "--name", ""], [":4"]),
        (["run", "tcpdump", "--preset", "l"], ["low", ":4"]),
        (["status", ""], ["traffic\ttcpdump, Running", "trial\ttcpdump, Pending", ":4"]),
        (["cancel", "tra"], ["traffic\ttcpdump, Running", ":4"]),
        (["get", "p"], ["powertool/\teverything of a run", ":4"]),
        (["get", "powertool/tr"], ["powertool/traffic\ttcpdump, Running", "powertool/trial\ttcpdump, Pending", ":4"]),
    ],
)
async def test_tools_and_runs_are_offered_where_they_are_meant(
    api: Aggregated, plugin: Plugin, words: list[str], lines: list[str]
) -> None:
    tools = [
        {"metadata": {"name": f"{name}-config"}, "spec": {"name": name, "image": "x:1", "securityContext": {}, **more}}
        for name, more in (("tcpdump", {"description": "packets"}), ("strace", {}))
    ]
    held = {
        f"{KINDS}/toe-system/powertoolconfigs": tools,
        f"{KINDS}/shop/powertools": [run_of("traffic", phase="Running"), run_of("trial")],
    }

    async def ours(request: web.Request) -> web.StreamResponse | None:
        found = held.get(request.path)
        return None if found is None else web.json_response({"kind": "List", "items": found})

    api.on_any = ours
    ran = await plugin.run(*words, program="complete")
    assert (ran.code, ran.lines, ran.err) == (0, lines, "")


@pytest.mark.slow
async def test_a_cluster_that_does_not_answer_costs_two_seconds_and_no_words(api: Aggregated, plugin: Plugin) -> None:
    """Nor does a broken one print an error into the prompt."""

    async def never(request: web.Request) -> web.StreamResponse | None:
        await asyncio.Event().wait()
        return None

    api.on_any = never
    began = time.monotonic()
    ran = await plugin.run("get", "", program="complete")
    assert (ran.code, ran.out, ran.err) == (0, ":4\n", "")
    assert time.monotonic() - began < 12
    broken = plugin.environment(KUBECONFIG="/nonexistent")
    gone = await plugin.run("get", "", program="complete", environ=broken)
    assert (gone.code, gone.out, gone.err) == (0, ":4\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_is_one_that_its_shell_can_read(shell: Shell) -> None:
    """Checked by the shell itself where it is installed."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    ended = subprocess.run([path, "-n"], input=script(shell), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_bash_offers_what_the_program_answers(tmp_path: Path) -> None:
    """Descriptions are cut off; the words before the cursor are handed over as they are."""
    fake = tmp_path / "kubectl_complete-toe"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$SEEN"\nprintf "a-heap\\theap of web\\na-cpu\\n:4\\n"\n')
    fake.chmod(0o755)
    said = 'COMP_WORDS=(kubectl-toe get --run "x y" a b); COMP_CWORD=4; _kubectl_toe; printf "%s\\n" "${COMPREPLY[@]}"'
    ended = subprocess.run(
        ["bash", "-c", f"{script('bash')}\n{said}"], capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SEEN": str(tmp_path / "seen")},
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["a-heap", "a-cpu"]
    assert (tmp_path / "seen").read_text().splitlines() == ["get", "--run", "x y", "a"]
