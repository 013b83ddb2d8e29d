"""`kubectl toe` as a process: what it asks for, what it prints, and how it ends."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.cli.aggregated import API, Aggregated, Plugin, artifact, status
from tests.sandbox.kubectl import NEEDED

BASE = f"/apis/{API}/namespaces/shop/artifacts"


@pytest.mark.slow
async def test_a_list_is_a_table_of_the_context_s_namespace(api: Aggregated, plugin: Plugin) -> None:
    """Newest first as the server has it; stdout only."""
    api.put(artifact("a-heap", b"x" * 2048), artifact("b-heap", namespace="bank"))
    ran = await plugin.run("list")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split() for line in ran.lines] == [
        ["NAME", "SIZE", "AGE", "POD", "RUN", "REASON"],
        ["a-heap", "2.0", "KiB", ran.lines[1].split()[3], "web-0", "night", "threshold-exceeded"],
    ]
    elsewhere = await plugin.run("ls", "--context", "elsewhere", "-o", "name")
    assert elsewhere.lines == ["artifact.artifacts.toe.run/b-heap"]
    everywhere = await plugin.run("-A", "list")
    assert [line.split()[:2] for line in everywhere.lines] == [
        ["NAMESPACE", "NAME"],
        ["shop", "a-heap"],
        ["bank", "b-heap"],
    ]
    assert [target.partition("?")[0] for target in api.targets()] == [
        f"GET {BASE}", f"GET {BASE.replace('shop', 'bank')}", f"GET /apis/{API}/artifacts",
    ]  # fmt: skip


async def test_every_flag_of_a_list_is_asked_of_the_server(api: Aggregated, plugin: Plugin) -> None:
    """Pod, kind and tool are fields; commas and equals signs in them are escaped; the type is looked for by us."""
    api.put(artifact("h"), artifact("c", leaf="cpu.pb.gz"))
    ran = await plugin.run(
        *(
            "list",
            "--run",
            "night",
            "--pod",
            "web-0",
            "--kind",
            "K",
            "--tool",
            "a,b=c",
            "--type",
            "heap",
            "--since",
            "2h",
        ),
        *("--until", "2026-01-24T20:44:08Z", "-l", "app in (x)", "--field-selector", "artifact.node!=n2", "-o", "name"),
    )
    assert (ran.code, ran.lines) == (0, ["artifact.artifacts.toe.run/h"])
    assert dict(api.seen[0].query) == {
        "run": "night", "since": "2h", "until": "2026-01-24T20:44:08Z", "q": "heap", "labelSelector": "app in (x)",
        "fieldSelector": "artifact.pod=web-0,artifact.kind=K,artifact.tool=a\\,b\\=c,artifact.node!=n2", "limit": "500",
    }  # fmt: skip


async def test_all_pages_are_read_up_to_the_limit(api: Aggregated, plugin: Plugin) -> None:
    """Pages may be smaller than asked for; an exact limit keeps the token to go on with."""
    api.page = 7
    api.put(*(artifact(f"a{number:02d}") for number in range(30)))
    ran = await plugin.run("list", "-o", "json")
    found = json.loads(ran.out)
    assert [item["metadata"]["name"] for item in found["items"]] == [f"a{number:02d}" for number in range(30)]
    assert (found["kind"], found["apiVersion"], found["metadata"]) == ("ArtifactList", API, {})
    assert len(api.seen) == 5
    ten = yaml.safe_load((await plugin.run("list", "--limit", "10", "-o", "yaml")).out)
    assert (len(ten["items"]), ten["metadata"]) == (10, {"continue": "10"})


async def test_an_empty_list_is_said_on_stderr(api: Aggregated, plugin: Plugin) -> None:
    """As kubectl does; JSON is still a list."""
    ran = await plugin.run("list")
    assert (ran.code, ran.out, ran.err) == (0, "", "No artifacts found in namespace shop.\n")
    assert json.loads((await plugin.run("list", "-o", "json")).out)["items"] == []


async def plain_404(request: web.Request) -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


async def plain_503(request: web.Request) -> web.Response:
    return web.Response(status=503, text="service unavailable\n")


async def reading(request: web.Request) -> web.Response:
    return status(503, "ServiceUnavailable", "the collector is still reading its store; try again")


async def forbidden(request: web.Request) -> web.Response:
    return status(403, "Forbidden", 'artifacts.artifacts.toe.run is forbidden: User "u\x1b[31m" cannot list')


async def stranger(request: web.Request) -> web.Response:
    return status(401, "Unauthorized", "Unauthorized")


async def login(request: web.Request) -> web.Response:
    return web.Response(text="<html>", content_type="text/html")


async def expired(request: web.Request) -> web.Response:
    return status(410, "Expired", "the list has changed too much; start it again")


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (plain_404, 1, "the collector's API is not registered here: there is no APIService v1alpha1.artifacts.toe.run"),
        pytest.param(plain_503, 1, "the API server cannot reach the collector", marks=pytest.mark.slow),
        pytest.param(reading, 1, "still reading its store", marks=pytest.mark.slow),
        (forbidden, 3, "cannot list"),
        (stranger, 3, "does not accept the kubeconfig's user"),
        (login, 1, "is that the API server, or a proxy or login page"),
        (expired, 1, "start it again"),
    ],
)
async def test_a_refusal_is_one_sentence_and_a_code(
    api: Aggregated, plugin: Plugin, answer: Any, code: int, words: str
) -> None:
    """No traceback, no escape sequence, nothing on stdout."""
    api.on_any = answer
    ran = await plugin.run("list")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")
    assert words in ran.err
    assert len(ran.lines + ran.err.splitlines()) == 1
    assert "\x1b" not in ran.err


async def test_an_unreachable_or_missing_cluster_is_one_sentence(plugin: Plugin, api: Aggregated) -> None:
    """A kubeconfig that is none, a context that is none."""
    missing = await plugin.run("list", "--kubeconfig", "/nonexistent/config")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert "no kubeconfig at /nonexistent/config" in missing.err
    context = await plugin.run("list", "--context", "nowhere")
    assert (context.code, "has no context 'nowhere'" in context.err) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["fly"], ["list", "--since", "yesterday"], ["list", "--limit", "0"], ["get"], ["get", "a", "--run", "r"],
        ["get", "a", "b", "-O", "x"], ["get", "a", "-A"], ["list", "-n", "a", "-A"], ["hold", "a"], ["open"],
        ["open", "a", "--as", "svg"], ["diff", "a"], ["delete"], ["ui", "--port", "99999"], ["list", "--timeout", "0"],
        ["list", "-o", "xml"], ["list", "--ru", "x"], ["completion", "csh"], ["delete", "a"],
    ],
)  # fmt: skip
async def test_wrong_usage_ends_in_2_and_asks_nothing(api: Aggregated, plugin: Plugin, arguments: list[str]) -> None:
    """The words come from `kubectl toe`."""
    ran = await plugin.run(*arguments)
    assert (ran.code, ran.out, api.seen) == (2, "", [])
    assert "kubectl toe" in ran.err or "-y" in ran.err


@pytest.mark.slow
async def test_deleting_needs_a_yes_and_tells_what_is_gone(api: Aggregated, plugin: Plugin) -> None:
    """-y is one; what is not there is an error unless that is said to be fine; some of several is partial."""
    api.put(artifact("a"), artifact("b"))
    ran = await plugin.run("delete", "-y", "a", "zz")
    assert (ran.code, ran.out) == (5, 'artifact.artifacts.toe.run "a" deleted\n')
    assert 'error: zz: artifacts.artifacts.toe.run "zz" not found' in ran.err
    fine = await plugin.run("rm", "zz", "--ignore-not-found", "-y")
    assert (fine.code, fine.out, fine.err) == (0, "", "")
    chosen = await plugin.run("rm", "--run", "night", "-y", "-o", "name")
    assert (chosen.code, chosen.lines) == (0, ["artifact.artifacts.toe.run/b"])
    assert api.kept == []


@pytest.mark.parametrize(("said", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (b"\n", 1, 1), (b"\x04", 1, 1)])
async def test_the_question_is_asked_on_a_terminal(
    api: Aggregated, plugin: Plugin, said: bytes, code: int, left: int
) -> None:
    """Only y is a yes; the end of input is none."""
    api.put(artifact("a"))
    ours, theirs = pty.openpty()
    process = await plugin.start("delete", "a", stdin=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        shown += await asyncio.to_thread(os.read, ours, 1024)
    os.write(ours, said)
    await process.communicate()
    os.close(ours)
    assert b"shop/a" in shown
    assert (process.returncode, len(api.kept)) == (code, left)


async def test_holding_and_releasing_patch_the_annotation(api: Aggregated, plugin: Plugin) -> None:
    """The annotation `toe.run/hold` holds the reason; null takes it away."""
    api.put(artifact("a"), artifact("b"))
    held = await plugin.run("hold", "a", "b", "--reason", "case 7")
    assert held.lines == ['artifact.artifacts.toe.run "a" held', 'artifact.artifacts.toe.run "b" held']
    released = await plugin.run("release", "a", "zz")
    assert (released.code, released.out) == (5, 'artifact.artifacts.toe.run "a" released\n')
    assert sorted(api.holds[:2]) == [("a", "case 7"), ("b", "case 7")]
    assert api.holds[2:] == [("a", None)]


async def test_progress_is_drawn_on_a_terminal_only(api: Aggregated, plugin: Plugin) -> None:
    """And is wiped before a line of data."""
    api.put(artifact("a", os.urandom(3 << 20)))
    ours, theirs = pty.openpty()
    process = await plugin.start("get", "a", stderr=theirs)
    os.close(theirs)
    out, _ = await process.communicate()
    drawn = await asyncio.to_thread(os.read, ours, 65536)
    os.close(ours)
    assert b"1/1 3.0 MiB/3.0 MiB" in drawn
    assert drawn.endswith(b"\r\x1b[K")
    assert out == b"web-0-app-abcdefghij-heap.pb.gz\n"


async def test_a_reader_that_has_seen_enough_is_no_crash(api: Aggregated, plugin: Plugin) -> None:
    """As in `kubectl toe list | head -1`."""
    api.page = 2000
    api.put(*(artifact(f"a{number}") for number in range(1500)))
    read, write = os.pipe()
    os.close(read)
    process = await plugin.start("list", stdout=write)
    os.close(write)
    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


async def test_ctrl_c_ends_in_130_without_a_traceback(api: Aggregated, plugin: Plugin) -> None:
    """Whatever it waits for."""
    asked = asyncio.Event()

    async def never(request: web.Request) -> web.StreamResponse | None:
        asked.set()
        await asyncio.Event().wait()
        return None

    api.on_any = never
    process = await plugin.start("list")
    await asked.wait()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"error: interrupted\n")


@pytest.mark.slow
async def test_names_that_drive_a_terminal_are_shown_without_it(api: Aggregated, plugin: Plugin) -> None:
    """In tables and errors; JSON escapes them and keeps them whole."""
    name = "a\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://x\x07\u202eb"
    api.put(artifact(name, pod=name, reason=name))
    for form in ("", "wide", "name"):
        ran = await plugin.run("list", *(["-o", form] if form else []))
        assert not [char for char in ran.out if not char.isprintable() and char != "\n"]
        assert "ab" in ran.out
    shown = (await plugin.run("list", "-o", "json")).out
    assert shown.isascii()
    assert "\x1b" not in shown
    assert json.loads(shown)["items"][0]["metadata"]["name"] == name


async def test_a_plain_terminal_s_encoding_does_not_break_a_table(api: Aggregated, plugin: Plugin) -> None:
    """What it cannot show is escaped."""
    api.put(artifact("a", reason="größer 数"))
    ran = await plugin.run("list", environ=plugin.environment(PYTHONIOENCODING="ascii"))
    assert (ran.code, "gr\\xf6\\xdfer \\u6570" in ran.out) == (0, True)


def test_help_and_words_come_without_the_client_library() -> None:
    """Nothing heavy is imported, so they are there at once: under 150 ms more than Python itself needs."""
    for arguments in (["--help"], ["get", "--help"], ["version"]):
        code = (
            "import sys\nfrom toe_async.cli.plugin.main import main\n"
            f"try: main({arguments!r})\nexcept SystemExit: pass\n"
            "heavy = {'aiohttp', 'kubernetes_asyncio', 'msgspec', 'yaml', 'structlog', 'asyncio'} & set(sys.modules)\n"
            "sys.exit(str(heavy) if heavy else 0)"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "kubectl" in ended.stdout
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare = time.perf_counter() - began
        subprocess.run(
            [sys.executable, "-c", "from toe_async.cli.plugin.main import main; main(['--help'])"],
            check=True,
            capture_output=True,
        )
        spent.append(time.perf_counter() - began - 2 * bare)
    assert min(spent) < 0.15


async def test_a_kubeconfig_wins_over_a_pod_s_own_account(api: Aggregated, plugin: Plugin) -> None:
    """As with kubectl in a pod."""
    api.put(artifact("a"))
    environ = plugin.environment(KUBERNETES_SERVICE_HOST="192.0.2.1", KUBERNETES_SERVICE_PORT="1")
    assert (await plugin.run("list", "-o", "name", environ=environ)).lines == ["artifact.artifacts.toe.run/a"]


async def test_a_user_of_an_exec_plugin_signs_in_by_it(api: Aggregated, plugin: Plugin) -> None:
    """As on EKS, GKE or with kubelogin."""
    told = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "minted"}}
    signs = {"apiVersion": told["apiVersion"], "command": "sh", "args": ["-c", f"echo '{json.dumps(told)}'"]}
    config = yaml.safe_load(plugin.kubeconfig.read_text())
    config["users"][0]["user"] = {"exec": signs}
    plugin.kubeconfig.write_text(yaml.safe_dump(config))
    assert (await plugin.run("list")).code == 0
    assert api.seen[0].headers["Authorization"] == "Bearer minted"


@NEEDED
@pytest.mark.slow
async def test_kubectl_finds_the_plugin_and_its_completion(api: Aggregated, plugin: Plugin) -> None:
    """The installed programs, by the real kubectl."""
    api.put(artifact("a-heap"))
    programs = Path(sys.executable).parent
    environ = plugin.environment(PATH=f"{programs}:{os.environ['PATH']}")

    async def kubectl(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "kubectl", *arguments, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()

    assert await kubectl("toe", "list", "-o", "name") == "artifact.artifacts.toe.run/a-heap\n"
    assert (await kubectl("__complete", "toe", "get", "a")).splitlines() == ["a-heap\theap.pb.gz of web-0", ":4"]
    assert "usage: kubectl toe get" in await kubectl("toe", "get", "--help")
