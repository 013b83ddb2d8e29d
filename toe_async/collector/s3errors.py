"""The one place where S3's answers become the store's errors.

The log gets a sentence of ours with the place, the status, an error code of known shape and what a person can do. A
client gets the refusal of the class, which names neither the bucket nor anything that the server said.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from toe_async.apis.reasons import Reason
from toe_async.collector.errors import Refused, StoreError, StoreFull
from toe_async.sinks.errors import Absent, Denied, SinkError, SinkUnavailable, Taken

_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_CREDENTIALS = "the store does not accept the access key; look at the workload identity or the credentials file"
ADVICE: Mapping[str, str] = {
    "AccessDenied": (
        "look at the key, and grant it PutObject, GetObject, DeleteObject and AbortMultipartUpload on the prefix and "
        "ListBucket"
    ),
    "NoSuchBucket": "make the bucket, or correct the store's URL",
    "PermanentRedirect": "the bucket is in another region; add region= to the store's URL",
    "TemporaryRedirect": "the bucket is in another region; add region= to the store's URL",
    "AuthorizationHeaderMalformed": "the bucket is in another region; add region= to the store's URL",
    "RequestTimeTooSkewed": "the clocks of the collector's node and of the store differ",
    "NotImplemented": "the store knows no If-None-Match or If-Match, without which an artifact could be overwritten",
    "SlowDown": "the store is overloaded",
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
        _CREDENTIALS,
    ),
}


class StoreAway(StoreError):  # noqa: N818 -- it names the state of the store
    """The object store is not reached, or does not let us in. What was staged stays; trying again may help."""

    def refusal(self) -> Refused:
        return Refused(
            503, "StoreUnavailable", "the store behind the collector cannot be reached; try again", retry_after=10
        )


@contextmanager
def store_errors() -> Iterator[None]:
    """Let nothing through but StoreError."""
    try:
        yield
    except Taken as error:
        raise StoreError("the object store contradicts itself about what it holds") from error
    except Absent as error:
        raise StoreError("the object store does not know what it was told before") from error
    except SinkError as error:
        raise mapped(error) from error


def mapped(error: SinkError) -> StoreError:
    """The store's word for a request that failed."""
    if isinstance(error, SinkUnavailable):
        if error.reason == Reason.STORE_FULL or (isinstance(error, Denied) and error.code in _FULL_CODES):
            return StoreFull(str(error))
        if error.reason == Reason.CREDENTIALS_MISSING:
            return StoreAway(
                "the collector has no S3 identity; give its service account a workload identity or mount a shared "
                "credentials file"
            )
        return StoreAway(str(error))
    return StoreError(str(error))
