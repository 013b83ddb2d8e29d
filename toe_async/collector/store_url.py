"""Where artifacts are kept besides the root's own disk, as one URL. Pure.

`s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&addressing=auto|path|virtual&checksum=auto|required-only&http=allow]`.
Without an endpoint it is AWS's own. Keys never stand in the URL: it is in manifests and process lists.
"""

import re
from typing import Literal, TypeVar, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from toe_async.collector.errors import SettingsError
from toe_async.sinks.allow import Allowed, Checksum
from toe_async.sinks.endpoints import Endpoint, parse_endpoint

T = TypeVar("T")
Addressing = Literal["auto", "path", "virtual"]
"""Where the bucket's name goes: into the host, into the path, or as the place usually wants it."""

_EXAMPLE = "write it like s3://bucket/prefix?endpoint=https://s3.example.org:9000&region=eu-central-1"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # never an ARN: it would choose another host
_REGION = re.compile(r"[a-z0-9-]{1,32}")  # becomes part of a host name
_PREFIX = re.compile(r"[A-Za-z0-9!_.()=@+-]+")
_ADDRESSING: tuple[Addressing, ...] = get_args(Addressing)
_CHECKSUMS: tuple[Checksum, ...] = get_args(Checksum)
# An S3 key has at most 1,024 bytes; the longest path of an artifact below its prefix stays under 800.
_LONGEST_PREFIX = 200


class S3Place(Struct, frozen=True, kw_only=True):
    """A part of a bucket. `prefix` has no slash at either end; `endpoint` is None for AWS's own."""

    bucket: str
    prefix: str = ""
    endpoint: Endpoint | None = None
    region: str = ""
    addressing: Addressing = "auto"
    checksum: Checksum = "auto"

    def __str__(self) -> str:
        where = self.endpoint.url if self.endpoint else "AWS"
        return f"s3://{'/'.join(part for part in (self.bucket, self.prefix) if part)} at {where}"

    def allowed(self) -> Allowed:
        """The place as a sink that the administrator listed."""
        return Allowed(self.endpoint, self.region, self.checksum, use_operator_identity=True)

    def key(self, *segments: str) -> str:
        """The key of an object below the prefix."""
        return "/".join((*filter(None, (self.prefix,)), *segments))


def parse_store_url(text: str) -> S3Place:
    """Read the URL of a store.

    Raises:
        SettingsError: it is none; one sentence with the way out, which repeats nothing that could be a key.
    """
    try:
        parts = urlsplit(text)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=16)
    except ValueError as bad:
        raise _bad("it is no URL") from bad
    if parts.scheme != "s3":
        raise _bad("only s3:// is known")
    if "@" in parts.netloc:
        raise _bad("it holds user information; keys come from a workload identity or a mounted credentials file")
    if not _BUCKET.fullmatch(parts.netloc) or ".." in parts.netloc:
        raise _bad("its bucket is no bucket's name: 3 to 63 of a-z, 0-9, dot and hyphen")
    if "#" in text or not text.isprintable():
        raise _bad("it holds characters that no store has")
    return _place(parts.netloc, _prefix(unquote(parts.path)), _options(pairs))


def _options(pairs: list[tuple[str, str]]) -> dict[str, str]:
    options = dict(pairs)
    known = {"endpoint", "region", "addressing", "checksum", "http"}
    unknown = sorted(options.keys() - known)
    if unknown:
        # A key's name would be fine to repeat, but whoever puts a secret here may have swapped name and value.
        raise _bad(f"it has an unknown option; known are {', '.join(sorted(known))}")
    if len(options) != len(pairs):
        raise _bad("it has an option twice")
    return options


def _place(bucket: str, prefix: str, options: dict[str, str]) -> S3Place:
    addressing = _one_of("addressing", options, _ADDRESSING)
    checksum = _one_of("checksum", options, _CHECKSUMS)
    _one_of("http", options, ("allow",))
    region = options.get("region", "")
    if region and not _REGION.fullmatch(region):
        raise _bad("region is no region's name")
    endpoint = None
    if options.get("endpoint"):
        try:
            endpoint = parse_endpoint(options["endpoint"])
        except ValueError as bad:
            raise _bad(str(bad)) from bad
        if endpoint.scheme == "http" and "http" not in options:
            raise _bad("its endpoint is not encrypted; use https://, or add http=allow where that is meant")
    return S3Place(
        bucket=bucket,
        prefix=prefix,
        endpoint=endpoint,
        region=region,
        addressing=addressing,
        checksum=checksum,
    )


def _one_of(name: str, options: dict[str, str], allowed: tuple[T, ...]) -> T:
    """The option's value, or the first one allowed when it is not given."""
    for value in allowed:
        if options.get(name, allowed[0]) == value:
            return value
    raise _bad(f"{name} must be {' or '.join(map(str, allowed))}")


def _prefix(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    prefix = "/".join(parts)
    if any(part in {".", "..", ".toe"} or not _PREFIX.fullmatch(part) for part in parts):
        raise _bad("its prefix may have letters, digits and !_.()=@+- between slashes, and no part that is . or ..")
    if len(prefix) > _LONGEST_PREFIX:
        raise _bad(f"its prefix is longer than {_LONGEST_PREFIX} characters")
    return prefix


def _bad(why: str) -> SettingsError:
    return SettingsError(f"the store's URL cannot be used: {why}; {_EXAMPLE}")
