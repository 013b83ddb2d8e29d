"""What botocore raises, as what to do next. Only the status and a known-shaped error code are ever told: a server could
put what it was sent into its messages.
"""

import re
from collections.abc import Mapping

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    PartialCredentialsError,
    SSLError,
)

from toe_async.apis.reasons import Reason
from toe_async.sinks.errors import Absent, Denied, Passing, SinkUnavailable, Taken
from toe_async.sinks.s3client import ForbiddenAddress, Redirected

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_LONGEST_CHAIN = 8
CREDENTIAL_CODES = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "AuthorizationHeaderMalformed",
    }
)
ADVICE: Mapping[str, str] = {
    "AccessDenied": "grant PutObject, GetObject and AbortMultipartUpload on the prefix",
    "NoSuchBucket": "make the bucket, or correct spec.s3Config.bucket",
    "PermanentRedirect": "the bucket is in another region; set spec.s3Config.region",
    "TemporaryRedirect": "the bucket is in another region; set spec.s3Config.region",
    "RequestTimeTooSkewed": "the clocks of the operator's node and of the store differ",
    "NotImplemented": "the store knows no If-None-Match, without which a profile could be overwritten",
    **dict.fromkeys(CREDENTIAL_CODES, "the store does not accept the access key"),
}


def code_of(error: ClientError) -> tuple[int, str]:
    """Return the status and the error code, an empty one when it has no code's shape (HEAD has no body at all)."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    return status, code if _CODE.fullmatch(code) and not code.isdigit() else ""


def translate(error: Exception, where: str, advice: Mapping[str, str] = ADVICE) -> Exception:
    """Return what to raise instead; what is none of botocore's comes back as it is.

    `advice` is what a person can do about an error code; that of AccessDenied goes with every 403.
    """
    if isinstance(error, ClientError):
        return _answered(error, where, advice)
    if isinstance(error, PartialCredentialsError | CredentialRetrievalError):
        return SinkUnavailable(
            f"{where}: the operator's own S3 identity cannot be had ({type(error).__name__})",
            reason=Reason.CREDENTIALS_MISSING,
        )
    if isinstance(error, HTTPClientError | SSLError):
        for cause in _causes(error):
            if isinstance(cause, Redirected):
                return SinkUnavailable(f"{where}: the endpoint redirects elsewhere, which is never followed")
            if isinstance(cause, ForbiddenAddress):
                return SinkUnavailable(f"{where}: the endpoint's name leads to a link-local or metadata address")
    if isinstance(error, SSLError):
        return SinkUnavailable(f"{where}: the endpoint's certificate is not trusted or TLS fails")
    if isinstance(error, BotoCoreError):
        return Passing(f"{where}: no answer ({type(error).__name__})")
    if isinstance(error, TimeoutError):
        return Passing(f"{where}: no answer in time")
    return error


def _answered(error: ClientError, where: str, advice: Mapping[str, str]) -> Exception:
    status, code = code_of(error)
    if status == 412 or code == "PreconditionFailed":
        return Taken()
    if status == 404 and code in {"", "NoSuchKey", "NotFound", "NoSuchUpload"}:
        return Absent()
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    wait = str(headers.get("retry-after", ""))
    retry_after = float(wait) if wait.isdecimal() and len(wait) < 6 else None
    way_out = advice.get(code) or (advice["AccessDenied"] if status == 403 else "")
    message = f"{where}: the store answers {status} {code}".rstrip() + (f"; {way_out}" if way_out else "")
    if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout"}:
        reason = Reason.STORE_FULL if status == 507 else Reason.UPLOAD_RETRYING
        return Passing(message, reason=reason, retry_after=retry_after)
    if status == 403:
        return Denied(message, code=code, retry_after=retry_after)
    return SinkUnavailable(message, retry_after=retry_after, sink_wide=status == 401 or code == "NoSuchBucket")


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < _LONGEST_CHAIN:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain
