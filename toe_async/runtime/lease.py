"""Who may lead, decided from what a Lease says; `runtime.leader` reads and writes it.

The rules are client-go's. The times that are written into a Lease are for people only: whether a lease has run out is
judged by how long *our own* monotonic clock has seen it unchanged, so clocks that differ between machines do no harm;
only their rates must agree to within a third. Pure.
"""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from toe_async.apis.core import LeaseSpec, decode_lease
from toe_async.apis.kinds import LEASES
from toe_async.lib.clock import rfc3339

LEASE_SECONDS: Final = 15.0
RENEW_DEADLINE: Final = 10.0
RETRY_PERIOD: Final = 2.0


class Observed(Struct, frozen=True):
    """A Lease as it was last read, and since when (monotonic seconds) its content has been the same.

    `document` is the whole object: it is written back with nothing but our fields changed.
    """

    document: dict[str, Any]
    spec: LeaseSpec
    since: float


class Create(Struct, frozen=True):
    """There is no Lease: make it."""


class Take(Struct, frozen=True):
    """Nobody holds it, or the holder has been silent for too long."""

    transitions: int


class Renew(Struct, frozen=True):
    """It is ours."""


class Wait(Struct, frozen=True):
    """Somebody else holds it; `seconds` until it would run out if nothing were heard."""

    holder: str
    seconds: float


Step = Create | Take | Renew | Wait


def observe(raw: bytes, before: Observed | None, now: float) -> Observed:
    """What was read, dated back when nothing has changed since. Raises msgspec.DecodeError."""
    spec = decode_lease(raw).spec
    unchanged = before is not None and before.spec == spec
    document: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
    return Observed(document, spec, before.since if before is not None and unchanged else now)


def decide(seen: Observed | None, identity: str, now: float) -> Step:
    """The next step of a candidate who calls itself `identity`."""
    if seen is None:
        return Create()
    spec = seen.spec
    if spec.holder_identity == identity:
        return Renew()
    left = seen.since + spec.lease_duration_seconds - now
    if spec.holder_identity and left > 0:
        return Wait(spec.holder_identity, left)
    # client-go counts a change of hands also when a lease was given up, as this one may have been.
    return Take(spec.lease_transitions + 1)


def fresh(namespace: str, name: str) -> Observed:
    """A Lease that does not exist yet."""
    metadata = {"namespace": namespace, "name": name}
    return Observed({"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}, LeaseSpec(), 0.0)


def held(seen: Observed, identity: str, wall: datetime, step: Create | Take | Renew) -> dict[str, Any]:
    """The whole Lease to write so that `identity` holds it; fields of others are kept as they were read."""
    document, spec = seen.document, seen.spec
    moment = rfc3339(wall, micro=True)
    kept = isinstance(step, Renew) and spec.acquire_time is not None
    ours = {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(LEASE_SECONDS),
        "acquireTime": rfc3339(spec.acquire_time, micro=True) if kept and spec.acquire_time else moment,
        "renewTime": moment,
        "leaseTransitions": step.transitions if isinstance(step, Take) else spec.lease_transitions,
    }
    return {**document, "spec": {**(document.get("spec") or {}), **ours}}


def given_up(seen: Observed, wall: datetime) -> dict[str, Any]:
    """The whole Lease to write so that the next candidate need not wait."""
    moment = rfc3339(wall, micro=True)
    ours = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": moment, "renewTime": moment}
    return {**seen.document, "spec": {**(seen.document.get("spec") or {}), **ours}}
