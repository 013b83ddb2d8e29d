"""What an artifact is called in a bucket, and what an object says about itself. Pure.

A key is `{prefix}/{date}/{service}/{date-time}-{leaf}` in UTC (api.md). Everything in it comes from persisted facts, so
every attempt and every replica derives the same names in the same order; that is what makes a lost reply harmless.
"""

import re
from datetime import UTC
from urllib.parse import quote

from toe_async.apis.captures import ArtifactRecord, CaptureRecord
from toe_async.lib.clock import rfc3339
from toe_async.lib.names import safe_segment

SHORT_ID = 10  # characters of a capture id that appear in names; 50 bits
MANIFEST_SUFFIX = ".json"

# AWS counts 2 KiB over names and values. The header prefix is counted here too, though AWS is said not to: a store that
# does must not refuse what we send.
METADATA_LIMIT = 2048
_METADATA_HEADER = len("x-amz-meta-")
# Proxies drop headers whose names hold '_' or '.', and a dropped header breaks the request's signature.
_NOT_IN_HEADER_NAME = re.compile(r"[^a-z0-9-]+")
_LONGEST_VALUE = 253
_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


def tags(record: CaptureRecord) -> str:
    """An object's tags: for how many days it is wanted, for a lifecycle rule of the bucket to go by."""
    return f"toe-retention-days={record.retention_days}" if record.retention_days is not None else ""


def candidates(prefix: str, record: CaptureRecord, artifact: ArtifactRecord) -> tuple[str, str, str]:
    """Return the keys to try in order: the plain one, with `-{pod}`, with `-{pod}-{capture id}` (D16)."""
    at = (record.named_at or artifact.captured_at).astimezone(UTC)
    folder = f"{clean_prefix(prefix)}/{at:%Y-%m-%d}/{safe_segment(record.target.service)}".lstrip("/")
    stem, dot, suffix = safe_segment(artifact.leaf).partition(".")
    stem = f"{folder}/{at:%Y%m%d-%H%M%S}-{stem}"
    pod = safe_segment(record.target.pod, 80)
    return (
        f"{stem}{dot}{suffix}",
        f"{stem}-{pod}{dot}{suffix}",
        f"{stem}-{pod}-{record.id[:SHORT_ID]}{dot}{suffix}",
    )


def clean_prefix(prefix: str) -> str:
    """Return a prefix without empty parts: `/a//b/` is `a/b`."""
    return "/".join(part for part in prefix.split("/") if part)


def metadata(record: CaptureRecord, artifact: ArtifactRecord) -> dict[str, str]:
    """Return object metadata: ASCII, fit for HTTP headers, and below 2 KiB however many labels the pod has.

    Labels that do not fit are left out, in the order of their names; `labels-omitted` says how many. The manifest has
    them all. Two labels whose names differ only in what a header cannot hold share one entry: the first one's.
    """
    target = record.target
    found = {
        "capture-id": record.id,
        "pod-name": target.pod,
        "pod-namespace": target.namespace,
        "profile-type": artifact.type,
        "reason": record.reason,
        "timestamp": rfc3339(artifact.captured_at),
        "sha256": artifact.sha256,
    }
    safe = {name: _value(value) for name, value in found.items()}
    left = METADATA_LIMIT - sum(_cost(*entry) for entry in safe.items()) - _cost("labels-omitted", "99999")
    omitted = 0
    for label, text in sorted(target.labels.items()):
        name, value = "label-" + _NOT_IN_HEADER_NAME.sub("-", label.lower()).strip("-"), _value(text)
        if name in safe or _cost(name, value) > left:
            omitted += 1
            continue
        safe[name] = value
        left -= _cost(name, value)
    if omitted:
        safe["labels-omitted"] = str(omitted)
    return safe


def is_same(found: dict[str, str], record: CaptureRecord, artifact: ArtifactRecord) -> bool:
    """Tell whether an object with this metadata is this very artifact, stored earlier by an attempt without a reply."""
    mine = metadata(record, artifact)
    lowered = {name.lower(): value for name, value in found.items()}
    return all(lowered.get(name) == mine[name] for name in ("capture-id", "profile-type", "sha256"))


def _value(text: str) -> str:
    # Names are at most 253 ASCII characters in Kubernetes; the bound is for whatever else may come.
    return re.sub(r"%.?$", "", quote(text, safe=_PRINTABLE)[:_LONGEST_VALUE])


def _cost(name: str, value: str) -> int:
    return _METADATA_HEADER + len(name) + len(value)
