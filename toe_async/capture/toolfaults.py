"""Why an attempt failed: one word, one sentence, and whether a second attempt may fare better. Pure."""

import re
from typing import Final

from msgspec import Struct

from toe_async.apis.reasons import Reason
from toe_async.kube.errors import ApiError, Forbidden, Invalid, KubeError, NotFound, Unauthorized, clip

_LONGEST: Final = 400
_POD_SECURITY: Final = re.compile(r"violates PodSecurity")
_RBAC: Final = re.compile(r'cannot \w+ resource "')


class Fault(Struct, frozen=True):
    """A failure as the status tells it."""

    reason: Reason
    message: str
    passing: bool = False


class ToolFault(Exception):  # noqa: N818 -- it carries one
    """The attempt ends here."""

    def __init__(self, reason: Reason, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.fault = Fault(reason, clip(message, _LONGEST), passing)


def of_injection(error: KubeError, where: str, subresource: str) -> ToolFault:
    """What a refused container or pod means. `subresource` is what the operator needs the right to."""
    words = clip(error.message if isinstance(error, ApiError) else str(error), _LONGEST)
    match error:
        case Forbidden() if _POD_SECURITY.search(error.message):
            return ToolFault(Reason.POD_SECURITY_DENIED, f"{where}: {words}")
        case Forbidden() if _RBAC.search(error.message):
            forbidden = Reason.EPHEMERAL_CONTAINERS_FORBIDDEN if "ephemeral" in subresource else Reason.NOT_AUTHORIZED
            return ToolFault(forbidden, f"{where}: the operator needs a right to {subresource}: {words}")
        case Forbidden() | Unauthorized():
            return ToolFault(Reason.NOT_AUTHORIZED, f"{where}: {words}")
        case Invalid():
            return ToolFault(Reason.INVALID_SPEC, f"{where}: the API server refuses the tool's container: {words}")
        case NotFound():
            return ToolFault(
                Reason.EPHEMERAL_CONTAINERS_FORBIDDEN, f"{where}: {subresource} is not served here: {words}"
            )
        case _:
            return ToolFault(Reason.NOT_STARTED, f"{where}: the tool's container was not taken: {words}", passing=True)


def of_api(error: KubeError, where: str) -> ToolFault:
    """What it means that a pod cannot be read."""
    if isinstance(error, Forbidden | Unauthorized):
        return ToolFault(Reason.NOT_AUTHORIZED, f"{where} may not be read: {error}")
    return ToolFault(Reason.NOT_STARTED, f"{where} could not be read: {error}", passing=True)
