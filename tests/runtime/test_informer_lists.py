"""Watcher conformance, too: what an informer makes of lists in pages, and of single events, bad ones included."""

import asyncio

import pytest

from tests.runtime.informerrig import (
    BOTH,
    HANG,
    SYNC,
    Script,
    Server,
    added,
    after,
    bookmark,
    deleted,
    error_event,
    listed,
    modified,
    raw,
    refusal,
    running,
)
from toe_async.runtime.keys import Key

pytestmark = pytest.mark.looptime


class TestLists:
    def no_watch_list(self, *script: Script) -> Server:
        return Server([refusal(422, "Invalid")], *script)

    async def test_pages_are_followed_to_their_end(self) -> None:
        """All of them, then a watch from the list's version."""
        server = self.no_watch_list(
            [listed(9, raw("a", 1, 1), token="t1")],
            [listed(9, raw("b", 2, 2), token="t2")],
            [listed(9, raw("c", 3))],
            [HANG],
        )
        async with running(server) as watched:
            await after(1)
            assert watched.things == BOTH | {"c": 0}
        assert [asked.query.get("continue") for asked in server.asked[1:4]] == [None, "t1", "t2"]
        assert {asked.query.get("limit") for asked in server.asked[1:4]} == {"500"}
        assert server.asked[4].query["resourceVersion"] == "9"

    async def test_a_consistent_list_is_not_paged_and_follows_only_an_expiry(self) -> None:
        """The first list may come from the server's cache, later ones may not."""
        server = self.no_watch_list([listed(9, raw("a", 1))], [error_event(410)], [listed(20, raw("b", 1))], [HANG])
        async with running(server) as watched:
            await after(10)
            assert watched.things == {"b": 0}
        assert server.asked[1].query == {"resourceVersion": "0", "limit": "500"}
        assert server.asked[3].query == {}

    async def test_a_refused_watch_list_is_remembered(self) -> None:
        """It is not tried again at the next full sync."""
        server = self.no_watch_list(
            [listed(9)], [error_event(410)], [listed(20)], [error_event(410)], [listed(30)], [HANG]
        )
        async with running(server):
            await after(20)
        assert server.verbs == ["watchlist", "list", "watch", "list", "watch", "list", "watch"]

    async def test_a_watch_list_without_its_mark_falls_back_to_a_list(self) -> None:
        """A server that knows nothing of sendInitialEvents just watches on."""
        server = Server([added("a", 3, 1), 10.0, bookmark(4), HANG], [listed(5, raw("a", 3, 1))], [HANG])
        async with running(server) as watched:
            await after(12)
            assert watched.things == {"a": 1}
            assert watched.informer.synced.is_set()
        assert server.verbs == ["watchlist", "list", "watch"]

    async def test_changes_during_a_watch_list_count(self) -> None:
        """Before its mark they only change what is gathered: no handler hears of an object that came and went."""
        server = Server(
            [added("a", 3), added("x", 4), modified("a", 11, 5), deleted("x", 12), bookmark(12, ends=True), HANG]
        )
        async with running(server) as watched:
            await watched.informer.synced.wait()
            assert watched.things == {"a": 5}
            assert watched.heard == [(None, ("a", 5))]

    @pytest.mark.parametrize("split", [True, False])
    async def test_one_undecodable_item_is_skipped_and_counted(self, *, split: bool) -> None:
        """The rest of the list is there, split or whole."""
        server = self.no_watch_list([listed(9, raw("a", 1, 1), raw("bad", 2, "text"), raw("b", 3, 2))], [HANG])
        async with running(server, split=split) as watched:
            await watched.informer.synced.wait()
            assert watched.things == BOTH
            assert watched.metric("toe_undecodable_objects_total") == 1

    async def test_a_list_that_ends_early_is_no_shorter_list(self) -> None:
        """It would be taken for deletions."""
        whole = listed(20, raw("a", 1), raw("b", 1))
        server = self.no_watch_list(
            [listed(9, raw("a", 1), raw("b", 1))], [error_event(410)], [whole[:-30]], [whole], [HANG]
        )
        async with running(server) as watched:
            await after(30)
            assert set(watched.things) == {"a", "b"}
            assert len(watched.heard) == 2

    async def test_a_list_is_read_before_it_is_complete_and_lets_others_run(self) -> None:
        """5,000 items in one chunk: the loop turns in between."""
        items = [raw(f"p{n}", n + 1) for n in range(5000)]
        server = self.no_watch_list([listed(6000, *items)], [HANG])
        turns = 0
        async with running(server) as watched:
            while not watched.informer.synced.is_set():
                turns += 1
                await asyncio.sleep(0)
            assert len(watched.things) == 5000
        assert turns >= 8  # 4 while gathering, 4 while telling


class TestEvents:
    async def test_a_bookmark_moves_the_version_and_is_not_delivered(self) -> None:
        """The next watch begins there."""
        server = Server([*SYNC, bookmark(500)], [HANG])
        async with running(server) as watched:
            await after(5)
            assert len(watched.heard) == 2
        assert server.asked[1].query["resourceVersion"] == "500"

    async def test_a_deletion_carries_the_last_state(self) -> None:
        """The one of the event, which is newer than the store's."""
        async with running(Server([*SYNC, deleted("a", 11, 9), HANG])) as watched:
            await after(1)
            assert watched.heard[-1] == (("a", 9), None)

    async def test_a_deletion_is_told_once(self) -> None:
        """Not again for an object that is not there."""
        async with running(Server([*SYNC, deleted("a", 11), deleted("a", 12), HANG])) as watched:
            await after(1)
            assert [new for _, new in watched.heard].count(None) == 1

    async def test_added_of_a_known_key_is_an_update(self) -> None:
        """And MODIFIED of an unknown one an addition."""
        async with running(Server([*SYNC, added("a", 11, 5), modified("new", 12, 6), HANG])) as watched:
            await after(1)
            assert watched.heard[2:] == [(("a", 1), ("a", 5)), (None, ("new", 6))]

    async def test_an_object_made_again_under_its_name_is_told_as_deleted_and_added(self) -> None:
        """By an event and by a full sync alike: another UID is another object."""
        server = Server(
            [*SYNC, added("a", 11, 5, uid="u2"), error_event(410)],
            [added("a", 11, 5, uid="u2"), added("b", 21, 6, uid="u2"), bookmark(30, ends=True), HANG],
        )
        async with running(server) as watched:
            await after(5)
            assert watched.heard[2:] == [(("a", 1), None), (None, ("a", 5)), (("b", 2), None), (None, ("b", 6))]

    async def test_another_kind_is_skipped_and_counted(self) -> None:
        """The watch goes on from its version."""
        server = Server([*SYNC, added("n", 11, kind="Node"), added("c", 12)], [HANG])
        async with running(server) as watched:
            await after(5)
            assert set(watched.things) == {"a", "b", "c"}
            assert watched.metric("toe_undecodable_objects_total") == 1
        assert server.asked[1].query["resourceVersion"] == "12"

    async def test_a_resync_tells_nothing_when_nothing_changed(self) -> None:
        """And the store keeps the very same objects, so that memory does not double."""
        server = Server([*SYNC, error_event(410)], [*SYNC, HANG])
        async with running(server) as watched:
            await watched.informer.synced.wait()
            before = watched.informer.store.get(Key("ns", "a"))
            await after(5)
            assert server.verbs == ["watchlist", "watchlist"]
            assert watched.informer.store.get(Key("ns", "a")) is before
            assert len(watched.heard) == 2

    async def test_list_and_watch_give_the_same_object(self) -> None:
        """One decoder for both, with and without kind and apiVersion in the bytes."""
        by_list = Server([refusal(422)], [listed(9, raw("a", 3, 1))], [HANG])
        by_watch = Server([added("a", 3, 1), bookmark(9, ends=True), HANG])
        async with running(by_list) as one, running(by_watch) as other:
            await after(1)
            assert one.informer.store.list() == other.informer.store.list() != ()

    async def test_duplicates_and_old_events_are_ignored(self) -> None:
        """A repeated ADDED does not bring a deleted object back."""
        server = Server([*SYNC, deleted("a", 11, 1), added("a", 3, 1), modified("b", 2, 99), deleted("b", 9), HANG])
        async with running(server) as watched:
            await after(1)
            assert watched.things == {"b": 2}
            assert len(watched.heard) == 3
