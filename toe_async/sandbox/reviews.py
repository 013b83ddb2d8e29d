"""TokenReview, SubjectAccessReview and their `self` forms: answered at once and never stored."""

from typing import Any

from toe_async.sandbox.rbac import Attributes, User, authorize
from toe_async.sandbox.resources import ACCESS_REVIEWS, SELF_ACCESS_REVIEWS, SELF_REVIEWS, TOKEN_REVIEWS, Resource
from toe_async.sandbox.status import Cause, JsonObject, bad_request, invalid
from toe_async.sandbox.store import Store
from toe_async.sandbox.tokens import Rejected, Tokens


class Reviews:
    """Answers the review kinds."""

    def __init__(self, store: Store, tokens: Tokens) -> None:
        self._store = store
        self._tokens = tokens

    def answer(self, resource: Resource, body: JsonObject, user: User, now: str) -> JsonObject:
        """The body of the 201. Raises Refusal for a review that asks nothing."""
        spec: JsonObject = body.get("spec") or {}
        head = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}}
        match resource:
            case _ if resource is TOKEN_REVIEWS:
                return {**head, "spec": spec, "status": self._token(spec)}
            case _ if resource is SELF_REVIEWS:
                return {**head, "metadata": {"creationTimestamp": now}, "status": {"userInfo": _info(user)}}
            case _ if resource is SELF_ACCESS_REVIEWS:
                return {**head, "spec": spec, "status": self._access(spec, user)}
            case _:
                asked = User(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()))
                if not asked.name and not asked.groups:
                    message = 'Invalid value: "": at least one of user or group must be specified'
                    cause = Cause("FieldValueInvalid", message, "spec.user")
                    raise invalid(ACCESS_REVIEWS.group, "", "", [cause])
                return {**head, "spec": spec, "status": self._access(spec, asked)}

    def _token(self, spec: JsonObject) -> JsonObject:
        token = spec.get("token")
        if not token:
            raise bad_request("token is required for TokenReview in authentication")
        try:
            found = self._tokens.check(token, tuple(spec.get("audiences") or ()))
        except Rejected as rejected:
            return {"user": {}, "error": str(rejected)}
        return {"authenticated": True, "user": _info(found.user), "audiences": list(found.audiences)}

    def _access(self, spec: JsonObject, user: User) -> JsonObject:
        resource: dict[str, Any] | None = spec.get("resourceAttributes")
        path: dict[str, Any] | None = spec.get("nonResourceAttributes")
        if (resource is None) == (path is None):
            message = (
                "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            )
            cause = Cause("FieldValueInvalid", message, "spec.resourceAttributes")
            raise invalid(ACCESS_REVIEWS.group, "", "", [cause])
        if path is not None:
            want = Attributes(path.get("verb", ""), path=path.get("path", ""))
        else:
            held = resource or {}
            names = ("verb", "group", "resource", "subresource", "namespace", "name")
            want = Attributes(**{name: held.get(name, "") for name in names})
        verdict = authorize(self._store, user, want)
        return {"allowed": verdict.allowed, **({"reason": verdict.reason} if verdict.reason else {})}


def _info(user: User) -> JsonObject:
    info: JsonObject = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = user.extra
    return info
