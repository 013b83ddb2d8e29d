"""Lists: consistent snapshots, paging by continue tokens, and the rules of resourceVersion.

A continue token names a revision and the last key served; the page after it is cut from the state at that revision as
long as history reaches back so far, else the answer is 410 with a token that goes on from the present state.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec
from msgspec import Struct

from toe_async.sandbox.resources import Resource
from toe_async.sandbox.status import Cause, JsonObject, bad_request, expired, invalid, too_large_version
from toe_async.sandbox.store import Item, Key, Store

_TOO_OLD_PAGE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


class ListOptions(Struct, frozen=True):
    """The query of a list or watch, read and checked."""

    labels: str = ""
    fields: str = ""
    watch: bool = False
    resource_version: str = ""
    match: str = ""
    limit: int = 0
    token: str = ""
    bookmarks: bool = False
    initial_events: bool = False
    timeout_seconds: int | None = None


class Page(Struct, frozen=True):
    """A list's answer; `token` is "" on the last page."""

    revision: int
    items: list[Item]
    token: str = ""
    remaining: int | None = None


class _Token(Struct, frozen=True):
    v: str
    rv: int
    start: str


def options(query: dict[str, str]) -> ListOptions:
    """Read the query. Raises Refusal 400 for what is no number and 422 for combinations that are not allowed."""
    read = ListOptions(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        watch=_truth(query.get("watch", "")),
        resource_version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        limit=max(_integer(query.get("limit", "")) or 0, 0),
        token=query.get("continue", ""),
        bookmarks=_truth(query.get("allowWatchBookmarks", "")),
        initial_events=_truth(query.get("sendInitialEvents", "")),
        timeout_seconds=_integer(query.get("timeoutSeconds", "")),
    )
    causes = list(_check(read, "sendInitialEvents" in query))
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)
    return read


def _check(read: ListOptions, initial_given: bool) -> Iterable[Cause]:
    field, supported = "resourceVersionMatch", 'supported values: "NotOlderThan"'
    if not read.watch and initial_given:
        message = "Forbidden: sendInitialEvents is forbidden for list"
        yield Cause("FieldValueForbidden", message, "sendInitialEvents")
    elif initial_given and read.match != "NotOlderThan":
        message = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        yield Cause("FieldValueForbidden", message, field)
        if read.match:
            yield Cause("FieldValueNotSupported", f'Unsupported value: "{read.match}": {supported}', field)
    elif read.watch and read.match and not initial_given:
        message = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        yield Cause("FieldValueForbidden", message, field)
    elif not read.watch and read.match and not read.resource_version:
        message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        yield Cause("FieldValueForbidden", message, field)


def page(
    store: Store, resource: Resource, namespace: str, want: ListOptions, selected: Callable[[JsonObject], bool]
) -> Page:
    """One page of a list. Raises Refusal 400, 410 or 504 by the rules of resourceVersion and continue."""
    collection = store.collection(resource)
    revision, start = _where(store, collection.floor, want)
    fitting = (
        item
        for item in collection.at(revision)
        if (not namespace or item.key.namespace == namespace) and item.key > start and selected(item.obj)
    )
    if not want.limit or (want.resource_version == "0" and not want.token):
        return Page(revision, list(fitting))
    items = list(islice(fitting, want.limit))
    rest = sum(1 for _ in fitting)
    if not rest:
        return Page(revision, items)
    token = _seal(revision, items[-1].key)
    return Page(revision, items, token, None if want.labels or want.fields else rest)


def _where(store: Store, floor: int, want: ListOptions) -> tuple[int, Key]:
    if want.token:
        if want.resource_version not in {"", "0"}:
            raise bad_request("specifying resource version is not allowed when using continue")
        revision, start = _open(want.token)
        if revision < 0:  # a token that was handed out with a 410: go on from the present state
            return store.revision, start
        if revision < floor:
            raise expired(_TOO_OLD_PAGE, _seal(-1, start))
        return revision, start
    asked = version(want.resource_version)
    if asked > store.revision:
        raise too_large_version(asked, store.revision)
    if want.match == "Exact" or (asked and want.limit and not want.match):
        if asked < floor:
            raise expired("The resourceVersion for the provided list is too old.")
        return asked, Key("", "")
    return store.revision, Key("", "")


def version(text: str) -> int:
    """A resourceVersion as a number; 0 for none. Raises Refusal 400."""
    if text and not text.isdecimal():
        parse = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise bad_request(f'invalid resource version: resourceVersion: Invalid value: "{text}": {parse}')
    return int(text or "0")


def _seal(revision: int, last: Key) -> str:
    token = msgspec.json.encode(_Token("meta.k8s.io/v1", revision, f"{last.namespace}/{last.name}"))
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _open(token: str) -> tuple[int, Key]:
    try:
        read = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=_Token)
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error
    namespace, _, name = read.start.partition("/")
    return read.rv, Key(namespace, name)


def _truth(text: str) -> bool:
    return text in {"1", "true", "True", "t", "T", "TRUE"}


def _integer(text: str) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error


def encode_list(resource: Resource, api_version: str, list_kind: str, found: Page) -> bytes:
    """The list's body. Built-in kinds: header first. Custom resources: sorted keys, so metadata comes last."""
    meta: JsonObject = {}
    if resource.custom and found.token:
        meta["continue"] = found.token
    if resource.custom and found.remaining is not None:
        meta["remainingItemCount"] = found.remaining
    meta["resourceVersion"] = str(found.revision)
    if not resource.custom and found.token:
        meta["continue"] = found.token
    if not resource.custom and found.remaining is not None:
        meta["remainingItemCount"] = found.remaining
    items = b",".join(item.raw for item in found.items)
    head = (api_version.encode(), list_kind.encode(), msgspec.json.encode(meta))
    if resource.custom:
        return b'{"apiVersion":"%s","items":[%s],"kind":"%s","metadata":%s}\n' % (head[0], items, head[1], head[2])
    return b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[%s]}\n' % (head[1], head[0], head[2], items)
