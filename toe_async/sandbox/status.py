"""What the API server answers when it says no: `Status` bodies with the real server's codes, reasons and words.

Every refusal of the sandbox is a `Refusal`; the HTTP layer turns it into its body and nothing else does.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

JsonObject = dict[str, Any]
"""One decoded JSON object; the sandbox keeps whole objects, as the real server does."""


class Cause(Struct, frozen=True):
    """One field that made an object invalid."""

    reason: str
    message: str
    field: str


class Refusal(Exception):  # noqa: N818 a refusal is a normal answer
    """A request that is refused, with everything that its `Status` body says."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: JsonObject | None = None,
        *,
        extra: JsonObject | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.extra_metadata = extra or {}

    def body(self) -> JsonObject:
        """The `Status` object; keys come in the real server's order."""
        status: JsonObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.extra_metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def qualified(group: str, name: str) -> str:
    """How messages name a resource or kind: `name.group`, the bare name in the core group."""
    return f"{name}.{group}" if group else name


def _details(group: str, kind: str, name: str) -> JsonObject:
    details = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in details.items() if value}


def not_found(group: str, plural: str, name: str) -> Refusal:
    """404 for an object that does not exist."""
    return Refusal(404, "NotFound", f'{qualified(group, plural)} "{name}" not found', _details(group, plural, name))


def no_such_path() -> Refusal:
    """404 for a path that serves nothing."""
    return Refusal(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(group: str, plural: str, name: str) -> Refusal:
    """409 for a create of what is there."""
    message = f'{qualified(group, plural)} "{name}" already exists'
    return Refusal(409, "AlreadyExists", message, _details(group, plural, name))


def conflict(group: str, kind: str, name: str, why: str) -> Refusal:
    """409 for a write that rests on a state which is not the present one."""
    message = f'Operation cannot be fulfilled on {qualified(group, kind)} "{name}": {why}'
    return Refusal(409, "Conflict", message, _details(group, kind, name))


def modified(group: str, plural: str, name: str) -> Refusal:
    """409 for a stale resourceVersion."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(group, plural, name, why)


def invalid(group: str, kind: str, name: str, causes: Iterable[Cause]) -> Refusal:
    """422 with one cause per field."""
    held = list(causes)
    said = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in held))
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    details = _details(group, kind, name)
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in held]
    return Refusal(422, "Invalid", f'{qualified(group, kind)} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> Refusal:
    """400 for a request that cannot be understood."""
    return Refusal(400, "BadRequest", message)


def unauthorized() -> Refusal:
    """401: the credential is not one of ours."""
    return Refusal(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, plural: str, name: str, why: str) -> Refusal:
    """403 for a request on a resource."""
    named = f'{qualified(group, plural)} "{name}"' if name else qualified(group, plural)
    return Refusal(403, "Forbidden", f"{named} is forbidden: {why}", _details(group, plural, name))


def forbidden_path(user: str, verb: str, path: str) -> Refusal:
    """403 for a request on a path that is no resource."""
    return Refusal(403, "Forbidden", f'forbidden: User "{user}" cannot {verb} path "{path}"', {})


def expired(message: str, continue_token: str = "") -> Refusal:
    """410: the history that the request asks for has been compacted."""
    return Refusal(410, "Expired", message, extra={"continue": continue_token} if continue_token else None)


def method_not_allowed() -> Refusal:
    """405 for a verb that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return Refusal(405, "MethodNotAllowed", message, {})


def too_large_version(asked: int, current: int) -> Refusal:
    """504 for a resourceVersion that lies in the future."""
    details: JsonObject = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return Refusal(504, "Timeout", message, details)
