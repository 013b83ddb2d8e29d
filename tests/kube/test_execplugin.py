"""Exec plugins: what they give is taken, what goes wrong is told, and none is left running."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.kube.fakeapi import exec_credential, until
from toe_async.kube import execplugin
from toe_async.kube.errors import CredentialsError
from toe_async.kube.execplugin import run_plugin
from toe_async.kube.kubeconfig import Plugin


def plugin(code: str, *args: str) -> Plugin:
    return Plugin(
        argv=(sys.executable, "-S", "-c", code, *args),
        api_version="client.authentication.k8s.io/v1",
        env=(("ADDED", "yes"),),
        info="{}",
        hint="install it so",
    )


def printing(text: str) -> Plugin:
    return plugin("import sys; print(sys.argv[1])", text)


async def test_a_token_with_its_expiry() -> None:
    """The common case, EKS and GKE."""
    given = await run_plugin(printing(exec_credential(token="tok\n", expirationTimestamp="2030-01-02T03:04:05Z")), {})
    assert given.token == "tok"
    assert given.expires is not None
    assert given.expires.isoformat() == "2030-01-02T03:04:05+00:00"
    assert given.certificate is None


async def test_a_client_certificate_with_its_key() -> None:
    """A plugin may give a certificate in place of a token."""
    given = await run_plugin(printing(exec_credential(clientCertificateData="C", clientKeyData="K")), {})
    assert given.token is None
    assert given.certificate is not None
    assert given.key is not None
    assert (given.certificate.data, given.key.data, given.expires) == (b"C", b"K", None)


async def test_the_plugin_sees_our_environment_its_own_and_the_info() -> None:
    """PATH and HOME have to reach it, and it must not wait for a terminal."""
    code = """
import json, os, sys
assert sys.stdin.read() == ""
token = "-".join([os.environ["OURS"], os.environ["ADDED"], os.environ["KUBERNETES_EXEC_INFO"]])
answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
print(json.dumps(answer))
"""
    assert (await run_plugin(plugin(code), {"OURS": "here"})).token == "here-yes-{}"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            plugin("import sys; sys.stderr.write('no session\\n\\x1b[2J'); sys.exit(3)"),
            r"exit code 3: no session \?\[2J",
        ),
        (plugin("import sys; sys.exit(1)"), "it said nothing"),
        (plugin("import os; os.kill(os.getpid(), 9)"), "exit code -9"),
        (printing("s3cret is no JSON"), "18 bytes that are no ExecCredential"),
        (printing('{"kind":"Pod","apiVersion":"v1"}'), "answered Pod v1, expected ExecCredential"),
        (printing(exec_credential().replace("/v1", "/v1alpha1")), "expected ExecCredential client.auth.*/v1$"),
        (printing(exec_credential()), "neither a token nor a client certificate"),
        (printing(exec_credential(clientCertificateData="C")), "neither a token nor a client certificate"),
        (printing(exec_credential(token="t", expirationTimestamp="soon")), "no RFC 3339"),
        (printing(exec_credential(token="s3cret\r\nX: y")), "characters that no token has"),
        (plugin("print('x' * (2 << 20))"), "more than 1 MiB"),
        (Plugin(("/no/such/plugin",), "v1", (), "{}", "install it so"), "No such file or directory. install it so"),
    ],
)
async def test_what_goes_wrong_is_told_without_what_was_printed(broken: Plugin, said: str) -> None:
    """Standard output may hold the token, so it is never repeated, not even by a chained exception."""
    with pytest.raises(CredentialsError, match=said) as caught:
        await run_plugin(broken, {})
    assert "s3cret" not in str(caught.value)
    assert not isinstance(caught.value.__cause__, ValueError)


HANGS = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_plugin_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign-in that waits for a browser must not hold the operator."""
    monkeypatch.setattr(execplugin, "TIMEOUT", 0.5)
    with pytest.raises(CredentialsError, match=r"not finished within 0\.5 s"):
        await run_plugin(plugin(HANGS, str(tmp_path / "pid")), {})
    assert gone(int((tmp_path / "pid").read_text()))


async def test_cancelling_leaves_no_plugin_behind(tmp_path: Path) -> None:
    """Ctrl-C while the plugin works."""
    file = tmp_path / "pid"
    task = asyncio.get_running_loop().create_task(run_plugin(plugin(HANGS, str(file)), {}))
    await until(lambda: file.exists() and file.read_text() != "")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(int(file.read_text()))
