"""Bearer tokens: service account tokens as signed JWTs with the real claims, and the administrator's own.

A token is believed only while everything that it names still exists under the same UID: its service account and the
Secret or Pod that it is bound to. The real server's authenticator remembers its answer for about ten seconds after such
an object is gone; here the end is at once.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct, field

from toe_async.lib.clock import Clock
from toe_async.sandbox.rbac import MASTERS, User
from toe_async.sandbox.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Resource
from toe_async.sandbox.status import Cause, JsonObject, bad_request, conflict, invalid, not_found
from toe_async.sandbox.store import Item, Key, Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Issuer, and the audience of tokens that are meant for the API server itself."""

_BOUND_KINDS = {("v1", "Secret"): SECRETS, ("v1", "Pod"): PODS, ("v1", "Node"): NODES}
_SHORTEST = 600
_LONGEST = 1 << 32
_ADMIN_UID = "00000000-0000-4000-8000-000000000001"


class _Named(Struct, frozen=True):
    name: str
    uid: str


class _Kubernetes(Struct, frozen=True, omit_defaults=True):
    namespace: str
    serviceaccount: _Named
    secret: _Named | None = None
    pod: _Named | None = None
    node: _Named | None = None


class _Claims(Struct, frozen=True):
    aud: list[str]
    exp: int
    iat: int
    iss: str
    jti: str
    nbf: int
    sub: str
    kubernetes: _Kubernetes = field(name="kubernetes.io")


class Rejected(Exception):  # noqa: N818 what a TokenReview reports is no error of ours
    """A token that is not believed; the message is what a TokenReview says about it."""


class Authenticated(Struct, frozen=True):
    """Whose token it is and for which of the asked audiences it is good."""

    user: User
    audiences: tuple[str, ...]


class Tokens:
    """Issues and checks tokens; `admin_token` is the cluster administrator's."""

    def __init__(self, store: Store, clock: Clock, secret: bytes, new_uid: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._secret = secret
        self._new_uid = new_uid
        self.admin_token = hmac.new(secret, b"admin", hashlib.sha256).hexdigest()

    def issue(self, namespace: str, name: str, spec: JsonObject) -> JsonObject:
        """Answer a TokenRequest; returns its complete spec and status. Raises Refusal."""
        account = self._store.get(SERVICE_ACCOUNTS, Key(namespace, name))
        if account is None:
            raise not_found("", "serviceaccounts", name)
        seconds = spec.get("expirationSeconds") or 3600
        if not _SHORTEST <= seconds < _LONGEST:
            limit = "less than 10 minutes" if seconds < _SHORTEST else "larger than 2^32 seconds"
            message = f"Invalid value: {seconds}: may not specify a duration {limit}"
            cause = Cause("FieldValueInvalid", message, "spec.expirationSeconds")
            raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])
        audiences = list(spec.get("audiences") or [ISSUER])
        bound = spec.get("boundObjectRef")
        named = {"serviceaccount": _named(account)}
        if bound:
            resource, item = self._bound(namespace, bound)
            named[resource.singular] = _named(item)
            bound = {**bound, "uid": item.obj["metadata"]["uid"]}
        now, held = self._clock.now(), _Kubernetes(namespace=namespace, **named)
        token = self._sign(
            _Claims(
                aud=audiences, iss=ISSUER, jti=self._new_uid(), sub=f"system:serviceaccount:{namespace}:{name}",
                iat=_epoch(now), nbf=_epoch(now), exp=_epoch(now) + seconds, kubernetes=held,
            )
        )  # fmt: skip
        until = (now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        complete = {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound or None}
        return {"spec": complete, "status": {"token": token, "expirationTimestamp": until}}

    def _bound(self, namespace: str, ref: JsonObject) -> tuple[Resource, Item]:
        resource = _BOUND_KINDS.get((ref.get("apiVersion") or "v1", ref.get("kind", "")))
        if resource is None:
            kind = f"{ref.get('apiVersion', '')}, Kind={ref.get('kind', '')}"
            raise bad_request(f"cannot bind token to object of type /{kind}")
        name = ref.get("name", "")
        item = self._store.get(resource, Key(namespace if resource.namespaced else "", name))
        if item is None:
            raise not_found("", resource.plural, name)
        if ref.get("uid") and ref["uid"] != item.obj["metadata"]["uid"]:
            why = (
                f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
            raise conflict("", resource.kind, name, why)
        return resource, item

    def check(self, token: str, audiences: tuple[str, ...] = ()) -> Authenticated:
        """Whose token it is. Without audiences the API server's own is asked for. Raises Rejected."""
        wanted = audiences or (ISSUER,)
        if hmac.compare_digest(token.encode(), self.admin_token.encode()):
            return Authenticated(User("admin", _ADMIN_UID, (MASTERS, "system:authenticated")), wanted)
        claims = self._verify(token)
        fitting = tuple(one for one in wanted if one in claims.aud)
        if not fitting:
            held, asked = (" ".join(f'"{one}"' for one in ones) for ones in (claims.aud, wanted))
            raise Rejected(
                f"[invalid bearer token, token audiences [{held}] is invalid for the target audiences [{asked}]]"
            )
        if _epoch(self._clock.now()) >= claims.exp:
            raise Rejected("[invalid bearer token, service account token has expired]")
        self._require_alive(claims.kubernetes)
        return Authenticated(_user(claims), fitting)

    def _require_alive(self, held: _Kubernetes) -> None:
        bound = [
            (SERVICE_ACCOUNTS, held.namespace, held.serviceaccount),
            (SECRETS, held.namespace, held.secret),
            (PODS, held.namespace, held.pod),
            (NODES, "", held.node),
        ]
        for resource, namespace, named in bound:
            if named is None:
                continue
            item = self._store.get(resource, Key(namespace, named.name))
            if item is None or item.obj["metadata"]["uid"] != named.uid:
                raise Rejected("[invalid bearer token, service account token has been invalidated]")

    def _sign(self, claims: _Claims) -> str:
        body = b".".join(_text(part) for part in (b'{"alg":"HS256"}', msgspec.json.encode(claims)))
        return b".".join((body, _text(hmac.new(self._secret, body, hashlib.sha256).digest()))).decode()

    def _verify(self, token: str) -> _Claims:
        body, _, signature = token.encode("ascii", "replace").rpartition(b".")
        expected = _text(hmac.new(self._secret, body, hashlib.sha256).digest())
        if not hmac.compare_digest(signature, expected):
            raise Rejected("invalid bearer token")
        claims = body.partition(b".")[2]
        return msgspec.json.decode(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)), type=_Claims)


def _named(item: Item) -> _Named:
    return _Named(item.key.name, item.obj["metadata"]["uid"])


def _text(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _epoch(instant: datetime) -> int:
    return int(instant.timestamp())


def _user(claims: _Claims) -> User:
    held = claims.kubernetes
    extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims.jti}"]}
    for kind, named in (("pod", held.pod), ("node", held.node)):
        if named is not None:
            extra[f"authentication.kubernetes.io/{kind}-name"] = [named.name]
            extra[f"authentication.kubernetes.io/{kind}-uid"] = [named.uid]
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{held.namespace}", "system:authenticated")
    return User(claims.sub, held.serviceaccount.uid, groups, extra)
