"""Websockets into containers: attach, again and again, and exec."""

import asyncio

import pytest

from tests.contract.clusters import Server
from tests.contract.ephemerals import ECHO, IDLE, V4, V5, add, opened, reaches, refusal, running, tool
from tests.contract.test_pods import pod

STREAMS = (("container", "tool"), ("stdin", "true"), ("stdout", "true"))
OUTPUT = (("container", "main"), ("stdout", "1"), ("stderr", "1"))


async def echoing(server: Server, **more: bool) -> None:
    """A pod with a tool that answers to each line."""
    await running(server)
    await add(server, {**tool(program=ECHO, stdin=True), **more})
    await reaches(server, "running")
    await server.eventually(
        lambda: server.call("GET", server.core("pods", "p/log"), container="tool"), lambda one: one.raw == b"up\n"
    )


def command(*argv: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (*(("command", one) for one in argv), *OUTPUT, *more.items())


@pytest.mark.parametrize("protocol", [V5, V4])
async def test_attach_can_be_done_again_and_again_and_sees_only_what_is_new(server: Server, protocol: str) -> None:
    await echoing(server)
    for text in ("one", "two"):
        async with opened(server, "p/attach", STREAMS, protocols=(protocol,)) as remote:
            assert remote.socket.protocol == protocol
            await remote.say(text)
            await remote.until(1, b"got " + text.encode() + b"\n")
            assert remote.messages[0] == b"\x01"
            assert remote.channel(1) == b"got " + text.encode() + b"\n"
    log = await server.call("GET", server.core("pods", "p/log"), container="tool")
    assert log.raw == b"up\ngot one\ngot two\n"


async def test_the_newest_protocol_is_taken_whatever_the_order(server: Server) -> None:
    await echoing(server)
    async with opened(server, "p/attach", STREAMS, protocols=(V4, V5)) as remote:
        assert remote.socket.protocol == V5


async def test_all_who_are_attached_see_the_same(server: Server) -> None:
    await echoing(server)
    async with opened(server, "p/attach", STREAMS) as first, opened(server, "p/attach", STREAMS) as second:
        await second.say("both")
        await asyncio.gather(first.until(1, b"got both\n"), second.until(1, b"got both\n"))


async def test_streams_are_apart_and_only_those_come_that_were_asked_for(server: Server) -> None:
    await echoing(server)
    async with opened(server, "p/attach", (*STREAMS, ("stderr", "true"))) as remote:
        await remote.say("complain")
        await asyncio.gather(remote.until(2, b"oops\n"))
        await remote.until(1, b"got complain\n")
    async with opened(server, "p/attach", STREAMS) as remote:
        await remote.socket.send_bytes(b'\x04{"Width":80,"Height":24}')
        await remote.say("complain")
        await remote.say("more")
        await remote.until(1, b"got more\n")
        assert remote.channel(2) == b""


async def test_closing_stdin_ends_the_attach_and_not_the_process(server: Server) -> None:
    await echoing(server)
    async with opened(server, "p/attach", STREAMS) as remote:
        await remote.say("one")
        await remote.until(1, b"got one\n")
        await remote.socket.send_bytes(b"\xff\x00")
        await remote.to_the_end()
    assert (remote.status, remote.closed) == ({"metadata": {}, "status": "Success"}, 1000)
    async with opened(server, "p/attach", STREAMS) as remote:
        await remote.say("two")
        await remote.until(1, b"got two\n")


async def test_closing_stdin_is_an_end_of_file_with_stdin_once(server: Server) -> None:
    await echoing(server, stdinOnce=True)
    async with opened(server, "p/attach", STREAMS) as remote:
        await remote.socket.send_bytes(b"\xff\x00")
        await remote.to_the_end()
    state = (await reaches(server, "terminated"))["state"]["terminated"]
    assert state["exitCode"] == 0


async def test_an_attach_ends_well_when_the_process_does_however_that_ended(server: Server) -> None:
    await echoing(server)
    async with opened(server, "p/attach", STREAMS) as remote:
        await remote.say("exit 3")
        await remote.to_the_end()
    state = (await reaches(server, "terminated"))["state"]["terminated"]
    assert remote.channel(1) == b"got exit 3\n"
    assert (remote.status, remote.closed) == ({"metadata": {}, "status": "Success"}, 1000)
    assert (state["exitCode"], state["message"]) == (3, "last words")


async def test_input_that_nobody_wants_is_passed_over(server: Server) -> None:
    await echoing(server)
    async with opened(server, "p/attach", (("container", "tool"), ("stdout", "1"))) as silent:
        await silent.say("unheard")
        async with opened(server, "p/attach", (("container", "main"), ("stdin", "1"), ("stdout", "1"))) as deaf:
            await deaf.say("unheard")
            async with opened(server, "p/attach", STREAMS) as remote:
                await remote.say("heard")
                await remote.until(1, b"got heard\n")
                assert remote.channel(1) == b"got heard\n"


async def test_many_bytes_pass_both_ways(server: Server) -> None:
    await running(server)
    program = "import sys\nfor line in sys.stdin: print(len(line), flush=True); print('y' * len(line), flush=True)"
    await add(server, tool(program=program, stdin=True))
    await reaches(server, "running")
    text = "x" * 300_000
    async with opened(server, "p/attach", STREAMS) as remote:
        for start in range(0, len(text), 30_000):
            await remote.socket.send_bytes(b"\0" + text[start : start + 30_000].encode())
        await remote.say("")
        await remote.until(1, b"y\n")
    assert remote.channel(1) == b"300001\n" + b"y" * 300_001 + b"\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)], ids=["well", "badly", "killed"]
)
async def test_exec_tells_how_the_command_ended(server: Server, script: str, code: int) -> None:
    await running(server)
    async with opened(server, "p/exec", command("sh", "-c", f"echo out; echo err >&2; {script}")) as remote:
        await remote.to_the_end()
    assert (remote.channel(1), remote.channel(2), remote.closed) == (b"out\n", b"err\n", 1000)
    if code == 0:
        assert remote.status == {"metadata": {}, "status": "Success"}
        return
    said = f"command terminated with non-zero exit code: command terminated with exit code {code}"
    assert remote.status == {
        "metadata": {},
        "status": "Failure",
        "message": said,
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def test_exec_by_v4_says_it_in_the_runtimes_words(server: Server) -> None:
    await running(server)
    async with opened(server, "p/exec", command("sh", "-c", "exit 7"), protocols=(V4,)) as remote:
        await remote.to_the_end()
    assert remote.status["reason"] == "NonZeroExitCode"
    assert remote.status["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}
    assert remote.status["message"].endswith("error executing command [sh -c exit 7], exit code 7")
    async with opened(server, "p/exec", command("true"), protocols=(V4,)) as remote:
        await remote.to_the_end()
    assert remote.status == {"status": "Success"}


async def test_exec_is_given_input_to_its_end(server: Server) -> None:
    await running(server)
    async with opened(server, "p/exec", command("cat", stdin="true")) as remote:
        await remote.say("abc")
        await remote.socket.send_bytes(b"\xff\x00")
        await remote.to_the_end()
    assert (remote.channel(1), remote.status["status"]) == (b"abc\n", "Success")


async def test_exec_of_a_program_that_is_not_there_is_an_error_after_the_upgrade(server: Server) -> None:
    await running(server)
    async with opened(server, "p/exec", command("/no/such/program")) as remote:
        await remote.to_the_end()
    assert (remote.status["status"], remote.status["reason"], remote.status["code"]) == (
        "Failure",
        "InternalError",
        500,
    )
    assert 'exec: "/no/such/program": ' in remote.status["message"]
    assert "no such file or directory" in remote.status["message"].lower()


async def test_exec_needs_a_command(server: Server) -> None:
    await running(server)
    async with opened(server, "p/exec", command()) as remote:
        await remote.to_the_end()
    assert remote.status["reason"] == "InternalError"
    assert "args must not be empty" in remote.status["message"]


async def test_a_command_outlives_the_websocket_that_began_it(server: Server) -> None:
    await running(server)
    await add(server, tool())
    await reaches(server, "running")
    base = (("container", "tool"), ("stdout", "1"))
    script = "echo begun; sleep 1; touch /tmp/done"
    begun = (("command", "sh"), ("command", "-c"), ("command", script), *base)
    async with opened(server, "p/exec", begun) as remote:
        await remote.until(1, b"begun\n")
    async with asyncio.timeout(20):
        while True:
            async with opened(server, "p/exec", (("command", "ls"), ("command", "/tmp"), *base)) as remote:
                await remote.to_the_end()
            if b"done\n" in remote.channel(1):
                break
            await asyncio.sleep(0.2)


async def test_exec_shares_environment_and_files_with_its_container(server: Server) -> None:
    await running(server)
    program = "import time; open('/tmp/toe-mark', 'w').write('mine'); print('made', flush=True); time.sleep(600)"
    variable = {"name": "GREETING", "value": "hello"}
    await add(server, tool(program=program, env=[variable], workingDir="/usr"), tool("other"))
    await asyncio.gather(reaches(server, "running"), reaches(server, "running", "other"))
    await server.eventually(
        lambda: server.call("GET", server.core("pods", "p/log"), container="tool"), lambda one: one.raw == b"made\n"
    )
    script = "echo $GREETING; pwd; cat /tmp/toe-mark"
    for container, expected in (("tool", b"hello\n/usr\nmine"), ("other", b"\n/\n")):
        query = (("command", "sh"), ("command", "-c"), ("command", script), ("container", container), ("stdout", "1"))
        async with opened(server, "p/exec", query) as remote:
            await remote.to_the_end()
        assert remote.channel(1) == expected


@pytest.mark.parametrize("sub", ["attach", "exec"])
async def test_what_is_refused_before_there_is_a_websocket(server: Server, sub: str) -> None:
    await running(server)
    await server.make(server.core("pods"), pod(IDLE, "later", schedulingGates=[{"name": "contract.toe.run/never"}]))
    await add(server, tool(program="pass"), tool("unknown", image="localhost/contract-nope:1"))
    await reaches(server, "terminated")
    run = (("command", "true"),) if sub == "exec" else ()
    output = (*run, ("stdout", "1"))
    missing = await refusal(server, f"nope/{sub}", output)
    unknown = await refusal(server, f"p/{sub}", (*output, ("container", "nope")))
    later = await refusal(server, f"later/{sub}", output)
    plain = await server.call("GET", server.core("pods", f"p/{sub}"), params=dict(output))
    nothing = await refusal(server, f"p/{sub}", run)
    assert (missing.status, missing.message) == (404, 'pods "nope" not found')
    assert (unknown.status, unknown.message) == (400, "container nope is not valid for pod p")
    assert (later.status, later.message) == (400, "pod later does not have a host assigned")
    assert (plain.status, plain.message) == (400, "Upgrade request required")
    assert (nothing.status, nothing.raw) == (400, b"you must specify at least 1 of stdin, stdout, stderr")
    for name in ("tool", "unknown"):
        ended = await refusal(server, f"p/{sub}", (*output, ("container", name)))
        said = f'container not found ("{name}")'
        if sub == "attach":
            said = f"container {name} not found in pod p_{server.namespace}"
        assert (ended.status, ended.raw.decode()) == (500, said)


@pytest.mark.parametrize("sub", ["attach", "exec"])
async def test_the_right_to_get_and_the_right_to_create_are_needed(server: Server, sub: str) -> None:
    await echoing(server)
    token = await server.account("sa")
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{server.namespace}"
    rule = {"apiGroups": [""], "resources": [f"pods/{sub}"], "verbs": ["get"]}
    await server.make(f"{base}/roles", {"metadata": {"name": "into"}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "into"}
    subject = {"kind": "ServiceAccount", "name": "sa", "namespace": server.namespace}
    query = (*STREAMS, ("command", "true"))
    none = await refusal(server, f"p/{sub}", query, token)
    await server.make(
        f"{base}/rolebindings", {"metadata": {"name": "into"}, "roleRef": reference, "subjects": [subject]}
    )
    half = await server.eventually(
        lambda: refusal(server, f"p/{sub}", query, token), lambda one: "cannot get" not in one.message
    )
    await server.merge(f"{base}/roles/into", {"rules": [{**rule, "verbs": ["get", "create"]}]})
    path = server.core("pods", f"p/{sub}")
    await server.eventually(
        lambda: server.call("GET", path, token=token, params=dict(query)), lambda one: one.status != 403
    )
    assert (none.status, half.status, half.message) == (403, 403, 'pods "p" is forbidden: ')
    assert f'cannot get resource "pods/{sub}" in API group ""' in none.message
    async with opened(server, f"p/{sub}", query, token=token) as remote:
        assert remote.socket.protocol == V5
