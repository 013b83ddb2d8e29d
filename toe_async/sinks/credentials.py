"""Whose S3 identity is used, and where it comes from. Nothing here is ever logged, shown or kept on disk.

The operator's own identity follows botocore's chain with workload identity in front: a web identity token (IRSA), then
a container endpoint (Pod Identity, ECS), then the rest. The metadata service of the machine is left out, because it
would lend the operator the node's rights; `AWS_EC2_METADATA_DISABLED=false` says that this is meant.

An author's identity is a Secret in the author's namespace, read for each delivery and forgotten after it.
"""

import asyncio
import os
from collections.abc import Coroutine
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from toe_async.apis.core import decode_secret
from toe_async.apis.kinds import SECRETS
from toe_async.apis.reasons import Reason
from toe_async.kube import requests
from toe_async.kube.errors import Forbidden, KubeError, NotFound
from toe_async.kube.sender import Sender
from toe_async.sinks.errors import SinkUnavailable
from toe_async.sinks.uninterrupted import in_thread

if TYPE_CHECKING:
    from aiobotocore.session import AioSession
    from botocore.loaders import Loader

T = TypeVar("T")

_SOURCE_SECONDS = 20.0  # for a metadata endpoint or STS to answer
_WORKLOAD = ("container-role", "assume-role-with-web-identity")  # each is put in front, so the last one comes first
_MACHINE = "iam-role"


class Keys(Struct, frozen=True):
    """An access key. Its text form holds nothing of it."""

    access_key: str
    secret_key: str
    token: str | None

    def __repr__(self) -> str:
        return "Keys(...)"


async def keys_in_secret(client: Sender, namespace: str, name: str) -> Keys:
    """Read an author's key.

    Raises:
        SinkUnavailable: the Secret or a key of it is missing, or we may not read it; the message says what to do.
    """
    where = f"Secret {namespace}/{name}"
    try:
        data = decode_secret(await client.send(requests.get(SECRETS, namespace, name))).data
        found = {key: value.decode("ascii").strip() for key, value in data.items() if key.startswith("AWS_")}
    except NotFound as error:
        raise _missing(f"{where} does not exist; spec.s3Config.credentialsSecret names it") from error
    except Forbidden as error:
        raise _missing(
            f"the operator may not read {where}; bind a Role with get on this Secret to its service account"
        ) from error
    except KubeError as error:
        raise SinkUnavailable(f"{where} could not be read from the API server", sink_wide=False) from error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The decoder's error may quote what it could not read, so it is not chained.
        raise _missing(f"{where} holds something that is no key") from None
    absent = [key for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not found.get(key)]
    if absent:
        raise _missing(f"{where} has no {' and no '.join(absent)}")
    return Keys(found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"], found.get("AWS_SESSION_TOKEN") or None)


def _missing(message: str) -> SinkUnavailable:
    return SinkUnavailable(message, reason=Reason.CREDENTIALS_MISSING)


class OperatorIdentity:
    """The operator's own credentials, found when first needed and refreshed by botocore before they end.

    botocore reads files and asks services in the loop it runs on, so it gets a loop of its own in a thread.
    """

    def __init__(self) -> None:
        self._session: AioSession | None = None
        self._lock = asyncio.Lock()

    async def session(self) -> "AioSession":
        """Return the session that clients are made with."""
        if self._session is None:
            self._session = await in_thread(_new_session)
        return self._session

    async def keys(self) -> Keys:
        """Return credentials that are good for ten minutes at least.

        Raises:
            SinkUnavailable: there are none.
            botocore's errors: a source that is configured does not give them.
        """
        async with self._lock:
            session = await self.session()
            found = await _aside(session.get_credentials())
            if found is None:
                raise _missing(
                    "the operator has no S3 identity; give its service account a workload identity or mount a "
                    "credentials file, or name a credentialsSecret"
                )
            frozen = await _aside(found.get_frozen_credentials())
        return Keys(frozen.access_key, frozen.secret_key, frozen.token or None)

    def forget(self) -> None:
        """Look for the credentials anew at the next use: a mounted file may have been rotated."""
        self._session = None


async def _aside(work: Coroutine[Any, Any, T]) -> T:
    """Run botocore's work on a loop of its own in a thread."""
    return await in_thread(partial(asyncio.run, asyncio.wait_for(work, _SOURCE_SECONDS)))


@cache
def _models() -> "Loader":
    """The service descriptions, which are files of botocore's package: read once, however many sessions there are."""
    from botocore.loaders import Loader

    return Loader()


def _new_session() -> "AioSession":
    from aiobotocore.session import AioSession

    session = AioSession()
    session.register_component("data_loader", _models())
    chain = session.get_component("credential_provider")
    for name in _WORKLOAD:
        provider = chain.get_provider(name)
        chain.remove(name)
        chain.insert_before(chain.providers[0].METHOD, provider)
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "false":
        chain.remove(_MACHINE)
    return session
