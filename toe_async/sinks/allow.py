"""Which sinks a ProfilingConfig may name: the administrator's file, and one decision over it. Pure.

The operator's own S3 identity is worth more than any author's, so it goes only where the administrator said: endpoint,
bucket, prefix and namespace must all match one entry. With `credentialsSecret` the author brings a key of their own and
picks bucket and prefix; the endpoint must still be listed, or be AWS's own (D17). Without a file nothing is listed.

```yaml
s3:
- endpoint: https://s3.example.org:9000   # "" is AWS's own, "*" is any (demo and development)
  namespaces: [shop, "team-*"]
  buckets: [profiles]                     # for the operator's identity; none when left out
  prefixes: ["shop/*"]                    # default: any
  region: eu-central-1                    # default for configs that name none
  allowHTTP: false
  checksum: auto                          # or required-only, for stores that refuse newer checksum headers
```
"""

import json
import re
from typing import Literal, Protocol

import msgspec
import yaml
from msgspec import Struct, field

from toe_async.apis.captures import CollectorRef, S3Ref, SinkRef
from toe_async.lib.globs import any_match, check_glob
from toe_async.sinks.endpoints import Endpoint, parse_endpoint
from toe_async.sinks.errors import BadSinksFile
from toe_async.sinks.keys import clean_prefix

Checksum = Literal["auto", "required-only"]

LARGEST_FILE = 1 << 20
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # never an ARN: it would choose another host
_REGION = re.compile(r"[a-z0-9-]{1,32}")  # becomes part of a host name
_AWS_DEFAULT = ""
_ANY = "*"


class S3Entry(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One place that the administrator lists."""

    endpoint: str
    namespaces: tuple[str, ...]
    buckets: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = (_ANY,)
    region: str = ""
    allow_http: bool = field(name="allowHTTP", default=False)
    checksum: Checksum = "auto"


class SinksPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The administrator's file. The default lists nothing."""

    s3: tuple[S3Entry, ...] = ()


class Allowed(Struct, frozen=True):
    """The sink may be used. `endpoint` is None for AWS's default and for the collector."""

    endpoint: Endpoint | None = None
    region: str = ""
    checksum: Checksum = "auto"
    use_operator_identity: bool = False


class Refused(Struct, frozen=True):
    """The sink may not be used; the sentence tells what to change, and the line to add where one would help."""

    message: str


class Allows(Protocol):
    """Decides which sinks may be used: an `AllowList`, or a file that changes."""

    @property
    def collector(self) -> str:
        """URL of the operator's collector."""

    def allow(self, ref: SinkRef, namespace: str) -> Allowed | Refused:
        """Decide for one sink of a config in `namespace`."""


class AllowList(Struct, frozen=True):
    """The one decision: may a config in this namespace use this sink?

    `collector` is the URL of the operator's collector; a CollectorRef must name the same endpoint, in any of the
    spellings of a Service's name.
    """

    policy: SinksPolicy
    collector: str

    def allow(self, ref: SinkRef, namespace: str) -> Allowed | Refused:
        """Decide for one sink of a config in `namespace`."""
        if isinstance(ref, CollectorRef):
            return self._collector(ref)
        return _s3(self.policy, ref, namespace)

    def _collector(self, ref: CollectorRef) -> Allowed | Refused:
        try:
            same = not ref.endpoint or _service(parse_endpoint(ref.endpoint)) == _service(
                parse_endpoint(self.collector)
            )
        except ValueError as error:
            return Refused(f"spec.collector: {error}")
        if same:
            return Allowed()
        return Refused(
            f"spec.collector.endpoint is not the collector of this operator; use {self.collector} or leave it out"
        )


def parse_policy(text: str) -> SinksPolicy:
    """Read the administrator's file; an empty one lists nothing.

    Raises:
        BadSinksFile: not YAML, an unknown key, a wrong type, a broken glob, an endpoint that is none.
    """
    known = ", ".join(
        msgspec.structs.fields(S3Entry)[i].encode_name for i in range(len(msgspec.structs.fields(S3Entry)))
    )
    if len(text) > LARGEST_FILE:
        raise BadSinksFile(f"the sinks file is larger than {LARGEST_FILE} bytes")
    try:
        policy = msgspec.convert(yaml.safe_load(text) or {}, SinksPolicy)
    except yaml.YAMLError as error:
        raise BadSinksFile(f"the sinks file is no YAML: {' '.join(str(error).split())[:200]}") from error
    except msgspec.ValidationError as error:
        raise BadSinksFile(
            f"sinks file: {error}; the file has one key, s3, a list of entries with the keys {known}"
        ) from error
    for index, entry in enumerate(policy.s3):
        try:
            _check(entry)
        except ValueError as error:
            raise BadSinksFile(f"sinks file, s3[{index}]: {error}") from error
    return policy


def _check(entry: S3Entry) -> None:
    for pattern in (*entry.namespaces, *entry.buckets, *entry.prefixes):
        check_glob(pattern)
    if not entry.namespaces:
        raise ValueError('namespaces is empty; list names or globs, ["*"] for any')
    if entry.region and not _REGION.fullmatch(entry.region):
        raise ValueError(f"region {entry.region[:40]!r} is no region name")
    if entry.endpoint not in {_ANY, _AWS_DEFAULT} and (
        parse_endpoint(entry.endpoint).scheme == "http" and not entry.allow_http
    ):
        raise ValueError(
            f"{entry.endpoint} is plain http; say allowHTTP: true if keys and profiles may travel unencrypted"
        )


def _s3(policy: SinksPolicy, ref: S3Ref, namespace: str) -> Allowed | Refused:
    try:
        endpoint = parse_endpoint(ref.endpoint) if ref.endpoint else None
        _check_names(ref)
    except ValueError as error:
        return Refused(f"spec.s3Config: {error}")
    own_key = bool(ref.credentials_secret)
    prefix = clean_prefix(ref.prefix)
    found = [
        entry
        for entry in policy.s3
        if _same_place(entry, endpoint)
        and any_match(entry.namespaces, namespace)
        and (own_key or (any_match(entry.buckets, ref.bucket) and any_match(map(clean_prefix, entry.prefixes), prefix)))
    ]
    plain = endpoint is not None and endpoint.scheme == "http"
    fit = [entry for entry in found if entry.allow_http or not plain]
    if fit:
        return Allowed(endpoint, ref.region or fit[0].region, fit[0].checksum, not own_key)
    if found:
        return Refused(
            "spec.s3Config.endpoint is plain http; use https, or have allowHTTP: true set on its line in the sinks file"
        )
    if own_key and (endpoint is None or endpoint.is_aws):
        return Allowed(endpoint, ref.region, "auto", use_operator_identity=False)
    return Refused(_line_to_add(ref, endpoint, namespace, prefix))


def _same_place(entry: S3Entry, endpoint: Endpoint | None) -> bool:
    if entry.endpoint == _ANY:
        return True
    if entry.endpoint == _AWS_DEFAULT:
        return endpoint is None
    return endpoint is not None and parse_endpoint(entry.endpoint) == endpoint


def _check_names(ref: S3Ref) -> None:
    if not _BUCKET.fullmatch(ref.bucket) or ".." in ref.bucket:
        raise ValueError(f"bucket {ref.bucket[:80]!r} is no bucket name (3 to 63 of a-z, 0-9, dot and dash; no ARN)")
    if ref.region and not _REGION.fullmatch(ref.region):
        raise ValueError(f"region {ref.region[:40]!r} is no region name")
    if any(part in {".", ".."} for part in ref.prefix.split("/")) or not ref.prefix.isprintable():
        raise ValueError("prefix holds a part '.' or '..', or a control character")


def _line_to_add(ref: S3Ref, endpoint: Endpoint | None, namespace: str, prefix: str) -> str:
    entry: dict[str, str | list[str] | bool] = {"endpoint": endpoint.url if endpoint else "", "namespaces": [namespace]}
    if not ref.credentials_secret:
        entry |= {"buckets": [ref.bucket], "prefixes": [prefix]}
    if endpoint and endpoint.scheme == "http":
        entry["allowHTTP"] = True
    way = "" if ref.credentials_secret else ", or name a credentialsSecret of your own"
    return (
        "the administrator's sinks file does not list this sink for the operator; "
        f"an administrator can add under s3: `- {json.dumps(entry)}`{way}"
    )


def _service(endpoint: Endpoint) -> Endpoint:
    # NAME.NAMESPACE.svc and NAME.NAMESPACE.svc.cluster.local are the same Service.
    return Endpoint(endpoint.scheme, endpoint.host.removesuffix(".cluster.local"), endpoint.port)
