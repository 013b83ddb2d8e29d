"""Credentials from a program that a kubeconfig names (client.authentication.k8s.io), as EKS, GKE and kubelogin use.

The program has no terminal, bounded time and bounded output; a program that has not ended by itself is killed with its
children when the call ends, however it ends. What it prints is never logged; of its standard error a short piece is,
since it is all there is to go by.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from datetime import datetime

import msgspec

from toe_async.kube.errors import CredentialsError, clip
from toe_async.kube.kubeconfig import Pem, Plugin
from toe_async.lib.clock import parse_rfc3339

TIMEOUT = 30.0
_LARGEST_OUTPUT = 1 << 20


class PluginCredential(msgspec.Struct, frozen=True):
    """What the plugin gave. ``expires`` None: until the server refuses it."""

    token: str | None
    certificate: Pem | None
    key: Pem | None
    expires: datetime | None


class _Status(msgspec.Struct, rename="camel", frozen=True):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None


class _ExecCredential(msgspec.Struct, rename="camel", frozen=True):
    api_version: str
    kind: str
    status: _Status | None = None


async def run_plugin(plugin: Plugin, environ: Mapping[str, str]) -> PluginCredential:
    """Run the plugin once.

    Raises:
        CredentialsError: it is missing, fails, takes too long, or prints something else than a credential.
    """
    env = {**environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": plugin.info}
    name = f"the exec plugin {plugin.argv[0]!r}"
    try:
        process = await asyncio.create_subprocess_exec(
            *plugin.argv,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise CredentialsError(clip(f"{name} cannot be started: {error.strerror}. {plugin.hint}")) from error
    try:
        async with asyncio.timeout(TIMEOUT):
            assert process.stdout is not None
            assert process.stderr is not None
            async with asyncio.TaskGroup() as readers:
                output = readers.create_task(_read(process.stdout), name="exec plugin output")
                complaint = readers.create_task(_read(process.stderr), name="exec plugin errors")
            code = await process.wait()
    except TimeoutError:
        raise CredentialsError(f"{name} has not finished within {TIMEOUT:g} s") from None
    finally:
        await _end(process)
    if code != 0:
        said = clip(complaint.result().decode(errors="replace"), 300)
        raise CredentialsError(clip(f"{name} failed with exit code {code}: {said or 'it said nothing'}"))
    return _credential(plugin, name, output.result())


def _credential(plugin: Plugin, name: str, output: bytes) -> PluginCredential:
    if len(output) > _LARGEST_OUTPUT:
        raise CredentialsError(f"{name} printed more than {_LARGEST_OUTPUT >> 20} MiB")
    try:
        answer = msgspec.json.decode(output, type=_ExecCredential)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Not chained: the decoder's words could quote what may be a token.
        raise CredentialsError(f"{name} printed {len(output)} bytes that are no ExecCredential") from None
    status = answer.status
    if answer.kind != "ExecCredential" or answer.api_version != plugin.api_version:
        raise CredentialsError(
            clip(f"{name} answered {answer.kind} {answer.api_version}, expected ExecCredential {plugin.api_version}")
        )
    if status is None or not (status.token or (status.client_certificate_data and status.client_key_data)):
        raise CredentialsError(f"{name} gave neither a token nor a client certificate with its key")
    try:
        expires = parse_rfc3339(status.expiration_timestamp) if status.expiration_timestamp else None
    except ValueError:
        raise CredentialsError(f"{name} gave an expirationTimestamp that is no RFC 3339 instant") from None
    token = (status.token or "").strip()
    if not token.isascii() or (token and not token.isprintable()):
        raise CredentialsError(f"{name} gave a token with characters that no token has")
    pems = (status.client_certificate_data, status.client_key_data)
    certificate, key = (Pem(pem.encode()) if all(pems) and pem else None for pem in pems)
    return PluginCredential(token or None, certificate, key, expires)


async def _read(stream: asyncio.StreamReader) -> bytes:
    """All of it, or one byte more than is allowed; the rest is read and dropped so that the program can end."""
    kept = bytearray()
    while chunk := await stream.read(1 << 16):
        kept += chunk[: _LARGEST_OUTPUT + 1 - len(kept)]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children share its session, hence its group
        await process.wait()
