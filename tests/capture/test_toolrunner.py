"""Runs of tools from the pod to the outcome: every way they go, and every instant at which the operator may die."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from toolworld import BODY, NAME, NAMESPACE, SHA, Operator, World, capture, world

from toe_async.agent.protocol import message
from toe_async.apis.powertool import OutputMode, TargetState
from toe_async.apis.powertoolconfig import ToolSecurity
from toe_async.apis.reasons import Reason
from toe_async.capture.toolrun import ToolCapture
from toe_async.kube.errors import (
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    ServerError,
    TransportError,
    Unauthorized,
)

pytestmark = pytest.mark.looptime

MODES: tuple[OutputMode, ...] = ("collector", "pvc", "ephemeral", "s3")
URIS = {
    "collector": f"artifacts://{NAMESPACE}/abcdefghij-probe.out",
    "pvc": f"pvc://{NAMESPACE}/data/out/abcdefghij-probe.out",
    "ephemeral": f"pod://{NAMESPACE}/web-1/{NAME}/probe.out",
    "s3": "s3://captures/abcdefghijklmnopqrstuvwxyz234567/probe.out",
}


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
async def operator(here: World) -> AsyncIterator[Operator]:
    made = Operator(here)
    yield made
    await made.die()


# -- all is well ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_completes_with_its_artifact(here: World, operator: Operator, mode: OutputMode) -> None:
    """In each mode: one container, one artifact under its address, states that only go forward."""
    wanted = capture(mode)
    ended = await operator.outcome(wanted)
    assert (ended.state, ended.reason, ended.exit_code) == (TargetState.COMPLETED, "", 0)
    assert [(one.uri, one.size, one.sha256) for one in ended.artifacts] == [(URIS[mode], len(BODY), SHA)]
    assert (ended.bytes, ended.tool_container, ended.passing) == (len(BODY), NAME, False)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() >= 10
    assert (here.ledger["container"], here.container.accepted) == (1, 1)
    states = [one.state for one in operator.told]
    assert list(dict.fromkeys(states)) == ["Starting", "Running", "Storing", "Completed"]
    assert not here.secrets
    assert operator.runner.progress(wanted.id) == ended
    assert (
        operator.metrics.registry.get_sample_value(
            "toe_captures_total", {"kind": "PowerTool", "tool": "probe", "result": "completed", "reason": ""}
        )
        == 1
    )


async def test_what_is_registered_tells_how_it_came_about(here: World, operator: Operator) -> None:
    """Arguments, image and, once the container runs, its digest (U13)."""
    await operator.outcome(capture())
    (details,) = here.details.values()
    assert details["arguments"] == "probe"
    assert (details["image"], details["imageDigest"]) == ("tools/probe:1", "sha256:77")
    assert (details["duration"], details["attempt"], details["podSecurityLevel"]) == ("10s", "1", "privileged")


async def test_a_kept_result_completes_while_its_supervisor_stays(here: World, operator: Operator) -> None:
    """It can be fetched from there for a while."""
    await operator.outcome(capture("ephemeral"))
    assert (here.container.state, here.container.kept) == ("running", {"probe.out": BODY})


async def test_a_delivered_result_is_let_go_once_its_outcome_is_written_down(here: World, operator: Operator) -> None:
    """Not before: who leads next would need it."""
    wanted = capture("s3")
    await operator.outcome(wanted)
    kept_before = dict(here.container.kept)
    operator.runner.forget(wanted.id)
    await asyncio.sleep(5)
    assert (kept_before, here.container.kept, here.container.state) == ({"probe.out": BODY}, {}, "ended")
    assert here.ledger["released"] == 1
    assert operator.runner.progress(wanted.id) is None


async def test_a_second_start_changes_nothing(here: World, operator: Operator) -> None:
    """While it runs, and after its end until it is forgotten."""
    wanted = capture()
    operator.start(wanted)
    operator.start(wanted)
    assert operator.runner.running == {wanted.id}
    ended = await operator.outcome(wanted)
    operator.start(wanted)
    assert not operator.runner.running
    assert operator.told[-1] is ended
    assert here.container.accepted == 1


# -- the operator dies ------------------------------------------------------------------------------------------------


async def _points(mode: OutputMode, agent: bool) -> int:
    async with world() as here:
        operator = Operator(here)
        await operator.outcome(_wanted(mode, agent))
        await operator.die()
        return len(here.points)


def _wanted(mode: OutputMode, agent: bool) -> ToolCapture:
    return capture(mode, security=ToolSecurity(allow_host_pid=agent))


@pytest.mark.parametrize(("mode", "agent"), [*((mode, False) for mode in MODES), ("collector", True), ("s3", True)])
async def test_an_operator_that_dies_anywhere_is_followed_by_one_that_finishes(mode: OutputMode, agent: bool) -> None:
    """Before and after every call: one container, one registration, orders taken once, one artifact (H1, G1)."""
    total = await _points(mode, agent)
    assert total >= 16
    for kill_at in range(total):
        async with world() as here:
            here.kill_at = kill_at
            first, second = Operator(here), Operator(here)
            wanted = _wanted(mode, agent)
            first.start(wanted)
            async with asyncio.timeout(3600):
                await here.killed.wait()
            await first.die()
            ended = await second.outcome(wanted)
            what = (here.points[kill_at], ended.reason, ended.message)
            assert ended.state == TargetState.COMPLETED, what
            assert here.ledger["container"] == 1, what
            assert here.ledger["artifact"] == (1 if mode in {"collector", "s3"} else 0), what
            assert here.ledger["registration"] == (1 if mode == "collector" else 0), what
            assert all(held.accepted == 1 for held in here.containers.values()), what
            assert len(ended.artifacts) == 1, what
            assert not here.secrets, what
            await second.die()


async def test_a_drain_leaves_the_tool_and_its_right_to_upload(here: World, operator: Operator) -> None:
    """The next leader goes on with both."""
    wanted = capture()
    here.collector_up = True
    operator.start(wanted)
    await asyncio.sleep(5)
    here.secrets.add(wanted.id)
    await operator.runner.drain(1.0)
    assert (here.container.state, here.container.cancelled, here.secrets) == ("running", False, {wanted.id})
    assert not operator.runner.running
    ended = await operator.outcome(wanted)
    assert ended.state == TargetState.COMPLETED
    assert here.container.accepted == 1


async def test_a_leader_that_finds_the_collector_away_goes_on_all_the_same(here: World) -> None:
    """The tool runs already: what it collects arrives once the collector is back."""
    first, second = Operator(here), Operator(here)
    wanted = capture()
    first.start(wanted)
    await asyncio.sleep(5)
    await first.die()
    here.collector_up = False
    asyncio.get_running_loop().call_later(400, lambda: setattr(here, "collector_up", True))
    ended = await second.outcome(wanted)
    assert (ended.state, len(ended.artifacts)) == (TargetState.COMPLETED, 1)
    await second.die()


async def test_an_operator_that_comes_after_the_end_reads_the_termination_message(here: World) -> None:
    """Nobody was there while the tool ran: in mode pvc the message is all that there is."""
    first, second = Operator(here), Operator(here)
    wanted = capture("pvc")
    first.start(wanted)
    await asyncio.sleep(5)
    await first.die()
    await asyncio.sleep(60)
    assert here.container.state == "ended"
    ended = await second.outcome(wanted)
    assert (ended.state, ended.artifacts[0].uri) == (TargetState.COMPLETED, URIS["pvc"])
    await second.die()


# -- connections ------------------------------------------------------------------------------------------------------


async def test_lost_connections_are_made_again(here: World, operator: Operator) -> None:
    """Orders are taken once, and the run ends as if nothing had been."""
    wanted = capture()
    operator.start(wanted)
    for _ in range(4):
        await asyncio.sleep(3)
        here.container.cut()
    ended = await operator.outcome(wanted)
    assert ended.state == TargetState.COMPLETED
    assert here.container.accepted == 1
    assert here.ledger["attach"] >= 4


async def test_a_fault_of_our_own_does_not_end_the_talking(
    here: World, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without heartbeats and tokens the tool would end, or its output be lost."""
    attach, failed = here.attach, list[str]()

    def faulty(*where: str) -> Any:
        if len(failed) < 2:
            failed.append("")
            raise LookupError("a mistake")
        return attach(*where)

    monkeypatch.setattr(here, "attach", faulty)
    ended = await operator.outcome(capture())
    assert (ended.state, len(ended.artifacts), len(failed)) == (TargetState.COMPLETED, 1, 2)


async def test_a_kept_result_that_nobody_heard_is_asked_for_again(here: World, operator: Operator) -> None:
    """The connection was away when it was said."""
    wanted = capture("ephemeral")
    operator.start(wanted)
    await asyncio.sleep(11)
    here.container.cut()
    assert (await operator.outcome(wanted)).state == TargetState.COMPLETED


async def test_the_tool_hears_a_heartbeat_every_15_seconds(here: World, operator: Operator) -> None:
    """Chaos would end without it."""
    wanted = capture()
    here.script.seconds = 100
    operator.start(wanted)
    await asyncio.sleep(90)
    assert 6 <= here.container.beats <= 8


async def test_tokens_are_given_when_asked_and_while_something_is_stored(here: World, operator: Operator) -> None:
    """None before; then one, and a fresh one every four minutes for as long as the upload takes."""
    wanted = capture()
    operator.start(wanted)
    await asyncio.sleep(9)
    none = list(here.container.tokens)
    here.collector_up = False
    await asyncio.sleep(600)
    assert none == []
    assert len(here.container.tokens) >= 3
    here.collector_up = True
    assert (await operator.outcome(wanted)).state == TargetState.COMPLETED


async def test_a_token_that_was_taken_back_is_replaced(here: World, operator: Operator) -> None:
    """A former leader that woke up late ended the capture's Secret when it stopped."""
    wanted = capture()
    operator.start(wanted)
    await asyncio.sleep(3)
    here.collector_up = False
    await asyncio.sleep(20)
    here.tokens.clear()
    here.secrets.clear()
    here.collector_up = True
    began = asyncio.get_running_loop().time()
    ended = await operator.outcome(wanted)
    assert ended.state == TargetState.COMPLETED
    assert asyncio.get_running_loop().time() - began < 45


async def test_a_collector_that_is_away_for_five_minutes_loses_nothing(here: World, operator: Operator) -> None:
    """It went after the registration; the tool keeps its output until it is back."""
    wanted = capture()
    operator.start(wanted)
    await asyncio.sleep(3)
    here.collector_up = False
    await asyncio.sleep(300)
    here.collector_up = True
    ended = await operator.outcome(wanted)
    assert (ended.state, len(ended.artifacts)) == (TargetState.COMPLETED, 1)


async def test_nothing_is_begun_while_the_collector_is_away(here: World, operator: Operator) -> None:
    """What could not be stored is not collected; a later attempt may fare better."""
    here.collector_up = False
    ended = await operator.outcome(capture())
    assert (ended.state, ended.passing) == (TargetState.FAILED, True)
    assert "could not be registered: the collector gives no answer" in ended.message
    assert here.ledger["container"] == 0


async def test_whatever_the_container_writes_it_is_not_believed(here: World, operator: Operator) -> None:
    """Garbage, endless lines, results of other captures: none of it ends or moves a run."""
    here.script.noise = (
        b"\x00\xff garbage\n{}\n[]\nnull\n" + b"[" * 5000 + b"\n",
        b"x" * 300_000,
        b"\n" + message("result", capture="b" * 32, outcome="completed", leaves=[]),
        message("result", capture="abcdefghijklmnopqrstuvwxyz234567", outcome="completed", leaves=[{"name": "../x"}]),
        message("result", capture="abcdefghijklmnopqrstuvwxyz234567", outcome="completed", size=-1),
        message("accepted", digest="f" * 64) + message("state", phase="nothing", bytes=5) + b'{"type":"?"}\n',
    )
    ended = await operator.outcome(capture("ephemeral"))
    assert (ended.state, ended.bytes) == (TargetState.COMPLETED, len(BODY))


async def test_no_more_is_fetched_than_the_orders_allow(here: World, operator: Operator) -> None:
    """What a container says of its leaves takes no room from the captures of others."""
    leaf = {"name": "probe.out", "size": (1 << 30) + 1, "sha256": SHA, "state": "kept"}
    here.script.result = {"leaves": [leaf]}
    ended = await operator.outcome(capture("s3"))
    assert (ended.state, ended.reason, here.fetches) == (TargetState.FAILED, Reason.TOO_LARGE, 0)


async def test_a_container_that_floods_is_read_slowly_and_costs_the_api_server_little(
    here: World, operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may attach makes the operator read; what each line would cost is bounded by the clock."""
    state = message("state", phase="running", bytes=1) + message("refused", message="x")
    here.script.noise, here.script.seconds = (b"",), 10.0
    operator.start(capture("ephemeral"))
    await asyncio.sleep(3)
    before, began = len(here.points), asyncio.get_running_loop().time()
    for number in range(3000):
        here.container.say(state.replace(b'"bytes":1', b'"bytes":%d' % number) * 10)
        if number % 10 == 0:
            await asyncio.sleep(0.01)
    await operator.ended.wait()
    seconds = asyncio.get_running_loop().time() - began
    looks = sum(point.startswith("before GET") for point in here.points[before:])
    assert looks <= seconds / 0.25 + 2
    assert operator.told[-1].state is TargetState.COMPLETED
    assert capsys.readouterr().out.count("refuses a message") <= 2


# -- injection --------------------------------------------------------------------------------------------------------

POD_SECURITY = 'pods "web-1" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
RBAC = 'pods "web-1" is forbidden: User "op" cannot patch resource "pods/ephemeralcontainers" in API group ""'


@pytest.mark.parametrize(
    ("error", "reason", "passing"),
    [
        (Forbidden(403, "Forbidden", POD_SECURITY), Reason.POD_SECURITY_DENIED, False),
        (Forbidden(403, "Forbidden", RBAC), Reason.EPHEMERAL_CONTAINERS_FORBIDDEN, False),
        (Forbidden(403, "Forbidden", "denied by policy: no images of yours"), Reason.NOT_AUTHORIZED, False),
        (Unauthorized(401, "Unauthorized", "Unauthorized"), Reason.NOT_AUTHORIZED, False),
        (Invalid(422, "Invalid", "spec.ephemeralContainers[0].image: Required value"), Reason.INVALID_SPEC, False),
        (NotFound(404, "NotFound", "the server could not find it"), Reason.EPHEMERAL_CONTAINERS_FORBIDDEN, False),
    ],
)
async def test_a_refused_injection_is_told_in_the_server_s_words(
    here: World, operator: Operator, error: KubeError, reason: Reason, passing: bool
) -> None:
    """One refusal, one failure, no second request and no token (PT2)."""
    here.refusals = [error]
    ended = await operator.outcome(capture())
    assert (ended.state, ended.reason, ended.passing) == (TargetState.FAILED, reason, passing)
    assert str(getattr(error, "message", ""))[:40] in ended.message
    assert here.ledger["container"] == here.ledger["secret"] == 0
    assert sum("ephemeralcontainers" in point for point in here.points) == 1
    operator.runner.forget(capture().id)
    await asyncio.sleep(1)
    assert here.states == {capture().id: "Cancelled"}


@pytest.mark.parametrize(
    "errors",
    [
        [Conflict(409, "Conflict", "the object has been modified")] * 3,
        [ServerError(503, "Unavailable", "try later"), TransportError("reset")],
    ],
)
async def test_a_passing_refusal_is_tried_again(here: World, operator: Operator, errors: list[KubeError]) -> None:
    """A concurrent change of the pod among them (PT10)."""
    here.refusals = list(errors)
    assert (await operator.outcome(capture())).state == TargetState.COMPLETED


async def test_a_server_that_never_takes_it_is_a_passing_failure(here: World, operator: Operator) -> None:
    """Bounded, and worth another attempt."""
    here.refusals = [ServerError(503, "Unavailable", "try later")] * 100
    ended = await operator.outcome(capture())
    assert (ended.reason, ended.passing) == (Reason.NOT_STARTED, True)
    assert len(here.refusals) > 80


async def test_an_answer_that_was_lost_makes_no_second_container(here: World, operator: Operator) -> None:
    """The patch was taken and its answer was not: the container is found and used."""
    original = here.patch

    def lossy(body: dict[str, Any]) -> dict[str, Any]:
        original(body)
        raise TransportError("the connection was reset")

    here.patch = lossy  # type: ignore[method-assign]
    assert (await operator.outcome(capture())).state == TargetState.COMPLETED
    assert here.ledger["container"] == 1


@pytest.mark.parametrize("when", [0.0, 0.025, 5.0])
async def test_another_pod_of_the_name_is_never_touched(here: World, operator: Operator, when: float) -> None:
    """Replaced before the look, between look and patch, or while the tool ran (H2, PT5)."""

    def replaced() -> None:
        assert here.pod is not None
        here.pod["metadata"]["uid"] = "other"
        for held in here.containers.values():
            held.state = "ended"
            held.cut()
        here.changed()

    asyncio.get_running_loop().call_later(when, replaced)
    await asyncio.sleep(0)
    ended = await operator.outcome(capture("pvc"))
    assert (ended.state, ended.reason) == (TargetState.FAILED, Reason.POD_GONE)
    assert here.ledger["container"] == (1 if when > 1 else 0)


async def test_a_pod_that_is_gone_is_told(here: World, operator: Operator) -> None:
    """Before anything was asked for."""
    here.pod = None
    ended = await operator.outcome(capture())
    assert (ended.state, ended.reason) == (TargetState.FAILED, Reason.POD_GONE)
    assert ended.artifacts == ()


async def test_a_pod_that_goes_after_everything_was_stored_has_completed(here: World, operator: Operator) -> None:
    """The collector's record is the truth."""
    wanted = capture()
    original = here.changed

    def pod_goes() -> None:
        if here.states.get(wanted.id) == "Complete":
            here.pod = None
        original()

    here.changed = pod_goes  # type: ignore[method-assign]
    ended = await operator.outcome(wanted)
    assert (ended.state, len(ended.artifacts)) == (TargetState.COMPLETED, 1)


async def test_preflight_tells_everything_at_once(here: World, operator: Operator) -> None:
    """And nothing is registered or made."""
    here.labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    assert here.pod is not None
    here.pod["spec"]["volumes"] = []
    ended = await operator.outcome(capture("pvc"))
    assert ended.state == TargetState.FAILED
    assert here.ledger["container"] == 0
    assert not here.states


# -- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason", "seconds", "passing"),
    [
        ("ErrImagePull", Reason.IMAGE_PULL_FAILED, 30, True),
        ("ImagePullBackOff", Reason.IMAGE_PULL_FAILED, 30, True),
        ("InvalidImageName", Reason.IMAGE_PULL_FAILED, 0, False),
        ("CreateContainerError", Reason.CONTAINER_FAILED, 0, False),
        ("RunContainerError", Reason.CONTAINER_FAILED, 0, False),
        ("ContainerCreating", Reason.NOT_STARTED, 120, True),
    ],
)
async def test_a_container_that_does_not_start_is_told(
    here: World, operator: Operator, words: str, reason: Reason, seconds: int, passing: bool
) -> None:
    """In the kubelet's words, as soon as it is clear, and never as running (PT4)."""
    here.starts = False
    wanted, loop = capture(), asyncio.get_running_loop()

    def stuck() -> None:
        here.container.reason, here.container.message = words, "the kubelet's words"
        here.changed()

    loop.call_later(1, stuck)
    ended = await operator.outcome(wanted)
    assert (ended.state, ended.reason, ended.passing) == (TargetState.FAILED, reason, passing)
    assert "the kubelet's words" in ended.message
    assert seconds <= loop.time() <= seconds + 4
    assert all(one.state != TargetState.RUNNING for one in operator.told)
    assert here.ledger["secret"] == 0


async def test_a_registry_that_failed_once_is_forgiven(here: World, operator: Operator) -> None:
    """The kubelet asks again by itself."""
    here.starts = False
    loop = asyncio.get_running_loop()

    def stuck() -> None:
        here.container.reason = "ErrImagePull"
        here.changed()

    loop.call_later(1, stuck)
    loop.call_later(20, lambda: here.container.run())
    assert (await operator.outcome(capture())).state == TargetState.COMPLETED


# -- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ({"exit_code": 1, "report": False, "upload": False}, Reason.TOOL_FAILED, "exit code 1"),
        ({"exit_code": 137, "report": False, "upload": False, "reason": "OOMKilled"}, Reason.OOM_KILLED, "memory"),
        ({"exit_code": 3, "report": False, "upload": False}, Reason.NOT_STARTED, "orders"),
        ({"exit_code": 0, "report": False, "upload": False}, Reason.TOOL_FAILED, "left no result"),
        ({"upload": False}, Reason.UPLOAD_FAILED, "not there: probe.out"),
        (
            {"exit_code": 1, "result": {"outcome": "failed", "reason": "NoOutput", "message": "nothing"}},
            Reason.NO_OUTPUT,
            "nothing",
        ),
        ({"result": {"outcome": "failed", "reason": "MadeUp", "message": "x\x1b[2J"}}, Reason.TOOL_FAILED, "x?[2J"),
    ],
)
async def test_failed_means_failed(
    here: World, operator: Operator, script: dict[str, Any], reason: Reason, words: str
) -> None:
    """Exit codes, OOM, no result, a result that is not true (PT3, TS1, TS2)."""
    for name, value in script.items():
        setattr(here.script, name, value)
    if not here.script.report:
        here.script.result["capture"] = "b" * 32
    ended = await operator.outcome(capture())
    assert (ended.state, ended.reason) == (TargetState.FAILED, reason)
    assert words in ended.message


async def test_without_a_result_the_collector_s_record_counts(here: World, operator: Operator) -> None:
    """One that cannot be read is none; everything was stored and closed by then."""
    here.script.result = {"outcome": "failed", "reason": "Made Up"}
    ended = await operator.outcome(capture())
    assert (ended.state, len(ended.artifacts)) == (TargetState.COMPLETED, 1)


async def test_a_tool_that_does_not_end_is_told_to_and_has_timed_out(here: World, operator: Operator) -> None:
    """After its time, its upload's time and some more (PT4)."""
    here.script.seconds = 10_000
    ended = await operator.outcome(capture())
    assert (ended.state, ended.reason, ended.passing) == (TargetState.FAILED, Reason.CAPTURE_TIMED_OUT, True)
    assert here.container.cancelled
    assert 10 + 10 + 900 + 120 <= asyncio.get_running_loop().time() < 1200


async def test_an_api_server_that_is_away_ends_no_run(here: World, operator: Operator) -> None:
    """The tool goes on, and so does asking."""
    wanted = capture("pvc")
    operator.start(wanted)
    await asyncio.sleep(3)
    original = here.answer

    def away(request: Any) -> Any:
        raise TransportError("refused")

    here.answer = away  # type: ignore[method-assign]
    await asyncio.sleep(400)
    here.answer = original  # type: ignore[method-assign]
    assert (await operator.outcome(wanted)).state == TargetState.COMPLETED


# -- cancelling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0.0, 0.5, 5.0])
async def test_a_cancelled_run_ends_as_such_with_its_reason(here: World, operator: Operator, when: float) -> None:
    """Before its container, while that starts, and while the tool runs; what was collected by then is stored."""
    wanted = capture()
    operator.start(wanted)
    if when:
        await asyncio.sleep(when)
    operator.runner.cancel(wanted.id, Reason.DEADLINE_EXCEEDED, "the run's deadline is over")
    ended = await operator.outcome(wanted)
    assert (ended.state, ended.reason) == (TargetState.CANCELLED, Reason.DEADLINE_EXCEEDED)
    assert ended.message == "the run's deadline is over"
    assert len(ended.artifacts) == (1 if when == 5.0 else 0)
    assert not here.secrets
    await asyncio.sleep(60)
    assert all((held.cancelled, held.state) == (True, "ended") for held in here.containers.values())
    assert all(held.accepted == (1 if when == 5.0 else 0) for held in here.containers.values())


async def test_what_was_collected_before_a_cancel_is_fetched_though_the_connection_breaks(
    here: World, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancel is not said again to a supervisor that keeps the result: it would end the keeping."""
    wanted, get, cut = capture("s3"), here.get, list[str]()

    @contextlib.asynccontextmanager
    async def breaking(*args: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        if len(cut) < 3:
            cut.append("")
            here.container.cut()
            await asyncio.sleep(3)
            raise TransportError("the connection was lost")
        async with get(*args) as chunks:
            yield chunks

    monkeypatch.setattr(here, "get", breaking)
    operator.start(wanted)
    await asyncio.sleep(5)
    operator.runner.cancel(wanted.id, Reason.CANCELLED, "enough")
    ended = await operator.outcome(wanted)
    assert (ended.state, len(ended.artifacts), here.container.cancels) == (TargetState.CANCELLED, 1, 1)
    assert here.ledger["attach"] > 1


async def test_a_tool_that_an_earlier_operator_left_is_told_to_end(here: World) -> None:
    """The run was deleted while nobody led: the next operator takes the attempt up and cancels it in one go (PT18)."""
    wanted, first, second = capture(), Operator(here), Operator(here)
    here.script.seconds = 3600.0
    first.start(wanted)
    await asyncio.sleep(5)
    await first.die()
    second.start(wanted)
    second.runner.cancel(wanted.id, Reason.CANCELLED, "deleted")
    ended = await second.outcome(wanted)
    assert (ended.state, ended.message, len(ended.artifacts)) == (TargetState.CANCELLED, "deleted", 1)
    assert (here.container.state, here.container.cancelled) == ("ended", True)
    await second.die()


async def test_what_a_cancelled_run_keeps_is_fetched_by_the_next_operator(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He has to cancel it as well, and must not end the keeping by that."""
    wanted, first, second = capture("s3"), Operator(here), Operator(here)

    @contextlib.asynccontextmanager
    async def stuck(*args: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        await asyncio.Event().wait()
        async with here.get(*args) as chunks:
            yield chunks

    with monkeypatch.context() as broken:
        broken.setattr(here, "get", stuck)
        first.start(wanted)
        await asyncio.sleep(5)
        first.runner.cancel(wanted.id, Reason.CANCELLED, "enough")
        await asyncio.sleep(5)
        assert here.container.phase == "keeping"
        await first.die()
    second.start(wanted)
    second.runner.cancel(wanted.id, Reason.CANCELLED, "enough")
    ended = await second.outcome(wanted)
    assert (ended.state, len(ended.artifacts), here.container.cancels) == (TargetState.CANCELLED, 1, 1)
    await second.die()


@pytest.mark.parametrize("before", [False, True])
async def test_a_run_that_nobody_will_read_keeps_nothing(here: World, operator: Operator, before: bool) -> None:
    """Its object is gone, whether it was cancelled before or not: the container ends at once."""
    wanted = capture("ephemeral")
    operator.start(wanted)
    await asyncio.sleep(5)
    if before:
        operator.runner.cancel(wanted.id, Reason.CANCELLED, "enough")
    operator.runner.cancel(wanted.id, Reason.CANCELLED, "deleted", discard=True)
    ended = await operator.outcome(wanted)
    assert (ended.state, ended.message) == (TargetState.CANCELLED, "enough" if before else "deleted")
    assert ended.artifacts == ()
    assert (here.container.state, here.container.discarded, here.container.kept) == ("ended", True, {})


async def test_a_cancel_while_nothing_starts_is_bounded(here: World, operator: Operator) -> None:
    """An image that takes for ever: the run ends, and what comes up later is given no orders."""
    here.start_seconds = 200.0
    wanted = capture()
    operator.start(wanted)
    await asyncio.sleep(1)
    operator.runner.cancel(wanted.id, Reason.CANCELLED, "enough")
    ended = await operator.outcome(wanted)
    assert (ended.state, ended.reason, ended.message) == (TargetState.CANCELLED, Reason.CANCELLED, "enough")
    assert asyncio.get_running_loop().time() < 105
    await asyncio.sleep(300)
    assert (here.container.state, here.container.accepted) == ("running", 0)


async def test_a_cancel_that_nobody_confirms_is_bounded(here: World, operator: Operator) -> None:
    """The node is gone: the run ends, its token is worthless and the sentence says what is not known (PT18)."""
    wanted = capture()
    here.script.seconds = 10_000
    operator.start(wanted)
    await asyncio.sleep(5)
    here.container.hear = lambda data: None  # type: ignore[method-assign]
    began = asyncio.get_running_loop().time()
    operator.runner.cancel(wanted.id, Reason.CANCELLED, "the PowerTool was deleted")
    ended = await operator.outcome(wanted)
    assert (ended.state, ended.reason) == (TargetState.CANCELLED, Reason.CANCELLED)
    assert "has not confirmed" in ended.message
    assert asyncio.get_running_loop().time() - began < 110
    assert not here.secrets
    operator.runner.forget(wanted.id)
    await asyncio.sleep(1)
    assert here.states == {wanted.id: "Cancelled"}


async def test_a_cancel_after_the_end_changes_nothing(here: World, operator: Operator) -> None:
    """Completed is never left."""
    wanted = capture()
    ended = await operator.outcome(wanted)
    operator.runner.cancel(wanted.id, Reason.CANCELLED, "too late")
    await asyncio.sleep(5)
    assert operator.runner.progress(wanted.id) == ended


# -- orders that changed ----------------------------------------------------------------------------------------------


async def test_orders_that_changed_before_they_were_given_fail_the_attempt(here: World) -> None:
    """The collector's CA was rotated between two leaders: the container would take the old orders only."""
    first, second = Operator(here), Operator(here)
    wanted = capture()
    here.start_seconds = 8.0
    first.start(wanted)
    await asyncio.sleep(4)
    await first.die()
    second.ca = "-----BEGIN CERTIFICATE----- new"
    ended = await second.outcome(wanted)
    assert (ended.state, ended.reason, ended.passing) == (TargetState.FAILED, Reason.NOT_STARTED, True)
    assert here.container.accepted == 0
    await second.die()


async def test_orders_that_changed_after_they_were_given_do_no_harm(here: World) -> None:
    """The tool runs by the old ones, and the new leader listens, gives tokens and settles."""
    first, second = Operator(here), Operator(here)
    wanted = capture()
    first.start(wanted)
    await asyncio.sleep(4)
    await first.die()
    second.ca = "-----BEGIN CERTIFICATE----- new"
    ended = await second.outcome(wanted)
    assert ended.state == TargetState.COMPLETED
    await second.die()


# -- agent pods -------------------------------------------------------------------------------------------------------


async def test_an_agent_pod_is_made_and_taken_away(here: World, operator: Operator) -> None:
    """Once its run's outcome is written down: without it, an attempt that is begun again would make another (PF4)."""
    wanted = _wanted("collector", agent=True)
    ended = await operator.outcome(wanted)
    left = len(here.agents)
    operator.runner.forget(wanted.id)
    await asyncio.sleep(1)
    assert ended.state == TargetState.COMPLETED
    assert (left, here.ledger["container"], here.ledger["agent deleted"], here.agents) == (1, 1, 1, {})


async def test_an_agent_pod_of_somebody_else_is_not_adopted(here: World, operator: Operator) -> None:
    """The same name without our labels (PF3)."""
    here.agents[NAME] = {"metadata": {"name": NAME, "uid": "x"}, "spec": {}, "status": {}}
    ended = await operator.outcome(_wanted("collector", agent=True))
    assert (ended.state, ended.reason) == (TargetState.FAILED, Reason.CONFLICTED)
    assert NAME in here.agents


async def test_agent_pods_that_were_left_behind_are_tidied_away(here: World, operator: Operator) -> None:
    """In mode ephemeral they outlive their run; those that run, or ended just now, stay."""
    wanted = _wanted("ephemeral", agent=True)
    assert (await operator.outcome(wanted)).state == TargetState.COMPLETED
    await operator.runner.tidy()
    running = dict(here.agents)
    await asyncio.sleep(1000)
    await operator.runner.tidy()
    assert (len(running), here.agents) == (1, {})
