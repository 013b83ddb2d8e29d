"""Keeps the CA of our certificate in the APIService by which the API server reaches us.

The manifest cannot carry it: certificates are made after it was written and renewed behind its back. Only `caBundle` is
written, only when it differs; the rest of the registration is the administrator's.
"""

import asyncio
import base64
from pathlib import Path

import msgspec

from toe_async.apis.kinds import API_SERVICES, ARTIFACTS
from toe_async.apis.meta import Wire, encode
from toe_async.kube import requests
from toe_async.kube.errors import KubeError, NotFound
from toe_async.kube.sender import Sender
from toe_async.telemetry import log

_NAME = ARTIFACTS.api_service
_LOOK_SECONDS = 60.0
_LARGEST_CA = 1 << 20
_log = log.get("collector.registration")


class _Spec(Wire, frozen=True):
    ca_bundle: str = ""


class _ApiService(Wire, frozen=True):
    spec: _Spec = _Spec()


class Registration:
    """Follows one CA file. `trouble` says why the API server may not trust us, or None."""

    def __init__(self, client: Sender, ca: Path) -> None:
        self._client, self._ca = client, ca
        self.trouble: str | None = None

    async def keep(self) -> None:
        """Look at file and registration every minute, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Enter the CA if another one, or none, is there; never raises."""
        try:
            wanted = base64.b64encode(await asyncio.to_thread(self._read)).decode()
            raw = await self._client.send(requests.get(API_SERVICES, None, _NAME))
            if msgspec.json.decode(raw, type=_ApiService).spec.ca_bundle != wanted:
                body = encode({"spec": {"caBundle": wanted}})
                await self._client.send(
                    requests.merge_patch(API_SERVICES, None, _NAME, body, field_manager="toe-collector")
                )
                _log.info("the CA is entered", apiservice=_NAME)
            self.trouble = None
        except NotFound:
            self._failed(f"APIService {_NAME} does not exist; apply deploy/program for `kubectl get artifacts`")
        except (KubeError, msgspec.MsgspecError) as failed:
            self._failed(f"the CA cannot be entered into APIService {_NAME}: {str(failed)[:300]}")
        except (OSError, ValueError) as failed:
            self._failed(f"{self._ca} holds no CA certificate ({failed}); it is ca.crt of Secret toe-collector-tls")

    def _failed(self, why: str) -> None:
        if why != self.trouble:
            _log.warning("kubectl get artifacts may not work", why=why)
        self.trouble = why

    def _read(self) -> bytes:
        with self._ca.open("rb") as file:
            content = file.read(_LARGEST_CA)
        if b"-----BEGIN CERTIFICATE-----" not in content:
            raise ValueError("no PEM certificate in it")
        return content
