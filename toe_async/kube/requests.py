"""Verbs and their parameters as requests; nothing here sends anything.

Bodies are bytes, encoded by the caller. ``timeout`` is the request's whole deadline in seconds, retries included;
None leaves it to the client's default (for a stream: no limit on its length).
"""

from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote, urlencode

from msgspec import Struct

from toe_async.apis.kinds import Kind

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML: the body may be JSON

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
Query = tuple[tuple[str, str], ...]

_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Request(Struct, frozen=True):
    """One HTTP request to the API server. ``path`` is percent-quoted already; the query is quoted when sent.

    ``headers`` are what the verb itself needs, such as Range; who asks and for which type is the client's to say.
    """

    method: Method
    path: str
    query: Query = ()
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON
    timeout: float | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a path that could be read as another one.

        Raises:
            ValueError: not absolute, characters outside of a quoted path, or a dot segment.
        """
        if not self.path.startswith("/") or quote(self.path, safe="/%:@!$&'()*+,;=~") != self.path:
            raise ValueError(f"{self.path[:200]!r} is not a quoted absolute URL path")
        if any(part in {".", ".."} for part in self.path.split("/")):
            raise ValueError(f"{self.path[:200]!r} holds a dot segment")

    @property
    def target(self) -> str:
        """Path and query as they go on the wire."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice leaves the same as once, so that a lost answer may be asked for again.

        A PUT that carries a resourceVersion may answer 409 to the repetition of its own success.
        """
        return self.method in _IDEMPOTENT

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def get(
    kind: Kind, namespace: str | None, name: str, *, subresource: str = "", timeout: float | None = None
) -> Request:
    """Read one object."""
    return Request("GET", kind.path(namespace, name, subresource), timeout=timeout)


def list_(
    kind: Kind,
    namespace: str | None = None,
    *,
    label_selector: str = "",
    field_selector: str = "",
    resource_version: str | None = None,
    limit: int | None = None,
    continue_: str = "",
    timeout: float | None = None,
) -> Request:
    """List a collection. ``resource_version="0"`` is answered from the watch cache; None asks for the newest state."""
    return Request(
        "GET",
        kind.path(namespace),
        _query(
            ("labelSelector", label_selector),
            ("fieldSelector", field_selector),
            ("resourceVersion", resource_version),
            ("limit", limit),
            ("continue", continue_),
        ),
        timeout=timeout,
    )


def watch(
    kind: Kind,
    namespace: str | None = None,
    *,
    resource_version: str = "",
    timeout_seconds: int,
    label_selector: str = "",
    field_selector: str = "",
    send_initial_events: bool = False,
) -> Request:
    """Watch a collection with bookmarks. The server ends the stream after ``timeout_seconds``.

    ``send_initial_events`` asks for the WatchList protocol: the present state first, then a marked bookmark.
    """
    return Request(
        "GET",
        kind.path(namespace),
        _query(
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", timeout_seconds),
            ("labelSelector", label_selector),
            ("fieldSelector", field_selector),
            ("sendInitialEvents", "true" if send_initial_events else None),
            ("resourceVersionMatch", "NotOlderThan" if send_initial_events else None),
        ),
    )


def create(
    kind: Kind,
    namespace: str | None,
    body: bytes,
    *,
    name: str | None = None,
    subresource: str = "",
    field_manager: str = "",
    timeout: float | None = None,
) -> Request:
    """Create an object; with ``name`` and ``subresource``, one of an existing object, as TokenRequest is."""
    path = kind.path(namespace, name, subresource)
    return Request("POST", path, _query(("fieldManager", field_manager)), body, timeout=timeout)


def replace(
    kind: Kind,
    namespace: str | None,
    name: str,
    body: bytes,
    *,
    subresource: str = "",
    field_manager: str = "",
    timeout: float | None = None,
) -> Request:
    """Replace a whole object. Only for objects that we own wholly, such as a Lease: a decoded slice loses fields."""
    path = kind.path(namespace, name, subresource)
    return Request("PUT", path, _query(("fieldManager", field_manager)), body, timeout=timeout)


def merge_patch(
    kind: Kind,
    namespace: str | None,
    name: str,
    body: bytes,
    *,
    subresource: str = "",
    field_manager: str = "",
    timeout: float | None = None,
) -> Request:
    """Patch by JSON merge. With ``metadata.resourceVersion`` in the body a stale one is refused with 409."""
    path = kind.path(namespace, name, subresource)
    return Request("PATCH", path, _query(("fieldManager", field_manager)), body, MERGE_PATCH, timeout=timeout)


def strategic_patch(
    kind: Kind,
    namespace: str | None,
    name: str,
    body: bytes,
    *,
    subresource: str = "",
    field_manager: str = "",
    timeout: float | None = None,
) -> Request:
    """Patch a built-in kind by strategic merge: elements of its lists are joined by name instead of replaced.

    With ``metadata.uid`` in the body another object of that name is refused with 409.
    """
    path = kind.path(namespace, name, subresource)
    return Request("PATCH", path, _query(("fieldManager", field_manager)), body, STRATEGIC_PATCH, timeout=timeout)


def apply(
    kind: Kind,
    namespace: str | None,
    name: str,
    body: bytes,
    *,
    field_manager: str,
    force: bool = True,
    subresource: str = "",
    timeout: float | None = None,
) -> Request:
    """Server-side apply of the fields in the body, which become ``field_manager``'s."""
    path = kind.path(namespace, name, subresource)
    query = _query(("fieldManager", field_manager), ("force", "true" if force else None))
    return Request("PATCH", path, query, body, APPLY_PATCH, timeout=timeout)


def delete(
    kind: Kind,
    namespace: str | None,
    name: str,
    *,
    uid: str = "",
    resource_version: str = "",
    grace_period_seconds: int | None = None,
    propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
    timeout: float | None = None,
) -> Request:
    """Delete an object; only that incarnation (``uid``) and that state of it (``resource_version``), else 409."""
    query = _query(("gracePeriodSeconds", grace_period_seconds), ("propagationPolicy", propagation))
    wanted = [b'"uid":"%s"' % _plain(uid, "UID")] if uid else []
    wanted += [b'"resourceVersion":"%s"' % _plain(resource_version, "resourceVersion")] if resource_version else []
    body = b'{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{%s}}' % b",".join(wanted) if wanted else None
    return Request("DELETE", kind.path(namespace, name), query, body, timeout=timeout)


def _plain(text: str, what: str) -> bytes:
    if not text.isascii() or not text.replace("-", "").isalnum():
        raise ValueError(f"{text[:80]!r} is no {what}")
    return text.encode("ascii")


def _query(*pairs: tuple[str, str | int | None]) -> Query:
    return tuple(_present(pairs))


def _present(pairs: Iterable[tuple[str, str | int | None]]) -> Iterable[tuple[str, str]]:
    return ((key, str(value)) for key, value in pairs if value is not None and value != "")
