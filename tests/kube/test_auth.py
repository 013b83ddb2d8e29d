"""Credentials are renewed before they run out, once for all who ask, and kept while nothing better can be had."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.kube.fakeapi import ManualClock, exec_credential, until
from toe_async.kube.auth import REREAD_SECONDS, Credentials, Material
from toe_async.kube.errors import ConfigurationError, CredentialsError
from toe_async.kube.kubeconfig import Identity, Pem, Plugin, Tls
from toe_async.lib.clock import rfc3339
from toe_async.lib.tasks import TaskOwner

TLS = Tls("https://k8s.example")


@pytest.fixture
async def watched(clock: ManualClock) -> AsyncIterator[Callable[["Files"], Credentials]]:
    """Makes Credentials that end with the test."""
    async with TaskOwner(lambda name, error: None) as owner:
        yield lambda files: Credentials(files, {}, clock, owner)


Watched = Callable[["Files"], Credentials]


class Files:
    """Stands for the files: what they hold, and how often they were read."""

    def __init__(self, identity: Identity) -> None:
        self.identity: Identity | ConfigurationError = identity
        self.reads = 0

    def __call__(self) -> Identity:
        self.reads += 1
        if isinstance(self.identity, ConfigurationError):
            raise self.identity
        return self.identity


async def test_files_are_read_again_once_a_minute(watched: Watched, clock: ManualClock) -> None:
    """A projected token that was rotated is in use a minute later, without a refusal in between."""
    files = Files(Identity(TLS, "one"))
    credentials = watched(files)
    assert (await credentials.current()).token == "one"
    files.identity = Identity(TLS, "two")
    clock.seconds += REREAD_SECONDS - 1
    assert (await credentials.current()).token == "one"
    clock.seconds += 1
    assert (await credentials.current()).token == "two"
    assert files.reads == 2


async def test_a_file_that_is_missing_for_a_moment_costs_nothing(watched: Watched, clock: ManualClock) -> None:
    """What was read before still holds; the next look comes soon."""
    files = Files(Identity(TLS, "one"))
    credentials = watched(files)
    await credentials.current()
    files.identity = ConfigurationError("cannot read token")
    clock.seconds += REREAD_SECONDS
    assert (await credentials.current()).token == "one"
    files.identity = Identity(TLS, "two")
    clock.seconds += 2
    assert (await credentials.current()).token == "two"


async def test_files_that_were_never_readable_are_an_error(watched: Watched, clock: ManualClock) -> None:
    """There is nothing to go on with."""
    files = Files(Identity(TLS))
    files.identity = ConfigurationError("cannot read token")
    with pytest.raises(ConfigurationError, match="cannot read token"):
        await watched(files).current()


async def test_many_refused_callers_cause_one_refresh(watched: Watched, clock: ManualClock) -> None:
    """Each names what was refused; only the first finds that it is still the newest."""
    files = Files(Identity(TLS, "one"))
    credentials = watched(files)
    refused = await credentials.current()
    files.identity = Identity(TLS, "two")
    fresh = await asyncio.gather(*(credentials.refresh(refused) for _ in range(20)))
    assert set(fresh) == {Material(TLS, "two")}
    assert files.reads == 2


@pytest.fixture
def counting(tmp_path: Path, clock: ManualClock) -> Callable[..., Plugin]:
    """A plugin that gives token-1, token-2, ... and fails once there is a file named `broken`."""

    def make(lifetime: float | None = None, *, certificate: bool = False) -> Plugin:
        given = {"token": "TOKEN"} if not certificate else {"clientCertificateData": "TOKEN", "clientKeyData": "K"}
        if lifetime is not None:
            soon = ManualClock()
            soon.seconds = clock.seconds + lifetime
            given["expirationTimestamp"] = rfc3339(soon.now())
        code = f"""
import os, sys
os.chdir({str(tmp_path)!r})
if os.path.exists("broken"): sys.exit("no session")
count = os.path.getsize("count") + 1 if os.path.exists("count") else 1
open("count", "a").write("x")
print({exec_credential(**given)!r}.replace("TOKEN", f"token-{{count}}"))
"""
        return Plugin((sys.executable, "-S", "-c", code), "client.authentication.k8s.io/v1", (), "{}", "")

    return make


async def test_a_plugin_runs_again_before_its_token_expires(
    watched: Watched, counting: Callable[..., Plugin], clock: ManualClock
) -> None:
    """Half a minute early, and not at every look into the files."""
    credentials = watched(Files(Identity(TLS, None, counting(600.0))))
    assert (await credentials.current()).token == "token-1"
    clock.seconds += 500
    assert (await credentials.current()).token == "token-1"
    clock.seconds += 75
    # This one's plugin prints the same expiry, 25 s ahead: half of that is waited, not nothing.
    assert (await credentials.current()).token == "token-2"
    clock.seconds += 5
    assert (await credentials.current()).token == "token-2"
    clock.seconds += 10
    assert (await credentials.current()).token == "token-3"


async def test_a_refused_token_brings_a_new_run_but_not_one_a_request(
    watched: Watched, counting: Callable[..., Plugin], clock: ManualClock
) -> None:
    """A revoked token is replaced at once; a server that refuses everything starts a process every ten seconds."""
    credentials = watched(Files(Identity(TLS, None, counting())))
    first = await credentials.current()
    clock.seconds += 11
    second = await credentials.refresh(first)
    assert second.token == "token-2"
    assert await credentials.refresh(second) == second
    clock.seconds += 11
    assert (await credentials.refresh(second)).token == "token-3"


async def test_a_failing_plugin_does_not_take_a_good_token_away(
    watched: Watched, counting: Callable[..., Plugin], clock: ManualClock, tmp_path: Path
) -> None:
    """It is asked again later; only once the token has expired there is nothing to sign in with."""
    credentials = watched(Files(Identity(TLS, None, counting(600.0))))
    await credentials.current()
    (tmp_path / "broken").touch()
    clock.seconds += 575
    assert (await credentials.current()).token == "token-1"
    clock.seconds += 30
    with pytest.raises(CredentialsError, match="no session"):
        await credentials.current()
    (tmp_path / "broken").unlink()
    with pytest.raises(CredentialsError, match="no session"):  # not a process for every request
        await credentials.current()
    clock.seconds += 60
    with pytest.raises(CredentialsError, match="expired already"):
        await credentials.current()


async def test_a_plugin_that_gives_a_certificate_changes_the_connection(
    watched: Watched, counting: Callable[..., Plugin], clock: ManualClock
) -> None:
    """The certificate is part of the TLS material, so the sessions are made anew."""
    credentials = watched(Files(Identity(TLS, None, counting(certificate=True))))
    first = await credentials.current()
    assert first.token is None
    assert first.tls.certificate == Pem(b"token-1")
    clock.seconds += 11
    assert (await credentials.refresh(first)).tls.certificate == Pem(b"token-2")


async def test_another_plugin_in_the_kubeconfig_is_run(
    watched: Watched, counting: Callable[..., Plugin], clock: ManualClock
) -> None:
    """An edited kubeconfig is taken over without a restart."""
    files = Files(Identity(TLS, None, counting()))
    credentials = watched(files)
    await credentials.current()
    files.identity = Identity(TLS, None, counting(600.0))
    clock.seconds += REREAD_SECONDS
    assert (await credentials.current()).token == "token-2"
    files.identity = Identity(TLS, "plain")
    clock.seconds += REREAD_SECONDS
    assert (await credentials.current()).token == "plain"


async def test_a_caller_without_patience_does_not_end_the_renewal(watched: Watched, tmp_path: Path) -> None:
    """A slow plugin finishes for those who can wait, though the one who asked first gave up."""
    code = f"""
import os, sys, time
os.chdir({str(tmp_path)!r})
open("started", "a").write("x")
while not os.path.exists("go"): time.sleep(0.01)
print({exec_credential(token="slow")!r})
"""
    plugin = Plugin((sys.executable, "-S", "-c", code), "client.authentication.k8s.io/v1", (), "{}", "")
    credentials = watched(Files(Identity(TLS, None, plugin)))
    loop = asyncio.get_running_loop()
    hasty, patient = loop.create_task(credentials.current()), loop.create_task(credentials.current())
    await until((tmp_path / "started").exists)
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    (tmp_path / "go").touch()
    assert (await patient).token == "slow"
    assert (tmp_path / "started").read_text() == "x"
