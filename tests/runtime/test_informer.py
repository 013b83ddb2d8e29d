"""Watcher conformance: what an informer does with everything that an API server, a proxy and a network may do.

The server is a script: for each request, in turn, what it answers. All waits run on virtual time, so the seconds that
are asserted are those that a cluster would see.
"""

import asyncio

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from tests.runtime.informerrig import (
    BOTH,
    HANG,
    SYNC,
    Script,
    Server,
    Thing,
    added,
    after,
    bookmark,
    deleted,
    error_event,
    informer_of,
    line,
    listed,
    modified,
    raw,
    refusal,
    running,
    under_way,
)
from toe_async.apis.kinds import PODS, PROFILING_CONFIGS
from toe_async.kube.errors import CredentialsError, KubeError, TransportError, UntrustedServer
from toe_async.lib.clock import SystemClock
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.telemetry.metrics import OperatorMetrics

pytestmark = pytest.mark.looptime


class TestLife:
    async def test_syncs_then_follows(self) -> None:
        """The whole way: first state, synced, changes, each told with old and new."""
        server = Server([*SYNC, 5.0, modified("a", 11, 7), added("c", 12, 3), deleted("b", 13, 2), HANG])
        async with running(server) as watched:
            await watched.informer.synced.wait()
            assert watched.things == BOTH
            assert watched.heard == [(None, ("a", 1)), (None, ("b", 2))]
            await after(6)
            assert watched.things == {"a": 7, "c": 3}
            assert watched.heard[2:] == [(("a", 1), ("a", 7)), (None, ("c", 3)), (("b", 2), None)]
        assert server.verbs == ["watchlist"]

    async def test_stops_before_the_first_answer(self) -> None:
        """Cancelled while the server thinks: nothing is left open."""
        async with running(Server([50.0, *SYNC])) as watched:
            await after(1)
            assert not watched.informer.synced.is_set()

    async def test_stops_between_events(self) -> None:
        """What was known stays readable."""
        async with running(Server([*SYNC, HANG])) as watched:
            await after(1)
        assert watched.things == BOTH

    async def test_stops_while_it_waits_to_try_again(self) -> None:
        """A wait is no reason to outlive a shutdown."""
        async with running(Server([refusal(503)] * 20)):
            await after(20)

    async def test_a_closed_watch_goes_on_from_the_last_version(self) -> None:
        """No list, nothing twice."""
        server = Server([*SYNC, modified("a", 11, 7)], [added("c", 12), HANG])
        async with running(server) as watched:
            await after(5)
            assert watched.things == {"a": 7, "b": 2, "c": 0}
        assert server.verbs == ["watchlist", "watch"]
        assert server.asked[1].query["resourceVersion"] == "11"
        assert server.gaps == [1.0]

    async def test_an_error_event_closes_the_watch(self) -> None:
        """What follows it in the same body is not read."""
        server = Server([*SYNC, error_event(500) + added("x", 99)], [HANG])
        async with running(server) as watched:
            await after(5)
            assert watched.things == BOTH
        assert server.asked[1].query["resourceVersion"] == "10"

    async def test_a_server_that_closes_each_second_is_followed_for_five_minutes(self) -> None:
        """About one watch a second, no list, no event lost."""
        server = Server([*SYNC, 1.0], *([added(f"n{n}", 11 + n), 1.0] for n in range(300)))
        async with running(server) as watched:
            await after(302)
            assert len(watched.things) == 302
        assert server.verbs.count("watchlist") == 1
        assert len(server.asked) <= 303

    async def test_a_server_that_closes_at_once_is_not_asked_in_a_loop(self) -> None:
        """kubernetes_asyncio's own Watch sends thousands of requests a second here."""
        server = Server(SYNC, *([] for _ in range(1000)))
        async with running(server):
            await after(60)
        assert len(server.asked) <= 9

    async def test_run_is_called_once_and_handlers_come_before_it(self) -> None:
        """Both mistakes are told at once."""
        async with running(Server([*SYNC, HANG])) as watched:
            await after(1)
            with pytest.raises(RuntimeError, match=r"before run\(\)"):
                watched.informer.add_handler(lambda old, new: None)
            with pytest.raises(RuntimeError, match="run already"):
                await watched.informer.run()

    async def test_a_handler_that_raises_changes_nothing(self) -> None:
        """Neither for the store nor for the other handlers; its error is logged."""
        watched = informer_of(Server([*SYNC, HANG]))

        def broken(old: Thing | None, new: Thing | None) -> None:
            raise ValueError("bug")

        watched.informer.add_handler(broken)
        second: list[str] = []
        watched.informer.add_handler(lambda old, new: second.append(new.metadata.name if new else ""))
        with capture_logs() as logs:
            async with under_way(watched):
                await watched.informer.synced.wait()
        assert second == ["a", "b"]
        assert watched.things == BOTH
        assert [entry["resource"] for entry in logs if entry.get("exc_info")] == ["pods", "pods"]


class TestExpiry:
    @pytest.mark.parametrize("gone", [[refusal(410, "Expired")], [error_event(410, "Gone")]], ids=["status", "event"])
    async def test_410_leads_to_one_full_sync_told_as_differences(self, gone: Script) -> None:
        """What is gone is told as deleted with its last state, what is new as added, what is equal not at all."""
        resync = [added("a", 3, 1), added("b", 21, 5), added("c", 22), bookmark(30, ends=True), HANG]
        server = Server([*SYNC, added("d", 11, 4)], gone, resync)
        async with running(server) as watched:
            await after(20)
            assert watched.things == {"a": 1, "b": 5, "c": 0}
            assert watched.heard[3:] == [(("d", 4), None), (("b", 2), ("b", 5)), (None, ("c", 0))]
            assert watched.metric("toe_relist_total") == 2
            assert watched.metric("toe_watch_restarts_total", reason="gone") == 1
        assert server.verbs == ["watchlist", "watch", "watchlist"]

    async def test_410_on_a_page_leads_to_the_full_list(self) -> None:
        """The first pages are of another state: what only they held is not kept."""
        server = Server(
            [refusal(422, "Invalid")],
            [listed(5, raw("old", 1), token="t")],
            [refusal(410, "Expired")],
            [listed(9, raw("a", 8))],
            [HANG],
        )
        async with running(server) as watched:
            await watched.informer.synced.wait()
            assert watched.things == {"a": 0}
        assert server.verbs == ["watchlist", "list", "list", "list", "watch"][: len(server.asked)]
        assert not {"resourceVersion", "continue", "limit"} & set(server.asked[3].query)

    async def test_a_version_too_large_leads_to_a_list_without_version(self) -> None:
        """A replica behind the others, or a restored etcd."""
        server = Server([refusal(422, "Invalid")], [refusal(504, "Timeout")], [listed(9, raw("a", 8))], [HANG])
        async with running(server) as watched:
            await watched.informer.synced.wait()
            assert watched.things == {"a": 0}
        assert server.asked[1].query["resourceVersion"] == "0"
        assert "resourceVersion" not in server.asked[2].query

    async def test_an_unsafe_delete_replaces_the_store(self) -> None:
        """An object that the server itself could not decode went away: no event can tell which."""
        server = Server(
            [*SYNC, error_event(500, "StorageReadError")], [added("a", 3, 1), bookmark(12, ends=True), HANG]
        )
        async with running(server) as watched:
            await after(10)
            assert watched.things == {"a": 1}
            assert watched.heard[2:] == [(("b", 2), None)]

    async def test_a_full_sync_is_put_in_place_at_once(self) -> None:
        """No reader ever sees a store that is half old and half new, or empty."""
        server = Server(
            [*SYNC, error_event(410)], [added("c", 20), 5.0, added("d", 21), 5.0, bookmark(30, ends=True), HANG]
        )
        seen: set[frozenset[str]] = set()
        async with running(server) as watched:
            await watched.informer.synced.wait()
            for _ in range(60):
                seen.add(frozenset(watched.things))
                await after(0.5)
        assert seen == {frozenset("ab"), frozenset("cd")}

    async def test_a_sync_that_breaks_half_way_leaves_nothing_behind(self) -> None:
        """Neither in the store nor in the next try."""
        server = Server([added("ghost", 1), TransportError("reset")], [*SYNC, HANG])
        async with running(server) as watched:
            await watched.informer.synced.wait()
            assert watched.things == BOTH


class TestRefusal:
    async def test_429_on_a_watch_backs_off_without_a_list(self) -> None:
        """Retry-After is honoured; lists stay at one."""
        server = Server([*SYNC, 60.0], *[[refusal(429, "", 7.0)] for _ in range(5)])
        async with running(server) as watched:
            await after(200)
            assert watched.metric("toe_relist_total") == 1
            assert watched.metric("toe_watch_restarts_total", reason="throttled") == 5
        assert server.verbs == ["watchlist", *["watch"] * 6]
        assert server.gaps[1:] == [7.0, 7.0, 7.0, 7.0, 12.8]

    async def test_429_inside_the_stream_backs_off_without_a_list(self) -> None:
        """The event's own Retry-After counts."""
        server = Server(SYNC, *[[error_event(429, "TooManyRequests", 4)] for _ in range(20)], [HANG])
        async with running(server) as watched:
            await after(1200)
            assert watched.metric("toe_relist_total") == 1
        assert min(server.gaps[1:20]) >= 4
        assert server.verbs[:22] == ["watchlist", *["watch"] * 21]

    async def test_no_leader_is_retried_up_to_a_limit(self) -> None:
        """Ten times from the same version, with growing waits; then the version itself is given up."""
        server = Server([*SYNC, 60.0], *[[error_event(500, "InternalError")] for _ in range(10)], [*SYNC])
        async with running(server) as watched:
            await after(300)
            assert watched.things == BOTH
        assert server.verbs[:12] == ["watchlist", *["watch"] * 10, "watchlist"]
        assert server.verbs.count("watchlist") == 2
        assert server.gaps[1:7] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6]

    @pytest.mark.parametrize(("chance", "stretch"), [(0.0, 1.0), (0.5, 1.5)])
    async def test_refused_connections_wait_from_800_ms_to_30_s(self, chance: float, stretch: float) -> None:
        """Doubling, with jitter on top."""
        server = Server(*[[TransportError("connection refused")] for _ in range(9)], [*SYNC, HANG])
        async with running(server, chance=chance) as watched:
            await watched.informer.synced.wait()
        waits = [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]
        assert server.gaps == pytest.approx([wait * stretch for wait in waits])

    async def test_two_minutes_of_health_begin_the_waits_anew(self) -> None:
        """One failure an hour never waits for half a minute."""
        failing = [[TransportError("refused")]] * 5
        server = Server(*failing, [*SYNC, *[50.0, bookmark(20)] * 3], [TransportError("refused")])
        async with running(server):
            await after(260)
        assert server.gaps[:5] == [0.8, 1.6, 3.2, 6.4, 12.8]
        assert server.gaps[-1] == 0.8

    async def test_forbidden_then_allowed(self) -> None:
        """The sentence names verb, resource and namespace scope, and goes away by itself."""
        server = Server(*[[refusal(403, "Forbidden")]] * 4, [*SYNC, HANG])
        async with running(server) as watched:
            await after(5)
            sentence = (
                'watch of pods: forbidden; grant the verb "watch" on resource "pods" of API group "" in all namespaces'
            )
            assert watched.informer.forbidden == watched.informer.problem == sentence
            assert watched.informer.check() == f"pods not synced: {sentence}"
            await watched.informer.synced.wait()
            assert watched.informer.problem is watched.informer.forbidden is watched.informer.check() is None

    async def test_forbidden_while_watching_keeps_what_is_known(self) -> None:
        """A right taken away for a moment is no deletion."""
        server = Server([*SYNC, 10.0], [refusal(403, "Forbidden")], [modified("a", 12, 9), HANG])
        async with running(server) as watched:
            await after(30)
            assert watched.things == {"a": 9, "b": 2}
        assert server.verbs == ["watchlist", "watch", "watch"]


class TestOurs:
    async def test_a_silent_watch_is_healed_within_90_seconds_fifty_times(self) -> None:
        """No RST, no byte: found by the missing bookmarks, at the worst jitter; no full sync."""
        silent = [[bookmark(20 + n), HANG] for n in range(50)]
        server = Server([*SYNC, HANG], *silent, [added("c", 100), HANG])
        async with running(server, chance=0.999) as watched:
            while "c" not in watched.things:
                await after(10)
            assert watched.metric("toe_watch_restarts_total", reason="silent") == 51
        assert max(server.gaps) < 90
        assert server.verbs.count("watchlist") == 1

    async def test_bookmarks_once_a_minute_keep_a_quiet_watch_alive(self) -> None:
        """Nothing is restarted before the server's own timeout; the age of the last sign is seen in the metrics."""
        server = Server([*SYNC, *[60.0, bookmark(20)] * 5])
        async with running(server) as watched:
            await after(290)
            assert len(server.asked) == 1
            assert watched.metric("toe_watch_last_event_age_seconds") == watched.informer.stalled_for() == 50.0

    async def test_a_server_that_accepts_and_never_answers_is_left(self) -> None:
        """Before the first byte, too."""
        server = Server([HANG], [HANG], [listed(5, raw("a", 1))], [HANG])
        async with running(server) as watched:
            await watched.informer.synced.wait()
            assert watched.things == {"a": 0}
        assert server.gaps[0] == 75.8

    async def test_a_list_that_trickles_for_ever_is_left(self) -> None:
        """Ten minutes are enough for any list."""
        trickle: Script = [b" ", 50.0] * 100
        server = Server([refusal(422)], trickle, [listed(5)], [HANG])
        async with running(server) as watched:
            await watched.informer.synced.wait()
        assert server.gaps[1] == pytest.approx(600.8)

    async def test_silence_is_told_to_health(self) -> None:
        """With the seconds and the reason."""
        server = Server(SYNC, *[[TransportError("connection refused by 10.0.0.1:6443")]] * 20)
        async with running(server) as watched:
            await after(100)
            assert watched.informer.check() is None
            await after(100)
            said = watched.informer.check()
            assert said is not None
            assert said.startswith("no sign of life of pods for 200 s: watch of pods: connection refused")

    async def test_json_split_at_every_byte_is_the_same_stream(self) -> None:
        """Two chunks for each possible cut, an umlaut's two bytes included."""
        body = b"".join([*SYNC, line("MODIFIED", raw("ä", 11, 7)), deleted("a", 12)])
        for at in range(0, len(body), 3):
            async with running(Server([body[:at], 0.1, body[at:], HANG])) as watched:
                await after(1)
                assert watched.things == {"b": 2, "ä": 7}

    async def test_an_event_of_a_megabyte_is_one_event(self) -> None:
        """In chunks as small as a network makes them."""
        big = added("a", 11, 7)[:-3] + b',"blob":"' + b"x" * (1 << 20) + b'"}}\n'
        server = Server([*SYNC, *(big[at : at + 16000] for at in range(0, len(big), 16000)), HANG])
        async with running(server) as watched:
            await after(1)
            assert watched.things == {"a": 7, "b": 2}

    async def test_a_last_line_without_newline_is_a_broken_stream(self) -> None:
        """It is not delivered, and comes again from the last version."""
        server = Server([*SYNC, added("c", 11)[:-1]], [added("c", 11), HANG])
        async with running(server) as watched:
            await after(0.5)
            assert set(watched.things) == {"a", "b"}
            await after(1)
            assert set(watched.things) == {"a", "b", "c"}
            assert watched.metric("toe_watch_restarts_total", reason="transport") == 1
        assert server.asked[1].query["resourceVersion"] == "10"

    @pytest.mark.parametrize("event", ["ADDED", "MODIFIED"])
    @pytest.mark.parametrize(
        "bad",
        [raw("bad", 11, "text"), raw("bad", 11).replace(b'"u"', b'"\xff\xfe"'), b'{"kind":"Pod"}', b"{}", b"[]"],
        ids=["another type", "invalid UTF-8", "no metadata", "empty", "no object"],
    )
    async def test_an_undecodable_object_is_skipped_and_the_rest_goes_on(self, event: str, bad: bytes) -> None:
        """Counted, too."""
        server = Server([*SYNC, line(event, bad) + added("c", 12), HANG])
        async with running(server) as watched:
            await after(1)
            assert set(watched.things) == {"a", "b", "c"}
            assert watched.metric("toe_undecodable_objects_total") == 1
            assert watched.metric("toe_informer_objects") == 3

    async def test_an_object_that_becomes_undecodable_keeps_its_last_good_state(self) -> None:
        """On a watch and on a full sync; its deletion is told, with that state."""
        server = Server(
            [*SYNC, modified("a", 11, "text"), error_event(410)],
            [added("a", 11, "text"), added("b", 2, 2), bookmark(30, ends=True), 10.0, deleted("a", 31, "text"), HANG],
        )
        async with running(server) as watched:
            await after(5)
            assert watched.things == BOTH
            await after(20)
            assert watched.heard[2:] == [(("a", 1), None)]

    @pytest.mark.parametrize(
        "body",
        [b"<html>\n<h1>502</h1>\n</html>\n", b'{"message":"no"}\n', b'{"type":"BOOKMARK","object":{}}\n', b"\xff\n"],
    )
    async def test_a_page_of_a_proxy_is_never_an_event(self, body: bytes) -> None:
        """The watch begins again from its version."""
        server = Server([*SYNC, body], [added("c", 11), HANG])
        async with running(server) as watched:
            await after(5)
            assert set(watched.things) == {"a", "b", "c"}
            assert watched.metric("toe_watch_restarts_total", reason="garbled") == 1
        assert server.verbs == ["watchlist", "watch"]

    async def test_an_error_handed_back_as_a_body_is_that_error(self) -> None:
        """A Status under HTTP 200: 410 leads to a full sync."""
        status = b'{"kind":"Status","apiVersion":"v1","code":410,"reason":"Expired","message":"too old"}\n'
        server = Server(SYNC, [status], [*SYNC, HANG])
        async with running(server):
            await after(10)
        assert server.verbs == ["watchlist", "watch", "watchlist"]

    async def test_a_compressed_body_cut_short_is_a_broken_stream(self) -> None:
        """As the client tells it: nothing is lost, nothing twice."""
        server = Server([*SYNC, added("c", 11), TransportError("payload not complete")], [added("d", 12), HANG])
        async with running(server) as watched:
            await after(5)
            assert set(watched.things) == {"a", "b", "c", "d"}
            assert len(watched.heard) == 4
        assert server.asked[1].query["resourceVersion"] == "11"

    async def test_a_kind_that_does_not_exist_yet_is_waited_for(self) -> None:
        """With waits, a sentence and no crash."""
        server = Server(*[[refusal(404, "NotFound")]] * 8, [bookmark(5, ends=True), HANG])
        async with running(server, kind=PROFILING_CONFIGS) as watched:
            await after(20)
            problem = watched.informer.problem or ""
            assert problem.startswith("watch of profilingconfigs.profiling.io: the server does not know")
            assert problem.endswith("install its CustomResourceDefinition")
            await watched.informer.synced.wait()
            assert watched.informer.check() is None
        assert server.gaps[:6] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6]

    async def test_a_kind_deleted_and_made_again_is_another_collection(self) -> None:
        """Nothing is called deleted before it is known; then what did not come back is."""
        server = Server(
            [*SYNC, 5.0],
            *[[refusal(404, "NotFound")]] * 3,
            [added("a", 50, 8, uid="u2"), bookmark(60, ends=True), HANG],
        )
        async with running(server) as watched:
            await after(6)
            assert watched.things == BOTH
            await after(20)
            assert watched.things == {"a": 8}
            assert watched.heard[2:] == [(("b", 2), None), (("a", 1), None), (None, ("a", 8))]

    @pytest.mark.parametrize(
        "refused", [refusal(401, "Unauthorized"), UntrustedServer("CA rotated"), CredentialsError("no token file")]
    )
    async def test_credentials_rotated_in_mid_watch_cost_only_a_wait(self, refused: KubeError) -> None:
        """The client gets fresh ones; the watch goes on from its version."""
        server = Server([*SYNC, 60.0], [refused], [refused], [added("c", 11), HANG])
        async with running(server) as watched:
            await after(70)
            assert set(watched.things) == {"a", "b", "c"}
        assert server.verbs == ["watchlist", "watch", "watch", "watch"]

    async def test_many_events_in_one_chunk_let_others_run(self) -> None:
        """A storm is worked off in turns of a thousand."""
        storm = b"".join(modified("a", 11 + n, n) for n in range(10_000))
        turns = 0
        async with running(Server([*SYNC, storm, HANG])) as watched:
            while watched.things.get("a") != 9_999:
                turns += 1
                await asyncio.sleep(0)
            assert len(watched.heard) == 10_002
        assert turns >= 10

    async def test_the_decoder_is_reset_before_each_full_sync_and_never_else(self) -> None:
        """What it shares between objects must not outlive them."""
        server = Server([*SYNC, modified("a", 11), error_event(410)], [*SYNC, HANG])
        resets = []
        informer = Informer(
            server,
            PODS,
            msgspec.json.Decoder(Thing).decode,
            key_of=lambda thing: Key(thing.metadata.namespace, thing.metadata.name),
            version_of=lambda thing: thing.metadata.resource_version,
            clock=SystemClock(),
            metrics=OperatorMetrics(CollectorRegistry()),
            namespace="ns",
            reset_decoder=lambda: resets.append(len(server.asked)),
        )
        task = asyncio.create_task(informer.run())
        await after(10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert resets == [1, 2]
        assert informer.resource == "ns/pods"
