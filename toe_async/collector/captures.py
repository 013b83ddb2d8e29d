"""What the collector keeps about a capture and each of its artifacts: the wire and disk forms, and what may change.

A capture is registered by the operator before anybody may upload. Path and limits come from its record alone. Its
leaves are listed, or match a glob of the registration: the first upload of such a leaf writes it into the record.
"""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field
from msgspec.structs import replace

from toe_async.apis.meta import Decoder, Wire
from toe_async.collector import paths
from toe_async.collector.dateformat import DateLayout
from toe_async.lib.globs import any_match, check_glob
from toe_async.lib.names import is_dns1123_label

LONGEST_LIFE = timedelta(days=7)
LONGEST_RETENTION_DAYS = 3650
MOST_LISTED = 32
MOST_LEAVES = 256
"""Different leaves that one capture may have, those that match a glob included."""
MOST_LABELS = 64
MOST_DETAILS = 32
LONGEST_DETAILS = 8 << 10
"""Bytes of all details together: they are in the manifest of each artifact."""
MOST_STARS = 4
"""In one glob: what it costs to try it on a name grows with their number as a power."""

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DETAIL = re.compile(r"[a-z][A-Za-z0-9]{0,39}")

Short = Annotated[str, Meta(max_length=253)]
Sentence = Annotated[str, Meta(max_length=1024)]


class Registration(Wire, frozen=True, kw_only=True):
    """The body of `POST /v1/captures`. `max_bytes` bounds each artifact; `labels` are those that chose the target."""

    id: Short
    namespace: Short
    labels: Annotated[dict[str, str], Meta(max_length=MOST_LABELS)] = field(default_factory=dict)
    run: Short
    run_uid: Short = field(name="runUID", default="")
    kind: Short = ""
    pod: Short
    pod_uid: Short = field(name="podUID", default="")
    container: Short
    node: Short = ""
    service: Short = ""
    tool: Short = ""
    reason: Short = ""
    trigger: Sentence = ""
    triggered_at: datetime
    leaves: Annotated[tuple[Short, ...], Meta(max_length=MOST_LISTED)] = ()
    leaf_globs: Annotated[tuple[Short, ...], Meta(max_length=MOST_LISTED)] = ()
    """Further leaves are allowed when one of these matches."""
    details: Annotated[dict[str, Sentence], Meta(max_length=MOST_DETAILS)] = field(default_factory=dict)
    """How the artifacts came about, in words for readers: argv, image and the like."""
    max_bytes: Annotated[int, Meta(gt=0)]
    expires: datetime
    retention_days: Annotated[int, Meta(ge=1, le=LONGEST_RETENTION_DAYS)] | None = None
    """How long the run wants its artifacts kept; None leaves it to the collector."""


class Stored(Wire, frozen=True, kw_only=True):
    """One artifact as `complete` names it."""

    name: Short
    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(max_length=64)]


class Completion(Wire, frozen=True, kw_only=True):
    """The body of `POST /v1/captures/{id}/complete`: everything that the uploader has stored."""

    artifacts: Annotated[tuple[Stored, ...], Meta(max_length=MOST_LEAVES)]


class State(StrEnum):
    """Where a capture stands. Only an open one takes uploads; the other two are never left."""

    OPEN = "Open"
    COMPLETE = "Complete"
    CANCELLED = "Cancelled"


class Capture(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A capture's record: what was registered, the folder derived from it, and where it stands."""

    registration: Registration
    directory: tuple[str, ...]
    state: State = State.OPEN
    artifacts: tuple[Stored, ...] = ()
    matched: tuple[str, ...] = ()
    """Leaves that are not listed, match a glob, and were begun."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """Every leaf that there may be something of."""
        return self.registration.leaves + self.matched


class Manifest(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What lies beside each artifact: all that is known about it. `name` is its name in the read API."""

    name: str
    leaf: str
    size: int
    sha256: str
    stored_at: datetime
    directory: tuple[str, ...]
    file: str
    capture: str
    namespace: str
    labels: dict[str, str]
    run: str
    run_uid: str = field(name="runUID")
    kind: str
    pod: str
    pod_uid: str = field(name="podUID")
    container: str
    node: str
    service: str
    tool: str
    reason: str
    trigger: str
    triggered_at: datetime
    retention_days: int | None = None
    details: dict[str, str] = field(default_factory=dict)
    hold: str = ""
    """Why it must be kept whatever its age; empty when nothing holds it."""


decode_registration = Decoder(Registration)
decode_completion = Decoder(Completion)
decode_capture = Decoder(Capture)
decode_manifest = Decoder(Manifest)


def faults(wanted: Registration, now: datetime) -> str | None:
    """Return what is wrong with a registration in one sentence, or None. Nothing that passes can leave the store."""
    names = {"run": wanted.run, "pod": wanted.pod}
    labelled = all(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value) for key, value in wanted.labels.items())
    texts = (wanted.run_uid, wanted.kind, wanted.pod_uid, wanted.node, wanted.service, wanted.tool, wanted.reason)
    if not paths.is_capture_id(wanted.id):
        return "id is not a capture id: 32 characters of a-z2-7"
    for name, label in {"namespace": wanted.namespace, "container": wanted.container}.items():
        if not is_dns1123_label(label):
            return f"{name} is not a DNS-1123 label"
    for name, text in names.items():
        if not _SUBDOMAIN.fullmatch(text) or ".." in text:
            return f"{name} is not a DNS-1123 subdomain"
    if not labelled:
        return "labels holds something that is not a Kubernetes label"
    if not all(text.isascii() and text.isprintable() for text in texts) or not wanted.trigger.isprintable():
        return "a text field holds characters that cannot be printed"
    if not wanted.leaves and not wanted.leaf_globs:
        return "leaves and leafGlobs are empty, so nothing could be uploaded"
    if not all(paths.is_leaf(leaf) for leaf in wanted.leaves):
        return f"leaves must be plain file names of at most {paths.LONGEST_LEAF} letters, digits and ._-"
    if len({paths.artifact_name(wanted.id, leaf) for leaf in wanted.leaves}) != len(wanted.leaves):
        return "leaves holds a name twice"
    if not all(_is_glob(glob) for glob in wanted.leaf_globs):
        return f"leafGlobs holds something that is no glob of at most {MOST_STARS} stars"
    if fault := _details_fault(wanted.details):
        return fault
    if wanted.triggered_at.tzinfo is None or wanted.expires.tzinfo is None:
        return "triggeredAt and expires need a time zone"
    if not now < wanted.expires <= now + LONGEST_LIFE:
        return f"expires must be in the future and at most {LONGEST_LIFE.days} days away"
    return None


def _details_fault(details: dict[str, str]) -> str | None:
    if not all(_DETAIL.fullmatch(key) and value.isprintable() for key, value in details.items()):
        return "details holds a name that is not camelCase, or characters that cannot be printed"
    most = len(details) > MOST_DETAILS
    if most or sum(len(key) + len(value.encode()) for key, value in details.items()) > LONGEST_DETAILS:
        return f"details are more than {MOST_DETAILS}, or longer than {LONGEST_DETAILS} bytes together"
    return None


def open_capture(wanted: Registration, layout: DateLayout, max_artifact_bytes: int) -> Capture:
    """Make the record of a new capture. The date in its path is the trigger's, so that a second try gives the same.

    Its limit is never above the collector's own.
    """
    bounded = replace(wanted, max_bytes=min(wanted.max_bytes, max_artifact_bytes))
    date = layout.segments(wanted.triggered_at)
    return Capture(registration=bounded, directory=paths.directory(wanted.namespace, wanted.labels, wanted.run, date))


def register_again(held: Capture, wanted: Registration) -> Capture | None:
    """Return the record after its capture was registered a second time, or None when it is another one's id.

    The same capture may get further leaves and a later end, as after a restart of the operator; nothing else of it
    changes, and neither does a capture that is complete or cancelled. Details are added or replaced, for what is stored
    from now on.
    """
    old = held.registration
    same = replace(
        wanted,
        leaves=old.leaves,
        expires=old.expires,
        max_bytes=old.max_bytes,
        retention_days=old.retention_days,
        leaf_globs=old.leaf_globs,
        details=old.details,
    )
    if same != old:
        return None
    leaves = tuple(dict.fromkeys(old.leaves + wanted.leaves))
    globs = tuple(dict.fromkeys(old.leaf_globs + wanted.leaf_globs))
    if held.state is not State.OPEN or len(leaves) > MOST_LISTED or len(globs) > MOST_LISTED:
        return held
    matched = tuple(leaf for leaf in held.matched if leaf not in leaves)
    details = old.details | wanted.details
    if _details_fault(details):
        details = old.details
    return replace(
        held,
        matched=matched,
        registration=replace(
            old, leaves=leaves, leaf_globs=globs, details=details, expires=max(old.expires, wanted.expires)
        ),
    )


def allows(held: Capture, leaf: str) -> bool:
    """Tell whether the capture may have an artifact of this name: it is known, or matches a glob and there is room."""
    if leaf in held.leaves:
        return True
    globs = held.registration.leaf_globs
    if len(held.leaves) >= MOST_LEAVES or not paths.is_leaf(leaf) or not any_match(globs, leaf):
        return False
    # Two leaves whose names in the read API are one would be one artifact there.
    capture = held.registration.id
    return paths.artifact_name(capture, leaf) not in {paths.artifact_name(capture, other) for other in held.leaves}


def _is_glob(text: str) -> bool:
    try:
        check_glob(text)
    except ValueError:
        return False
    return 0 < len(text) <= paths.LONGEST_LEAF and text.count("*") <= MOST_STARS


def manifest_of(held: Capture, leaf: str, size: int, sha256: str, stored_at: datetime) -> Manifest:
    """Write down an artifact that is about to be committed."""
    r = held.registration
    return Manifest(
        name=paths.artifact_name(r.id, leaf), leaf=leaf, size=size, sha256=sha256, stored_at=stored_at,
        directory=held.directory, file=paths.file_name(r.pod, r.container, r.id, leaf),
        capture=r.id, namespace=r.namespace, labels=r.labels, run=r.run, run_uid=r.run_uid, kind=r.kind,
        pod=r.pod, pod_uid=r.pod_uid, container=r.container, node=r.node, service=r.service, tool=r.tool,
        reason=r.reason, trigger=r.trigger, triggered_at=r.triggered_at, retention_days=r.retention_days,
        details=r.details,
    )  # fmt: skip


def is_sha256(text: str) -> bool:
    """Tell whether the text is a SHA-256 digest in lower-case hex."""
    return _SHA256.fullmatch(text) is not None
