"""What to ask next, as a pure function: one row a rule, and no rule broken by any history."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from toe_async.apis.kinds import PODS
from toe_async.kube.watch import (
    Cause,
    Decision,
    End,
    How,
    Past,
    Scope,
    State,
    Support,
    Syncing,
    Verdict,
    Watching,
    is_newer,
    next_call,
    on_bookmark,
    on_change,
    on_end,
    on_open,
    on_page,
)
from toe_async.kube.watchevents import Bookmark

SCOPE = Scope(PODS, "ns", "app=a,b!=c", "spec.nodeName=n")
SYNCED = Past(synced=True, watch_list=Support.YES)
NO_WATCH_LIST = Past(watch_list=Support.NO)
GONE = End(Cause.REFUSED, 410, "Expired")
BUSY = End(Cause.REFUSED, 429, "TooManyRequests")
NO_LEADER = End(Cause.REFUSED, 500, "InternalError")
CLOSED = End(Cause.CLOSED)


def end(state: State, how: End, *, lived: float | None = 60.0, chance: float = 0.0, now: float = 1000.0) -> Decision:
    return on_end(state, how, now=now, opened_at=None if lived is None else now - lived, chance=chance)


def query(state: State, chance: float = 0.0) -> dict[str, str]:
    return dict(next_call(state, SCOPE, chance).request.query)


class TestRequests:
    def test_the_first_request_is_a_watch_list(self) -> None:
        """No list at all where the server has it; selectors included."""
        assert query(Syncing()) == {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "timeoutSeconds": "280",
            "labelSelector": "app=a,b!=c",
            "fieldSelector": "spec.nodeName=n",
        }

    def test_a_watch_goes_on_from_its_version(self) -> None:
        """With bookmarks and the same selectors."""
        asked = query(Watching("41", SYNCED))
        assert (asked["resourceVersion"], asked["allowWatchBookmarks"]) == ("41", "true")
        assert (asked["labelSelector"], asked["fieldSelector"]) == ("app=a,b!=c", "spec.nodeName=n")
        assert "sendInitialEvents" not in asked

    @given(st.floats(0, 1, exclude_max=True))
    def test_timeouts_are_random_between_280_and_320_seconds(self, chance: float) -> None:
        """And never outside of it."""
        assert 280 <= int(query(Watching("1", SYNCED), chance)["timeoutSeconds"]) <= 320

    def test_timeouts_reach_both_ends(self) -> None:
        """The whole range is used."""
        asked = {query(Watching("1", SYNCED), n / 1000)["timeoutSeconds"] for n in range(1000)}
        assert {"280", "320"} <= asked
        assert len(asked) == 41

    def test_the_cached_list_takes_pages_where_they_are_made(self) -> None:
        """Version 0 with a limit, which a server without a watch cache honours; then the token alone."""
        state: State = Syncing(How.CACHED, past=NO_WATCH_LIST)
        assert query(state) | {"limit": "500", "resourceVersion": "0"} == query(state)
        state, verdict = on_page(state, "9", "tok")
        assert verdict is Verdict.STAGE
        assert query(state) | {"limit": "500", "continue": "tok"} == query(state)
        assert "resourceVersion" not in query(state)

    def test_a_consistent_list_is_not_paged(self) -> None:
        """Pages of the newest state would each be read from etcd by older servers."""
        asked = query(Syncing(How.CONSISTENT, past=NO_WATCH_LIST))
        assert not {"limit", "resourceVersion", "continue"} & set(asked)

    def test_every_call_has_a_deadline_beyond_the_servers_own(self) -> None:
        """A server that ignores timeoutSeconds is not waited for."""
        call = next_call(Watching("1", SYNCED), SCOPE, 0.5)
        assert call.deadline > int(dict(call.request.query)["timeoutSeconds"])


class TestEvents:
    @pytest.mark.parametrize(
        ("version", "than", "newer"),
        [("10", "9", True), ("9", "10", False), ("9", "9", False), ("x", "9", True), ("", "9", True), ("10", "", True)],
    )
    def test_versions_compare_as_integers(self, version: str, than: str, *, newer: bool) -> None:
        """What cannot be compared is not called old."""
        assert is_newer(version, than) is newer

    def test_initial_events_are_gathered_until_their_bookmark(self) -> None:
        """In any order of versions; then the watch goes on from the bookmark."""
        state: State = Syncing()
        for version in ("9", "3", "9"):
            state, verdict = on_change(state, version)
            assert verdict is Verdict.STAGE
        state, verdict = on_bookmark(state, Bookmark("12", ends_initial=True))
        assert verdict is Verdict.COMMIT
        assert isinstance(state, Watching)
        assert (state.version, state.past.watch_list, state.past.synced) == ("12", Support.YES, True)

    def test_an_event_not_newer_than_the_cache_is_a_repetition(self) -> None:
        """Duplicates and events from before are ignored; the version never goes back."""
        state: State = Watching("10", SYNCED)
        state, verdict = on_change(state, "11")
        assert verdict is Verdict.APPLY
        for old in ("11", "10", "2"):
            after, verdict = on_change(state, old)
            assert verdict is Verdict.IGNORE
            assert after == state

    def test_a_bookmark_moves_the_version_and_nothing_else(self) -> None:
        """Forward only."""
        state, verdict = on_bookmark(Watching("10", SYNCED), Bookmark("20", ends_initial=False))
        assert (state, verdict) == (Watching("20", SYNCED, fruitful=True), Verdict.IGNORE)
        assert on_bookmark(state, Bookmark("15", ends_initial=False))[0] == state

    def test_a_plain_bookmark_before_the_mark_shows_a_server_without_watch_list(self) -> None:
        """Such a server would never send the mark: do not wait for it."""
        state, verdict = on_bookmark(Syncing(), Bookmark("5", ends_initial=False))
        assert verdict is Verdict.ABANDON
        assert end(state, End(Cause.UNMARKED)).state == Syncing(How.CACHED, past=NO_WATCH_LIST)
        assert end(state, End(Cause.UNMARKED)).wait == 0

    def test_a_plain_bookmark_is_ignored_where_watch_list_is_known_to_work(self) -> None:
        """What was shown once is not forgotten."""
        assert on_bookmark(Syncing(past=SYNCED), Bookmark("5", ends_initial=False))[1] is Verdict.IGNORE

    def test_an_event_without_a_readable_version_keeps_the_version(self) -> None:
        """It is passed on: it may be skipped, but the watch goes on."""
        assert on_change(Watching("10", SYNCED), "")[0] == Watching("10", SYNCED, fruitful=True)


WATCHING = Watching("10", SYNCED)
RESYNC = "full sync"


class TestEndOfAWatch:
    @pytest.mark.parametrize(
        ("how", "next_", "wait"),
        [
            pytest.param(CLOSED, "10", 0, id="the server's timeout: go on at once"),
            pytest.param(End(Cause.OVERDUE), "10", 0, id="ours: likewise"),
            pytest.param(GONE, RESYNC, 0.8, id="410: full sync"),
            pytest.param(End(Cause.REFUSED, 410, "Gone"), RESYNC, 0.8, id="410 of either reason"),
            pytest.param(End(Cause.REFUSED, 500, "StorageReadError"), RESYNC, 0.8, id="unsafe delete: full sync"),
            pytest.param(End(Cause.REFUSED, 404, "NotFound"), RESYNC, 0.8, id="kind gone: full sync once it is back"),
            pytest.param(BUSY, "10", 0.8, id="429: from the same version"),
            pytest.param(NO_LEADER, "10", 0.8, id="500: from the same version"),
            pytest.param(End(Cause.REFUSED, 504, "Timeout"), "10", 0.8, id="504: from the same version"),
            pytest.param(End(Cause.REFUSED, 403, "Forbidden"), "10", 0.8, id="403: from the same version"),
            pytest.param(End(Cause.REFUSED, 401, "Unauthorized"), "10", 0.8, id="401: from the same version"),
            pytest.param(End(Cause.TRANSPORT), "10", 0.8, id="broken connection: from the same version"),
            pytest.param(End(Cause.GARBLED), "10", 0.8, id="nonsense: from the same version"),
            pytest.param(End(Cause.SILENT), "10", 0.8, id="silence: from the same version"),
        ],
    )
    def test_decides_where_to_go_on(self, how: End, next_: str, wait: float) -> None:
        """Only three things lead to a full sync."""
        decision = end(WATCHING, how)
        assert decision.wait == wait
        if next_ == RESYNC:
            assert isinstance(decision.state, Syncing)
        else:
            assert isinstance(decision.state, Watching)
            assert decision.state.version == next_

    def test_an_end_at_once_without_an_event_is_a_failure(self) -> None:
        """A server that closes every watch immediately is not asked in a tight loop."""
        assert end(WATCHING, CLOSED, lived=0.01).wait == 0.8
        assert end(replace(WATCHING, fruitful=True), CLOSED, lived=0.01).wait == pytest.approx(0.99)

    @pytest.mark.parametrize("how", [BUSY, NO_LEADER, End(Cause.TRANSPORT)])
    def test_refused_again_and_again_waits_double_to_the_cap(self, how: End) -> None:
        """0.8 s to 30 s, each stretched by at most as much again; never a full sync when the watch never opened."""
        for chance, stretch in ((0.0, 1.0), (0.999, 1.999)):
            state: State = WATCHING
            waits = []
            for _ in range(30):
                decision = end(state, how, lived=None, chance=chance)
                state = decision.state
                waits.append(decision.wait)
            expected = [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
            assert waits[:8] == pytest.approx([second * stretch for second in expected])
            assert waits[-1] == pytest.approx(30 * stretch)
            assert isinstance(state, Watching)

    def test_two_minutes_of_health_forget_the_failures(self) -> None:
        """Measured from the first success after the failure, over any number of good ends; a minute is too short."""
        for healthy, wait in ((60.0, 12.8), (121.0, 0.8)):
            state: State = Watching("10", replace(SYNCED, failures=4))
            state = on_open(state, 1000.0)
            state = end(state, CLOSED, lived=30.0, now=1030.0).state
            state = on_open(state, 1031.0)
            assert end(state, NO_LEADER, now=1000.0 + healthy).wait == pytest.approx(wait)

    @pytest.mark.parametrize(("said", "wait"), [(7.0, 7.0), (0.1, 0.8), (1e9, 300.0)])
    def test_retry_after_is_a_lower_bound_with_an_upper_one(self, said: float, wait: float) -> None:
        """Nothing that a server says makes us wait for days."""
        assert end(WATCHING, replace(BUSY, retry_after=said)).wait == wait

    def test_silence_is_healed_within_90_seconds_every_time(self) -> None:
        """75 s to notice it, and at worst 1.6 s of waiting, fifty times in a row."""
        state: State = Watching("10", SYNCED, fruitful=True)
        for _ in range(50):
            decision = end(state, End(Cause.SILENT), lived=80.0, chance=0.999)
            assert 75 + decision.wait < 90
            assert isinstance(decision.state, Watching)
            state = replace(decision.state, fruitful=True)

    @pytest.mark.parametrize("how", [NO_LEADER, End(Cause.SILENT), End(Cause.GARBLED)])
    def test_accepted_watches_that_bring_nothing_end_in_one_full_sync(self, how: End) -> None:
        """Up to a limit of ten: a version that this server can never serve is given up."""
        state: State = WATCHING
        for _ in range(9):
            state = end(state, how).state
            assert isinstance(state, Watching)
        assert isinstance(end(state, how).state, Syncing)

    def test_anything_brought_starts_the_count_again(self) -> None:
        """A slow collection is no broken one."""
        state: State = Watching("10", replace(SYNCED, barren=9), fruitful=True)
        assert end(state, NO_LEADER).state.past.barren == 0

    def test_throttling_never_ends_in_a_full_sync(self) -> None:
        """Neither by status nor inside the stream, however long."""
        state: State = WATCHING
        for _ in range(100):
            state = end(state, BUSY).state
        assert isinstance(state, Watching)


class TestEndOfASync:
    @pytest.mark.parametrize("status", [400, 405, 406, 422])
    def test_a_refused_watch_list_is_remembered_and_a_list_asked_for_at_once(self, status: int) -> None:
        """422 is what servers answer where the feature is off."""
        refused = end(Syncing(), End(Cause.REFUSED, status, "Invalid"), lived=None)
        assert refused == Decision(Syncing(How.CACHED, past=NO_WATCH_LIST), 0.0)
        watching, _ = on_page(refused.state, "7", "")
        again = end(watching, GONE)
        assert isinstance(again.state, Syncing)
        assert again.state.how is How.CONSISTENT

    @pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503])
    def test_other_refusals_say_nothing_about_watch_list(self, status: int) -> None:
        """It is asked for again, later."""
        decision = end(Syncing(), End(Cause.REFUSED, status), lived=None)
        assert isinstance(decision.state, Syncing)
        assert (decision.state.how, decision.state.past.watch_list) == (How.WATCH_LIST, Support.UNKNOWN)
        assert decision.wait == 0.8

    @pytest.mark.parametrize("cause", [Cause.CLOSED, Cause.SILENT, Cause.OVERDUE])
    def test_a_watch_list_that_ends_without_its_mark_falls_back(self, cause: Cause) -> None:
        """Unless the server has shown before that it can do it."""
        fallen = end(Syncing(), End(cause)).state
        assert fallen == Syncing(How.CACHED, past=NO_WATCH_LIST)
        kept = end(Syncing(past=SYNCED), End(cause)).state
        assert isinstance(kept, Syncing)
        assert kept.how is How.WATCH_LIST

    def test_a_fall_back_after_the_first_sync_does_not_go_back_in_time(self) -> None:
        """A cached list may be older than the store."""
        decision = end(Syncing(past=SYNCED), End(Cause.REFUSED, 422, "Invalid"))
        assert decision.state == Syncing(How.CONSISTENT, past=replace(NO_WATCH_LIST, synced=True))

    def test_an_expired_page_token_leads_to_the_full_list_at_once(self) -> None:
        """The pages so far are of a state that is gone."""
        paging = Syncing(How.CACHED, "tok", NO_WATCH_LIST)
        assert end(paging, GONE) == Decision(Syncing(How.CONSISTENT, past=NO_WATCH_LIST), 0.0)

    @pytest.mark.parametrize("how", [BUSY, NO_LEADER, End(Cause.TRANSPORT)])
    def test_a_failed_page_is_asked_for_again(self, how: End) -> None:
        """The pages before it stay good."""
        decision = end(Syncing(How.CACHED, "tok", NO_WATCH_LIST), how)
        assert isinstance(decision.state, Syncing)
        assert decision.state.token == "tok"

    def test_a_version_too_large_leads_to_a_list_without_version(self) -> None:
        """The server is behind the version asked for, or does not know it."""
        decision = end(Syncing(How.CACHED, past=NO_WATCH_LIST), End(Cause.REFUSED, 504, "Timeout"))
        assert isinstance(decision.state, Syncing)
        assert decision.state.how is How.CONSISTENT

    def test_a_consistent_list_that_expires_is_asked_for_again_with_waits(self) -> None:
        """Never in a tight loop."""
        state: State = Syncing(How.CONSISTENT, past=NO_WATCH_LIST)
        for wait in (0.8, 1.6, 3.2):
            decision = end(state, GONE, lived=None)
            assert decision.wait == wait
            state = decision.state


ENDS = st.one_of(
    st.sampled_from(Cause).filter(lambda cause: cause is not Cause.REFUSED).map(End),
    st.builds(
        End,
        st.just(Cause.REFUSED),
        st.sampled_from([400, 401, 403, 404, 410, 422, 429, 500, 503, 504]),
        st.sampled_from(["", "StorageReadError", "Expired", "Timeout"]),
        st.none() | st.floats(0, 1e6),
    ),
)
INPUTS = st.one_of(
    ENDS,
    st.integers(1, 99).map(str),
    st.builds(Bookmark, st.integers(1, 99).map(str), st.booleans()),
    st.tuples(st.integers(1, 99).map(str), st.sampled_from(["", "tok"])),
)


@given(st.lists(st.tuples(INPUTS, st.floats(0, 400), st.floats(0, 1, exclude_max=True))))
@settings(max_examples=300)
def test_no_history_breaks_a_rule(history: list[tuple[object, float, float]]) -> None:
    """Versions never go back while watching, waits are bounded, a state always has a request, 429 never lists."""
    state: State = Syncing()
    now, opened = 0.0, 0.0
    for step, lived, chance in history:
        before = state
        if isinstance(step, End):
            now = opened + lived
            decision = on_end(state, step, now=now, opened_at=opened, chance=chance)
            assert 0 <= decision.wait <= 600
            assert decision.state.past.failures <= before.past.failures + 1
            if isinstance(before, Watching) and step.status == 429 and step.reason != "StorageReadError":
                assert isinstance(decision.state, Watching)
            state = on_open(decision.state, opened := now + decision.wait)
        elif isinstance(step, Bookmark):
            state, _ = on_bookmark(state, step)
        elif isinstance(step, tuple):
            if isinstance(state, Syncing) and state.how is not How.WATCH_LIST:
                state, _ = on_page(state, *step)
        else:
            assert isinstance(step, str)
            state, _ = on_change(state, step)
        assert next_call(state, SCOPE, chance).request.path == "/api/v1/namespaces/ns/pods"
        if isinstance(before, Watching) and isinstance(state, Watching):
            assert int(state.version) >= int(before.version)


def test_a_herd_that_failed_together_comes_back_apart() -> None:
    """20 copies, 503 for 60 s: then at most 2 lists a second, spread over more than 20 s."""
    seeds = count(1)
    after: list[float] = []
    for _ in range(20):
        state: State = Syncing(How.CACHED, past=NO_WATCH_LIST)
        now = 0.0
        while now < 60.0:
            chance = (next(seeds) * 0.6180339887) % 1  # evenly spread, and the same in each run
            decision = on_end(state, End(Cause.REFUSED, 503), now=now, opened_at=None, chance=chance)
            state, now = decision.state, now + decision.wait
        after.append(now)
    assert max(after) - min(after) > 20
    busiest = max(sum(second <= other < second + 1 for other in after) for second in after)
    assert busiest <= 4  # 20 copies over some 50 s: below one a second on average
    assert len(after) / (max(after) - min(after)) <= 2
