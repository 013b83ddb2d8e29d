"""List and watch as data: what to ask an API server next, and what each answer means for a cache.

Theory of operation. A cache is first *synced* (the whole collection, gathered aside, then put in place at once) and
then *watched* from the version it has. Every request ends some day, well or badly; ``on_end`` says what to ask next
and how long to wait before. The states are ``Syncing`` and ``Watching``; both carry the ``Past``: what must outlive
one request.

Syncing has three ways, tried in this order:

- WatchList: a watch that begins with the present state and marks its end by a bookmark. Flat memory on both sides.
  Servers that do not have it refuse with a 4xx, or never send the mark; that is remembered.
- a LIST at resourceVersion 0, answered from the server's cache. Only before the first sync: its answer may be old, and
  a cache must not go back in time. Pages are followed where the server makes any.
- a consistent LIST (no version, no limit), after a version or a page token has expired or is not known to the server.

Rules, and where they come from:

- A full sync follows only a 410 (HTTP status or ERROR event), a read error of the server's store (an object was
  deleted that nobody can decode, so no event can tell), a 404 (the kind itself is gone, and what comes back is another
  collection), or many accepted watches in a row that brought nothing: a restored etcd may be behind our version. A
  full sync on anything else would make an overloaded server's bad day worse. Never on 429.
- Waits double from 0.8 s to 30 s and are stretched by up to as much again, as client-go's are, so that many clients
  that failed together come back apart. Two minutes of health forget the past failures. Retry-After is a lower bound.
- A watch that gave no sign of life for 75 s (bookmarks come about once a minute) is dead. It has waited long enough:
  it is begun again after the shortest wait, so that a stall is healed within 90 s.
- The server ends every watch after 280 to 320 s; the spread keeps informers from reconnecting together.
- Versions of one collection can be compared as integers (stated by Kubernetes since 1.35, true since ever). An event
  not newer than the cache is a repetition. Versions that are no integers are never called old.
"""

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from toe_async.apis.kinds import Kind
from toe_async.kube import requests
from toe_async.kube.errors import ApiError
from toe_async.kube.watchevents import Bookmark

INACTIVITY_SECONDS = 75.0
PAGE_SIZE = 500
LIST_DEADLINE_SECONDS = 600.0

_SHORTEST_WATCH, _LONGEST_WATCH = 280, 320
_WATCH_GRACE_SECONDS = 30.0  # a server that does not end the watch itself is not waited for longer
_FIRST_WAIT, _LONGEST_WAIT = 0.8, 30.0
_LONGEST_RETRY_AFTER = 300.0
_HEALTHY_SECONDS = 120.0
_PACE_SECONDS = 1.0  # at most one watch a second for a server that ends each one at once
_BARREN_LIMIT = 10  # accepted watches in a row without a single event or bookmark

_STORE_READ_ERROR = "StorageReadError"
_STATUS_LABELS = {401: "unauthorized", 403: "forbidden", 404: "not_found", 410: "gone", 429: "throttled"}
# Refusals that say nothing about the WatchList parameters.
_NOT_ABOUT_WATCH_LIST = frozenset({401, 403, 404, 408, 410, 429})


class Scope(Struct, frozen=True):
    """Which objects: the same selectors apply to every list and watch."""

    kind: Kind
    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""


class Support(Enum):
    """What is known about the server's WatchList."""

    UNKNOWN = "unknown"
    YES = "yes"
    NO = "no"


class How(Enum):
    """The way to get the whole state."""

    WATCH_LIST = "WatchList"
    CACHED = "cached list"
    CONSISTENT = "consistent list"


class Past(Struct, frozen=True, gc=False):
    """What outlives a request. ``healthy_since`` is the monotonic second of the first success after a failure."""

    watch_list: Support = Support.UNKNOWN
    synced: bool = False
    failures: int = 0
    barren: int = 0
    healthy_since: float | None = None


class Syncing(Struct, frozen=True, gc=False):
    """The whole state is wanted. ``token`` is set between the pages of a list."""

    how: How = How.WATCH_LIST
    token: str = ""
    past: Past = Past()


class Watching(Struct, frozen=True, gc=False):
    """The cache holds everything up to ``version``. ``fruitful``: this watch has brought something."""

    version: str
    past: Past
    fruitful: bool = False


State = Syncing | Watching


class Verdict(Enum):
    """What to do with what has just been read."""

    STAGE = "gather it aside"
    COMMIT = "put what was gathered in place of everything"
    APPLY = "change the cache by it"
    IGNORE = "nothing"
    ABANDON = "end this request: the server does not know what was asked"


class Cause(Enum):
    """Why a request ended."""

    CLOSED = "closed"
    OVERDUE = "overdue"
    SILENT = "silent"
    TRANSPORT = "transport"
    GARBLED = "garbled"
    UNMARKED = "unmarked"
    REFUSED = "refused"


class End(Struct, frozen=True):
    """How a request ended. ``status``, ``reason`` and ``retry_after`` (seconds) belong to REFUSED."""

    cause: Cause
    status: int = 0
    reason: str = ""
    retry_after: float | None = None

    @property
    def label(self) -> str:
        """The ``reason`` label of toe_watch_restarts_total: a small closed set of words."""
        if self.status >= 500:
            return "server_error"
        return _STATUS_LABELS.get(self.status, self.cause.value)


class Call(Struct, frozen=True):
    """What to ask next. ``deadline`` bounds the whole answer, in seconds."""

    request: requests.Request
    verb: str
    deadline: float


class Decision(Struct, frozen=True):
    """What follows an end: the state to go on from, after ``wait`` seconds."""

    state: State
    wait: float


def is_newer(version: str, than: str) -> bool:
    """Whether an event is newer than a cache. Versions that cannot be compared count as newer."""
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return True


def next_call(state: State, scope: Scope, chance: float) -> Call:
    """Return the request that the state needs. ``chance`` is a random number in [0, 1)."""
    # min: for a chance next to 1 the float sum rounds up
    seconds = min(_LONGEST_WATCH, int(_SHORTEST_WATCH + chance * (_LONGEST_WATCH - _SHORTEST_WATCH + 1)))
    match state:
        case Watching(version=version):
            return _watch(scope, seconds, version=version, initial=False)
        case Syncing(how=How.WATCH_LIST):
            return _watch(scope, seconds, version="", initial=True)
        case Syncing(how=how, token=token):
            request = requests.list_(
                scope.kind,
                scope.namespace,
                label_selector=scope.label_selector,
                field_selector=scope.field_selector,
                resource_version="0" if how is How.CACHED and not token else None,
                limit=PAGE_SIZE if how is How.CACHED else None,
                continue_=token,
            )
            return Call(request, "list", LIST_DEADLINE_SECONDS)


def on_open(state: State, now: float) -> State:
    """Note that the server has accepted the request at monotonic second ``now``."""
    if state.past.healthy_since is not None:
        return state
    return replace(state, past=replace(state.past, healthy_since=now))


def on_change(state: State, version: str) -> tuple[State, Verdict]:
    """Judge an object event of the given version; "" where it could not be read."""
    if isinstance(state, Syncing):
        return state, Verdict.STAGE
    if not is_newer(version, state.version):
        return state, Verdict.IGNORE
    return Watching(version or state.version, state.past, True), Verdict.APPLY


def on_bookmark(state: State, mark: Bookmark) -> tuple[State, Verdict]:
    """Judge a bookmark: it moves the version on, and ends the initial events where it says so."""
    if isinstance(state, Watching):
        version = mark.version if is_newer(mark.version, state.version) else state.version
        return Watching(version, state.past, True), Verdict.IGNORE
    if mark.ends_initial:
        return _synced(state.past, mark.version, Support.YES), Verdict.COMMIT
    if state.past.watch_list is Support.YES:
        return state, Verdict.IGNORE
    # A server with WatchList sends no other bookmark before the marked one: this one ignored what was asked.
    return state, Verdict.ABANDON


def on_page(state: State, version: str, token: str) -> tuple[State, Verdict]:
    """Judge a complete list answer: another page follows, or the state is whole."""
    if token:
        return replace(state, token=token) if isinstance(state, Syncing) else state, Verdict.STAGE
    return _synced(state.past, version, state.past.watch_list), Verdict.COMMIT


def on_end(state: State, end: End, *, now: float, opened_at: float | None, chance: float) -> Decision:
    """Decide how to go on after a request ended.

    ``opened_at`` is the monotonic second of the server's acceptance, None when it never came; ``chance`` is in [0, 1).
    """
    lived = 0.0 if opened_at is None else now - opened_at
    if isinstance(state, Syncing):
        return _after_sync(state, end, now, chance)
    past = replace(state.past, barren=0) if state.fruitful else state.past
    if end.cause in {Cause.CLOSED, Cause.OVERDUE} and (state.fruitful or lived >= _PACE_SECONDS):
        return Decision(Watching(state.version, past), max(0.0, _PACE_SECONDS - lived))
    past, wait = _fail(past, end, now, chance)
    # Only a server that took the watch and then could not serve it says something about our version.
    if not state.fruitful and opened_at is not None and _is_servers_fault(end):
        past = replace(past, barren=past.barren + 1)
    expired = end.status in {404, 410} or end.reason == _STORE_READ_ERROR
    if expired or past.barren >= _BARREN_LIMIT:
        return Decision(_begin_sync(replace(past, barren=0)), wait)
    return Decision(Watching(state.version, past), wait)


def _after_sync(state: Syncing, end: End, now: float, chance: float) -> Decision:
    past, wait = _fail(state.past, end, now, chance)
    if state.how is How.WATCH_LIST:
        refused = 400 <= end.status < 500 and end.status not in _NOT_ABOUT_WATCH_LIST
        ended = end.cause in {Cause.CLOSED, Cause.OVERDUE, Cause.SILENT, Cause.UNMARKED}
        if refused or (ended and past.watch_list is not Support.YES):
            past = replace(state.past, watch_list=Support.NO)
            return Decision(_begin_sync(past), 0.0 if refused or end.cause is Cause.UNMARKED else wait)
        return Decision(Syncing(state.how, "", past), wait)
    if end.status == 410 and state.token:  # the token has expired: the pages so far are worth nothing
        return Decision(Syncing(How.CONSISTENT, "", state.past), 0.0)
    if end.status in {410, 504}:  # also "too large": this server has not yet seen the version asked for
        return Decision(Syncing(How.CONSISTENT, "", past), wait)
    return Decision(Syncing(state.how, state.token, past), wait)


def _begin_sync(past: Past) -> Syncing:
    if past.watch_list is not Support.NO:
        return Syncing(How.WATCH_LIST, "", past)
    return Syncing(How.CONSISTENT if past.synced else How.CACHED, "", past)


def _synced(past: Past, version: str, watch_list: Support) -> Watching:
    return Watching(version, replace(past, watch_list=watch_list, synced=True, barren=0), True)


def _fail(past: Past, end: End, now: float, chance: float) -> tuple[Past, float]:
    """Count a failure and return the seconds to wait for it."""
    recovered = past.healthy_since is not None and now - past.healthy_since >= _HEALTHY_SECONDS
    failures = 0 if recovered or end.cause is Cause.SILENT else past.failures
    wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(failures, 16))
    if end.retry_after is not None:
        wait = max(wait, min(end.retry_after, _LONGEST_RETRY_AFTER))
    return replace(past, failures=failures + 1, healthy_since=None), wait * (1 + chance)


def _is_servers_fault(end: End) -> bool:
    return end.cause in {Cause.SILENT, Cause.GARBLED} or end.status >= 500


def _watch(scope: Scope, seconds: int, *, version: str, initial: bool) -> Call:
    request = requests.watch(
        scope.kind,
        scope.namespace,
        resource_version=version,
        timeout_seconds=seconds,
        label_selector=scope.label_selector,
        field_selector=scope.field_selector,
        send_initial_events=initial,
    )
    return Call(request, "watch", seconds + _WATCH_GRACE_SECONDS)


def end_of(error: ApiError) -> End:
    """Describe a refusal."""
    return End(Cause.REFUSED, error.status, error.reason, error.retry_after)
