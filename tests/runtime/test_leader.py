"""Candidates for one Lease, a server that keeps the real one's rules, and all that may go wrong between them.

Virtual time throughout. What must never be seen: two works that overlap, or two fences that are open at once.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from toe_async.kube.errors import AlreadyExists, Conflict, NotFound, TransportError
from toe_async.kube.requests import Request
from toe_async.lib.clock import Clock
from toe_async.lib.tasks import TaskOwner, cancel_and_wait
from toe_async.runtime.errors import NotLeadingError
from toe_async.runtime.leader import LeaderElector
from toe_async.telemetry.metrics import OperatorMetrics

pytestmark = pytest.mark.looptime

Value = Callable[..., float]

LATEST_TAKEOVER = 4.4 + 15 + 4.4 + 0.1
"""Seconds from the last renewal: the look that sees it, the lease's duration, the look after that, and the answers."""


class LeaseServer:
    """One Lease with optimistic locking, and a ledger of every write that came through."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.writes: list[tuple[float, str]] = []

    def serve(self, request: Request) -> bytes:
        assert request.path.startswith("/apis/coordination.k8s.io/v1/namespaces/ns/leases")
        match request.method:
            case "GET":
                if self.lease is None:
                    raise NotFound(404, "NotFound", "no such lease")
            case "POST":
                if self.lease is not None:
                    raise AlreadyExists(409, "AlreadyExists", "it exists")
                self.store(request)
            case "PUT":
                if self.lease is None:
                    raise NotFound(404, "NotFound", "no such lease")
                assert request.body is not None
                if json.loads(request.body)["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                    raise Conflict(409, "Conflict", "it was modified")
                self.store(request)
            case other:
                raise AssertionError(other)
        return json.dumps(self.lease).encode()

    def store(self, request: Request) -> None:
        assert request.body is not None
        lease = json.loads(request.body)
        for field in ("acquireTime", "renewTime"):  # MicroTime is parsed by a fixed layout
            datetime.strptime(lease["spec"][field], "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007
            assert len(lease["spec"][field]) == len("2026-01-24T20:44:08.000000Z")
        self.put(lease)
        self.writes.append((self.clock.monotonic(), lease["spec"]["holderIdentity"]))

    def put(self, lease: dict[str, Any]) -> None:
        """Also used by tests as another party that writes."""
        self.version += 1
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec


class Link:
    """One candidate's way to the server, with faults."""

    def __init__(self, server: LeaseServer) -> None:
        self.server = server
        self.down = False
        self.black_hole = False
        self.lose_replies = 0
        self.latency = 0.0

    async def send(self, request: Request) -> bytes:
        assert request.timeout is not None
        await asyncio.sleep(self.latency)
        if self.black_hole:
            await asyncio.sleep(request.timeout)
        if self.down or self.black_hole:
            raise TransportError("no route")
        answer = self.server.serve(request)
        if self.lose_replies and request.method != "GET":
            self.lose_replies -= 1
            raise TransportError("the reply was lost")
        await asyncio.sleep(self.latency)
        return answer


class OwnClock:
    """One machine's clocks: the wall clock may be wrong, the monotonic one may jump after a pause."""

    def __init__(self, base: Clock, skew: timedelta = timedelta(0)) -> None:
        self.base, self.skew, self.paused = base, skew, 0.0

    def now(self) -> datetime:
        return self.base.now() + self.skew

    def monotonic(self) -> float:
        return self.base.monotonic() + self.paused


class Candidate:
    """An elector, its link and its clock, and when its work ran."""

    def __init__(self, world: "World", name: str, skew: timedelta) -> None:
        self.world, self.name = world, name
        self.link = Link(world.server)
        self.clock = OwnClock(world.clock, skew)
        self.metrics = OperatorMetrics(CollectorRegistry())
        self.elector = LeaderElector(
            self.link, namespace="ns", name="l", identity=name, clock=self.clock, metrics=self.metrics
        )
        self.terms: list[tuple[float, float | None]] = []
        self.wind_down = 0.0

    async def lead(self) -> None:
        started = self.world.clock.monotonic()
        assert not self.world.working, f"{self.name} began while {self.world.working} worked"
        self.world.working.add(self.name)
        self.terms.append((started, None))
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.sleep(self.wind_down)
            finally:
                self.world.working.discard(self.name)
                self.terms[-1] = (started, self.world.clock.monotonic())

    def works(self) -> bool:
        return self.name in self.world.working


class World:
    """The server and everybody around it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.server = LeaseServer(clock)
        self.working: set[str] = set()
        self.candidates: list[Candidate] = []
        self.failures: list[str] = []

    def candidate(self, name: str, skew: timedelta = timedelta(0)) -> Candidate:
        self.candidates.append(Candidate(self, name, skew))
        return self.candidates[-1]

    @asynccontextmanager
    async def running(self, *candidates: Candidate) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
        async with TaskOwner(lambda name, error: self.failures.append(f"{name}: {error!r}")) as owner:
            owner.start(self._watch(), name="referee")
            yield {one.name: owner.start(one.elector.run(one.lead), name=one.name) for one in candidates}
        assert not self.failures

    async def _watch(self) -> None:
        while True:
            leaders = [one.name for one in self.candidates if one.elector.is_leader]
            assert len(leaders) <= 1, leaders
            await asyncio.sleep(0.5)


@pytest.fixture
def world(clock: Clock) -> World:
    """An empty one."""
    return World(clock)


async def test_the_first_candidate_leads_at_once(world: World, clock: Clock) -> None:
    """It makes the Lease and says who it is."""
    one = world.candidate("one")
    async with world.running(one):
        await asyncio.sleep(0.1)
        assert one.works()
        assert one.elector.is_leader
        one.elector.fence()
        assert world.server.spec["holderIdentity"] == "one"
        assert world.server.spec["leaseDurationSeconds"] == 15
        assert world.server.spec["leaseTransitions"] == 0
        sample = one.metrics.registry.get_sample_value("leader_election_master_status", {"name": "l"})
        assert sample == 1


async def test_a_leader_writes_once_in_two_seconds_and_others_not_at_all(world: World) -> None:
    """That is all an idle operator may write."""
    one, two = world.candidate("one"), world.candidate("two")
    async with world.running(one, two):
        await asyncio.sleep(600)
        writes = list(world.server.writes)
    assert {holder for _, holder in writes} == {"one"}
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(writes)]
    assert min(gaps) >= 1.999
    assert len(writes) <= 302


async def test_the_fence_is_closed_for_everybody_else(world: World) -> None:
    """And the message says who leads."""
    one, two = world.candidate("one"), world.candidate("two")
    with pytest.raises(NotLeadingError, match="nobody"):
        one.elector.fence()
    async with world.running(one, two):
        await asyncio.sleep(6)
        with pytest.raises(NotLeadingError, match="holder: one"):
            two.elector.fence()
    with pytest.raises(NotLeadingError):
        one.elector.fence()


async def test_a_stopped_leader_gives_the_lease_up(world: World, clock: Clock) -> None:
    """The next one leads within one retry period and its jitter; the change of hands is counted."""
    one, two = world.candidate("one"), world.candidate("two")
    async with world.running(one, two) as tasks:
        await asyncio.sleep(30)
        await cancel_and_wait(tasks["one"])
        assert (world.server.spec["holderIdentity"], one.works()) == ("", False)
        stopped = clock.monotonic()
        await asyncio.sleep(5)
        assert two.works()
        assert two.terms[0][0] - stopped <= 4.4
        assert world.server.spec["leaseTransitions"] == 1


async def test_renewal_goes_on_while_the_work_winds_down(world: World, clock: Clock) -> None:
    """However long it takes, nobody begins before it has ended."""
    one, two = world.candidate("one"), world.candidate("two")
    one.wind_down = 40
    async with world.running(one, two) as tasks:
        await asyncio.sleep(10)
        await cancel_and_wait(tasks["one"])
        assert clock.monotonic() == pytest.approx(50, abs=0.1)
        assert not two.works()
        await asyncio.sleep(5)
        assert two.works()


async def test_a_dead_leader_is_followed_when_its_lease_has_run_out(world: World) -> None:
    """15 s after its last renewal was seen, at the next retry."""
    one, two = world.candidate("one"), world.candidate("two")
    async with world.running(one, two):
        await asyncio.sleep(31)
        one.link.down = True
        last = world.server.writes[-1][0]
        await asyncio.sleep(30)
        assert one.terms[0][1] == pytest.approx(last + 10, abs=0.1)
        assert last + 15 <= two.terms[0][0] <= last + LATEST_TAKEOVER
        assert world.server.spec["leaseTransitions"] == 1


@pytest.mark.parametrize("fault", ["down", "black_hole"])
async def test_an_outage_shorter_than_the_deadline_is_survived(world: World, fault: str) -> None:
    """Refused connections and requests that hang alike."""
    one, two = world.candidate("one"), world.candidate("two")
    async with world.running(one, two):
        await asyncio.sleep(30)
        for link in (one.link, two.link):
            setattr(link, fault, True)
        await asyncio.sleep(6)
        for link in (one.link, two.link):
            setattr(link, fault, False)
        await asyncio.sleep(60)
        assert one.terms == [(0, None)]


@pytest.mark.parametrize("fault", ["down", "black_hole"])
async def test_a_longer_outage_stops_the_work_and_one_of_them_leads_again_afterwards(world: World, fault: str) -> None:
    """Within the deadline of 10 s, which is 5 s before anybody else could begin."""
    one, two = world.candidate("one"), world.candidate("two")
    async with world.running(one, two):
        await asyncio.sleep(31)
        last = world.server.writes[-1][0]
        for link in (one.link, two.link):
            setattr(link, fault, True)
        await asyncio.sleep(60)
        assert one.terms[0][1] == pytest.approx(last + 10, abs=0.1)
        assert not world.working
        for link in (one.link, two.link):
            setattr(link, fault, False)
        await asyncio.sleep(20)
        assert len(world.working) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 0), (600, -600), (-600, 600), (86_400, 0), (0, -86_400)],
)
async def test_wrong_wall_clocks_do_no_harm(world: World, first: float, second: float) -> None:
    """Ten minutes or a day apart, in both directions: nobody begins too early, and nobody waits longer."""
    one = world.candidate("one", timedelta(seconds=first))
    two = world.candidate("two", timedelta(seconds=second))
    async with world.running(one, two):
        await asyncio.sleep(61)
        assert one.terms == [(0, None)]
        last = world.server.writes[-1][0]
        one.link.down = True
        await asyncio.sleep(30)
        assert last + 15 <= two.terms[0][0] <= last + LATEST_TAKEOVER


async def test_a_process_that_was_stopped_finds_its_fence_closed_at_once(world: World) -> None:
    """SIGSTOP for 30 s: before any of its timers runs, a write is refused; then its work is stopped."""
    one = world.candidate("one")
    async with world.running(one):
        await asyncio.sleep(31)
        one.elector.fence()
        one.clock.paused += 30
        with pytest.raises(NotLeadingError):
            one.elector.fence()
        assert one.works()
        await asyncio.sleep(2.1)
        # Nobody took the lease meanwhile, so it leads again, in a term of its own.
        assert [ended is not None for _, ended in one.terms] == [True, False]


async def test_who_was_stopped_and_followed_does_not_come_back(world: World) -> None:
    """It finds the other's name in the Lease."""
    one, two = world.candidate("one"), world.candidate("two")
    async with world.running(one, two):
        await asyncio.sleep(31)
        one.link.black_hole = True
        await asyncio.sleep(30)
        one.link.black_hole = False
        one.clock.paused += 30
        await asyncio.sleep(60)
        assert two.works()
        assert len(one.terms) == 1
        assert one.elector.holder == "two"


async def test_a_touched_lease_is_renewed_all_the_same_and_the_touch_is_kept(world: World) -> None:
    """Somebody labels it: one conflict, no loss, and the label stays."""
    one = world.candidate("one")
    async with world.running(one):
        await asyncio.sleep(31)
        assert world.server.lease is not None
        lease = json.loads(json.dumps(world.server.lease))
        lease["metadata"]["labels"] = {"team": "a"}
        world.server.put(lease)
        await asyncio.sleep(30)
        assert one.terms == [(0, None)]
        assert world.server.lease["metadata"]["labels"] == {"team": "a"}
        assert len(world.server.writes) >= 30


async def test_a_deleted_lease_is_made_again(world: World) -> None:
    """By its holder, who goes on leading."""
    one = world.candidate("one")
    async with world.running(one):
        await asyncio.sleep(31)
        world.server.lease = None
        await asyncio.sleep(5)
        assert world.server.spec["holderIdentity"] == "one"
        assert one.terms == [(0, None)]


async def test_a_lost_reply_is_not_taken_for_a_loss(world: World) -> None:
    """The write came through; the next try finds its own name."""
    one = world.candidate("one")
    async with world.running(one):
        await asyncio.sleep(31)
        one.link.lose_replies = 3
        await asyncio.sleep(60)
        assert one.terms == [(0, None)]


async def test_a_lost_reply_to_the_first_write_still_ends_in_one_leader(world: World) -> None:
    """The Lease names it although it does not know."""
    one, two = world.candidate("one"), world.candidate("two")
    one.link.lose_replies = 1
    async with world.running(one, two):
        await asyncio.sleep(10)
        assert world.working == {"one"}


async def test_somebody_elses_name_in_the_lease_ends_the_term_at_once(world: World, clock: Clock) -> None:
    """An administrator may move the leadership by hand; the fence closes before the work has ended."""
    one = world.candidate("one")
    one.wind_down = 3
    async with world.running(one):
        await asyncio.sleep(31)
        assert world.server.lease is not None
        lease = json.loads(json.dumps(world.server.lease))
        lease["spec"] |= {"holderIdentity": "somebody", "leaseDurationSeconds": 15}
        world.server.put(lease)
        await asyncio.sleep(2.1)
        assert one.works()
        assert not one.elector.is_leader
        await asyncio.sleep(3.5)
        assert not one.works()
        assert world.server.spec["holderIdentity"] == "somebody"


async def test_a_slow_link_makes_the_term_shorter_and_never_longer(world: World, clock: Clock) -> None:
    """The deadline counts from when a renewal was sent; the others count from when they see it, which is later."""
    one = world.candidate("one")
    one.link.latency = 0.9
    async with world.running(one):
        await asyncio.sleep(60)
        count = len(world.server.writes)
        while len(world.server.writes) == count:
            await asyncio.sleep(0.1)
        one.link.down = True  # this reply comes through, no further request does
        await asyncio.sleep(9)
        assert one.elector.is_leader
        await asyncio.sleep(0.3)
        assert not one.elector.is_leader


async def test_two_that_start_together_agree(world: World) -> None:
    """Creation is decided by the server, and so is every takeover."""
    candidates = [world.candidate(str(number)) for number in range(5)]
    for one in candidates:
        one.link.latency = 0.05
    async with world.running(*candidates):
        await asyncio.sleep(10)
        assert len(world.working) == 1


async def test_a_restarted_leader_goes_on_under_its_name(world: World, clock: Clock) -> None:
    """A container that crashed comes back as the same pod: it need not wait for itself."""
    one = world.candidate("one")
    async with world.running(one) as tasks:
        await asyncio.sleep(31)
        one.link.down = True  # so that nothing is given up
        await cancel_and_wait(tasks["one"])
    again = world.candidate("one")
    async with world.running(again):
        await asyncio.sleep(0.1)
        assert again.works()
        assert world.server.spec["leaseTransitions"] == 0


async def test_work_that_ends_gives_the_lease_up_and_ends_the_candidacy(world: World, value: Value) -> None:
    """It said that it has nothing more to do."""
    one = world.candidate("one")

    async def work() -> None:
        await asyncio.sleep(5)

    await one.elector.run(work)
    assert world.server.spec["holderIdentity"] == ""
    assert one.metrics.registry.get_sample_value("leader_election_master_status", {"name": "l"}) == 0


async def test_work_that_fails_gives_the_lease_up_and_says_so(world: World) -> None:
    """Another replica may have more luck."""
    one = world.candidate("one")

    async def work() -> None:
        await asyncio.sleep(5)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await one.elector.run(work)
    assert world.server.spec["holderIdentity"] == ""


async def test_a_lease_that_cannot_be_read_ends_nothing(world: World) -> None:
    """Somebody stored rubbish in it; candidates go on trying."""
    one = world.candidate("one")
    world.server.put({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": "long"}})
    async with world.running(one):
        await asyncio.sleep(30)
        assert not one.works()
        world.server.lease = None
        await asyncio.sleep(5)
        assert one.works()


async def test_a_release_that_fails_does_not_hold_up_the_stop(world: World, clock: Clock) -> None:
    """The API server is gone: the others wait for the lease to run out."""
    one = world.candidate("one")
    async with world.running(one) as tasks:
        await asyncio.sleep(31)
        one.link.black_hole = True
        await cancel_and_wait(tasks["one"])
        assert clock.monotonic() <= 33.5


def test_an_empty_identity_is_refused(world: World, clock: Clock, metrics: OperatorMetrics) -> None:
    """It would mean that nobody holds the lease."""
    link = Link(world.server)
    with pytest.raises(ValueError, match="identity"):
        LeaderElector(link, namespace="ns", name="l", identity="", clock=clock, metrics=metrics)


@pytest.mark.parametrize(
    ("seed", "faults"),
    [(1, 20), (2, 20), (3, 20), *(pytest.param(seed, 120, marks=pytest.mark.slow) for seed in (4, 5))],
)
async def test_through_random_faults_never_two_lead(world: World, seed: int, faults: int) -> None:
    """Outages, black holes, slow links, lost replies, pauses, stops, skewed clocks; and in the end somebody leads."""
    rng = random.Random(seed)
    candidates = [world.candidate(name, timedelta(seconds=rng.uniform(-900, 900))) for name in "abc"]
    async with world.running(*candidates) as tasks:
        for _ in range(faults):
            await asyncio.sleep(rng.uniform(0, 50))
            one = rng.choice(candidates)
            match rng.randrange(8):
                case 0:
                    one.link.down = True
                case 1:
                    one.link.black_hole = True
                case 2:
                    one.link.latency = rng.uniform(0, 2.5)
                case 3:
                    one.link.lose_replies = rng.randrange(4)
                case 4:
                    one.wind_down = rng.uniform(0, 4)
                case 5 if one.elector.is_leader:
                    # Only a leader's pause can be told by its own clock alone: while a candidate is paused the leader
                    # would go on renewing.
                    one.clock.paused += rng.uniform(0, 40)
                case 6 if not tasks[one.name].done():
                    tasks[one.name].cancel()
                    with suppress(asyncio.CancelledError):
                        await tasks[one.name]
                case _:
                    one.link.down = one.link.black_hole = False
                    one.link.latency = 0
        survivors = [one for one in candidates if not tasks[one.name].done()]
        for one in candidates:
            one.link.down = one.link.black_hole = False
            one.link.latency = one.link.lose_replies = 0
        await asyncio.sleep(60)
        assert len(world.working) == (1 if survivors else 0)
