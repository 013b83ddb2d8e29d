"""What the API server and the collector refuse with, as sentences that name the way out."""

from toe_async.apis.kinds import ARTIFACTS, Kind
from toe_async.collector.errors import Refused
from toe_async.kube.errors import (
    ApiError,
    ConfigurationError,
    CredentialsError,
    KubeError,
    NotFound,
    TransportError,
    Unauthorized,
    UntrustedServer,
)


def refused(error: KubeError, kind: Kind = ARTIFACTS) -> Refused:
    """The refusal that a failed request stands for; its status is what exit codes are made of (exits.code_of)."""
    match error:
        case NotFound(reason="Unknown") if kind is not ARTIFACTS:
            return Refused(
                404, "NotServed", f"this cluster does not know {kind.crd_name}; install the CRDs, or choose --context"
            )
        case NotFound(reason="Unknown"):  # plain text: nothing below the group is known to the API server
            return Refused(
                404,
                "NotServed",
                f"the collector's API is not registered here: there is no APIService {ARTIFACTS.api_service}; "
                "deploy the collector, or choose another --context",
            )
        case ApiError(status=502 | 503 | 504, reason="Unknown") if (
            kind is ARTIFACTS
        ):  # not the collector's words, hence the way to it
            return Refused(
                503,
                "Unavailable",
                "the API server cannot reach the collector; "
                f"`kubectl get apiservice {ARTIFACTS.api_service}` and the collector's pod tell why",
            )
        case Unauthorized():
            return Refused(401, error.reason, f"the API server does not accept the kubeconfig's user: {error.message}")
        case ApiError():
            return Refused(error.status, error.reason, error.message)
        case CredentialsError():
            return Refused(401, "NoCredentials", str(error))
        case ConfigurationError():
            return Refused(400, "BadKubeconfig", str(error))
        case UntrustedServer():
            return Refused(502, "UntrustedServer", str(error))
        case TransportError() if isinstance(error.__cause__, TimeoutError):
            return Refused(504, "TimedOut", str(error))
        case TransportError():
            return Refused(503, "Unreachable", str(error))
    return Refused(502, "UnexpectedAnswer", str(error))


def unexpected(what: str) -> Refused:
    """An answer that no collector gives."""
    return Refused(502, "UnexpectedAnswer", f"{what}; is that the collector, or a proxy before it?")
