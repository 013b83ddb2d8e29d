"""Errors and confirmations as `metav1.Status`, which is what every Kubernetes client prints and decides by.

`reason` is the API's own word for a status code, so that clients that look for it find it; the collector's more exact
word, where there is one, is the cause in `details`.
"""

from typing import Any

from aiohttp import web

from toe_async.apis.kinds import ARTIFACTS
from toe_async.collector import replies
from toe_async.collector.errors import Refused

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    408: "Timeout",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Invalid(Refused):
    """422: one field of what was sent cannot be so; the message names it."""

    def __init__(self, name: str, field: str, why: str, cause: str = "FieldValueInvalid") -> None:
        super().__init__(422, "Invalid", f'{ARTIFACTS.kind}.{ARTIFACTS.group} "{name}" is invalid: {field}: {why}')
        self.field, self.why, self.cause = field, why, cause


def not_found(name: str) -> Refused:
    """404 in the words that kubectl's users know."""
    return Refused(404, "NotFound", f'{ARTIFACTS.crd_name} "{name}" not found')


def forbidden(user: str, verb: str, namespace: str, name: str, subresource: str) -> Refused:
    """403 in the words that kubectl's users know: who, what, where."""
    resource = f"{ARTIFACTS.plural}/{subresource}" if subresource else ARTIFACTS.plural
    named = f' "{name}"' if name else ""
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    return Refused(
        403,
        "Forbidden",
        f'{ARTIFACTS.crd_name}{named} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API '
        f'group "{ARTIFACTS.group}" {where}',
    )


def conflict(name: str, why: str) -> Refused:
    """409: the object is not as the request supposes."""
    return Refused(409, "Conflict", f'Operation cannot be fulfilled on {ARTIFACTS.crd_name} "{name}": {why}')


def failure(refused: Refused, name: str = "") -> dict[str, Any]:
    """The Status of a refusal."""
    reason = _REASONS.get(refused.status, refused.reason)
    kind = ARTIFACTS.kind if isinstance(refused, Invalid) else ARTIFACTS.plural
    details: dict[str, Any] = {"name": name} if name else {}
    details |= {"group": ARTIFACTS.group, "kind": kind}
    if isinstance(refused, Invalid):
        details["causes"] = [{"reason": refused.cause, "message": refused.why, "field": refused.field}]
    elif refused.reason != reason:
        details["causes"] = [{"reason": refused.reason, "message": refused.message}]
    if refused.retry_after is not None:
        details["retryAfterSeconds"] = refused.retry_after
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": refused.message,
        "reason": reason,
        "details": details,
        "code": refused.status,
    }


def success(name: str, uid: str) -> dict[str, Any]:
    """The Status of a deletion that is done; of many, `name` and `uid` are empty."""
    details = {"name": name, "group": ARTIFACTS.group, "kind": ARTIFACTS.plural, "uid": uid}
    details = {key: value for key, value in details.items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def refusal(refused: Refused, name: str = "") -> web.Response:
    """Answer with an error."""
    return replies.refusal(refused, failure(refused, name))
