"""Decisions about a PowerTool: one row a rule, and what follows from one status to the next."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from powertool_world import NOW, after, condition, config, done, failed, observe, pod, refused, states, tool, uid

from toe_async.apis.meta import ConditionStatus, encode
from toe_async.apis.powertool import OutputMode, Phase, PowerTool, TargetState
from toe_async.apis.reasons import Reason
from toe_async.capture.toolrun import Progress
from toe_async.controllers.powertool import ledger
from toe_async.controllers.powertool.facts import (
    CANCEL,
    FINALIZER,
    SKIP_CANCEL,
    NamespaceFacts,
    Observed,
    Occupant,
    PodNow,
)
from toe_async.controllers.powertool.plan import plan
from toe_async.controllers.powertool.waking import CANCEL_SECONDS, HELD_SECONDS

THREE = [pod(0), pod(1), pod(2)]


def deleted(one: PowerTool, seconds: float = 0.0, *, finalizer: bool = True, skip: bool = False) -> PowerTool:
    """The PowerTool after `kubectl delete`."""
    meta = replace(
        one.metadata,
        deletion_timestamp=NOW - timedelta(seconds=seconds),
        finalizers=(FINALIZER,) if finalizer else (),
        annotations={SKIP_CANCEL: "true"} if skip else {},
    )
    return replace(one, metadata=meta)


def annotated(one: PowerTool, why: str) -> PowerTool:
    """The PowerTool after `kubectl toe cancel`."""
    return replace(one, metadata=replace(one.metadata, annotations={CANCEL: why}))


def begun(seen: Observed) -> Observed:
    """After the first plan: its batch runs."""
    return after(seen, plan(seen))


def test_targets_are_claimed_in_the_status_before_anything_starts() -> None:
    """The plan carries ledger, rows, totals and the same ids in its starts; the finalizer comes first."""
    decided = plan(observe(THREE))
    assert decided.urgent
    assert decided.finalizer
    assert decided.used
    assert decided.status.phase is Phase.RUNNING
    assert (decided.status.selected_pods, decided.status.running_pods) == (3, 3)
    assert states(decided.status) == {TargetState.STARTING: 3}
    assert {one.target.pod_uid for one in decided.starts} == {uid(0), uid(1), uid(2)}
    assert {one.attempt for one in decided.starts} == {1}
    assert all(one.claimed_at == NOW for one in decided.starts)
    assert decided.status.active_pods.keys() == {"shop/web-0", "shop/web-1", "shop/web-2"}
    rows = {f"{row.namespace}/{row.pod}": row.tool_container for row in decided.status.targets}
    assert rows == decided.status.active_pods
    assert condition(decided.status, "Running").message == "3 of 3 targets run"


def test_a_run_goes_from_its_claims_to_completed_and_says_what_it_brought() -> None:
    """Bytes, artifacts with digests, totals and conditions of a run in which all is well."""
    seen = begun(observe(THREE))
    first = plan(observe(THREE))
    seen = replace(seen, progress={key: one for start in first.starts for key, one in done(start).items()})
    decided = plan(seen)
    status = decided.status
    assert (status.phase, status.completed_pods, status.running_pods) == (Phase.COMPLETED, 3, 0)
    assert status.finished_at == NOW
    assert (status.bytes_written, len(status.artifacts), len(status.artifacts[0].sha256)) == (21, 3, 64)
    assert status.targets[0].artifact.startswith("artifacts://shop/")
    assert status.active_pods == {}
    assert [(one.type, str(one.status)) for one in status.conditions] == [
        ("Accepted", "True"),
        ("Running", "False"),
        ("Complete", "True"),
        ("Failed", "False"),
        ("ArtifactsStored", "True"),
    ]
    assert sorted(decided.settled) == sorted(one.id for one in first.starts)
    assert not decided.finalizer


def test_a_finished_run_writes_nothing_more_and_never_runs_again() -> None:
    """PT1, PT6: neither pods that match later nor containers that stay change anything."""
    seen = begun(observe([pod(0)]))
    (start,) = plan(observe([pod(0)])).starts
    seen = replace(seen, progress=done(start))
    decided = plan(seen)
    for number in range(1, 21):
        seen = after(seen, decided, 3600, candidates=observe([pod(number)]).candidates)
        decided = plan(seen)
        assert decided.status == seen.tool.status
        assert not decided.urgent
        assert not decided.delete
        assert decided.starts == decided.resumes == ()


def test_nothing_is_written_while_nothing_happens() -> None:
    """PT19, D40: the same words again and again, whatever the clock says."""
    seen = begun(observe(THREE, slots=replace(observe().slots, cluster=2)))
    for _ in range(20):
        seen = replace(seen, now=seen.now + timedelta(minutes=1), slots=replace(seen.slots, cluster=0))
        decided = plan(seen)
        seen = after(seen, decided)
    again = plan(replace(seen, now=seen.now + timedelta(minutes=1)))
    assert again.status == seen.tool.status
    assert not again.urgent


REFUSALS = [
    pytest.param({"policy_problem": "no policy"}, {}, "PolicyMissing", "no policy", id="policy"),
    pytest.param(
        {"config": None, "config_problem": refused(Reason.TOOL_NOT_FOUND, "no such tool")}, {}, "ToolNotFound",
        "no such", id="tool not found",
    ),
    pytest.param({"config_problem": refused(Reason.TOOL_NOT_READY)}, {}, "ToolNotReady", "because", id="not ready"),
    pytest.param({"switched_off": "suspended by hand"}, {}, "ToolNotReady", "suspended by hand", id="kill switch"),
    pytest.param(
        {"config": config(allowedNamespaces=["team-*"])}, {}, "NamespaceNotAllowed", "allows: team-*", id="namespace",
    ),
    pytest.param(
        {"namespaces": (NamespaceFacts("bank", granted=False, named=True),)}, {}, "NamespaceNotGranted",
        "kubectl annotate namespace bank toe.run/powertools-from=shop", id="grant",
    ),
    pytest.param(
        {
            "config": config(allowedNamespaces=["shop"]),
            "namespaces": (NamespaceFacts("bank", granted=True, named=True),),
        },
        {}, "NamespaceNotAllowed", "namespace bank", id="a granting namespace that the tool is not allowed in",
    ),
    pytest.param({"refusal": refused()}, {}, "InvalidSpec", "because", id="arguments"),
    pytest.param({"sink_problem": refused(Reason.SINK_NOT_ALLOWED)}, {}, "SinkNotAllowed", "because", id="sink"),
    pytest.param({"zone": None}, {"timeZone": "Mars/Base"}, "InvalidSpec", "no time zone 'Mars/Base'", id="zone"),
    pytest.param({}, {"targets": {"labelSelector": {}}}, "InvalidSpec", "every pod", id="empty selector"),
    pytest.param({}, {"tool": {"duration": "soon"}}, "InvalidSpec", "spec.tool.duration", id="free text"),
    pytest.param({}, {"tool": {"duration": "0s"}}, "InvalidSpec", "not above zero", id="no duration"),
    pytest.param({}, {"tool": {"duration": "-1s"}}, "InvalidSpec", "spec.tool.duration", id="negative"),
    pytest.param({}, {"tool": {"duration": "8760h"}}, "InvalidSpec", "longer than the 24h", id="a year"),
    pytest.param({"config": config(maxDuration="10s")}, {}, "InvalidSpec", "longer than the 10s", id="maxDuration"),
    pytest.param(
        {"config": config(maxDuration="1m")}, {"tool": {"warmup": "2m"}}, "InvalidSpec", "spec.tool.warmup",
        id="warmup",
    ),
    pytest.param({}, {"output": {"mode": "pvc"}}, "InvalidSpec", "mode pvc needs this block", id="no block"),
    pytest.param({}, {"output": {"mode": "s3"}}, "InvalidSpec", "mode s3 needs this block", id="no s3 block"),
    pytest.param(
        {}, {"output": {"mode": "ephemeral", "pvc": {"claimName": "c"}}}, "InvalidSpec", "remove it", id="other block",
    ),
    pytest.param(
        {}, {"output": {"mode": "pvc", "pvc": {"claimName": "c", "path": "/a/../b"}}}, "InvalidSpec", "leave the claim",
        id="path",
    ),
    pytest.param({}, {"output": {"mode": "collector", "rollingInterval": "x"}}, "InvalidSpec", "rolling", id="rolling"),
    pytest.param(
        {},
        {"tool": {"name": "dump", "duration": "1h"}, "output": {"mode": "collector", "rollingInterval": "10s"}},
        "InvalidSpec",
        "more than 150 files; give 24s or more",
        id="many segments",
    ),
    pytest.param({}, {"failurePolicy": {"backoff": {"multiplier": "0.5"}}}, "InvalidSpec", "multiplier", id="small"),
    pytest.param({}, {"failurePolicy": {"backoff": {"multiplier": "two"}}}, "InvalidSpec", "'two'", id="no number"),
    pytest.param({}, {"failurePolicy": {"backoff": {"initial": "1"}}}, "InvalidSpec", "backoff.initial", id="initial"),
    pytest.param({}, {"failurePolicy": {"backoff": {"max": ""}}}, "InvalidSpec", "backoff.max", id="max"),
    pytest.param({}, {"schedule": "* * *"}, "InvalidSpec", "spec.schedule", id="schedule"),
    pytest.param(
        {}, {"targets": {"namespaceSelector": {"matchRegex": "("}}}, "InvalidSpec", "matchRegex", id="regex",
    ),
    pytest.param(
        {},
        {"targets": {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
        "InvalidSpec",
        "at least one value",
        id="expression",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "spec", "reason", "words"), REFUSALS)
def test_what_may_not_run_waits_with_a_reason_and_begins_once_it_may(
    facts: dict[str, Any], spec: dict[str, Any], reason: str, words: str
) -> None:
    """Accepted is False with the way out and nothing is claimed; the same PowerTool runs when the cause is gone."""
    seen = observe(THREE, tool(spec), **facts)
    decided = plan(seen)
    accepted = condition(decided.status, "Accepted")
    assert (str(accepted.status), accepted.reason) == ("False", reason)
    assert words in accepted.message
    assert decided.status.phase is Phase.PENDING
    assert decided.starts == ()
    assert decided.status.ledger == ""
    assert not decided.finalizer
    assert decided.urgent
    assert [one.reason for one in decided.events] == [reason]
    assert plan(after(seen, decided)).events == ()
    good = replace(after(seen, decided), tool=replace(tool(), status=decided.status))
    kept = {name: getattr(observe(THREE), name) for name in facts}
    healed = plan(replace(good, **kept))
    assert len(healed.starts) == 3
    assert condition(healed.status, "Accepted").status is ConditionStatus.TRUE


def test_a_read_error_is_never_called_a_missing_tool() -> None:
    """PT7: while configurations cannot be read nothing is refused, nothing begins, and what was said stands."""
    unread = {"known": False, "config": None, "config_problem": refused(Reason.TOOL_NOT_FOUND)}
    seen = observe(THREE, **unread)
    decided = plan(seen)
    assert condition(decided.status, "Accepted").status is ConditionStatus.UNKNOWN
    assert not decided.starts
    running = begun(observe(THREE))
    assert condition(plan(replace(running, **unread)).status, "Accepted").status is ConditionStatus.TRUE


def test_a_configuration_that_was_broken_meanwhile_is_no_error_of_the_plan() -> None:
    """H37: a bad glob allows nothing and a bad duration is for the configuration to tell; neither raises."""
    broken = config(allowedNamespaces=["sh[", "x"], maxDuration="soon")
    decided = plan(observe(THREE, config=broken, known=False))
    assert condition(decided.status, "Accepted").reason == "NamespaceNotAllowed"
    good = replace(broken, spec=replace(broken.spec, allowed_namespaces=("sh[", "shop")))
    assert not plan(observe(THREE, config=good, known=False)).starts
    decided = plan(observe(THREE, config=good, config_problem=refused(Reason.TOOL_NOT_READY)))
    assert condition(decided.status, "Accepted").reason == "ToolNotReady"


def test_pods_that_cannot_be_read_are_not_taken_for_none() -> None:
    """A list error starts nothing, ends nothing, and is no NoMatchingPods."""
    decided = plan(observe([], pods_problem="forbidden"))
    assert decided.status.phase is Phase.PENDING
    assert "forbidden" in condition(decided.status, "Running").message
    seen = begun(observe(THREE, tool({"budgets": {"maxConcurrentPods": 1}})))
    blind = replace(seen, pods={one.uid: PodNow("gone", None) for one in THREE}, pods_problem="forbidden")
    decided = plan(blind)
    assert states(decided.status) == {TargetState.STARTING: 1, TargetState.PENDING: 2}
    (start,) = plan(observe(THREE, tool({"budgets": {"maxConcurrentPods": 1}}))).starts
    standing = condition(plan(replace(blind, progress=done(start))).status, "Running")
    assert standing.reason == "WatchForbidden"
    assert standing.message.endswith("nothing new begins: pods cannot be read: forbidden")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        pytest.param([], "no pod in shop matches", id="none"),
        pytest.param([pod(phase="Pending")], "1 pods in shop match", id="pending"),
        pytest.param([pod(terminating=True)], "none is a running Linux pod", id="terminating"),
        pytest.param([pod(mirror=True)], "none is", id="static"),
        pytest.param([pod(os="windows")], "none is", id="windows"),
        pytest.param([pod(namespace="bank")], "no pod in shop", id="a namespace that does not grant it"),
    ],
)
def test_a_run_without_targets_fails_and_stays_so(held: list[Any], words: str) -> None:
    """PT7: NoMatchingPods is terminal for one shot, and said in Failed and Complete."""
    seen = observe(held)
    decided = plan(seen)
    assert (decided.status.phase, decided.status.selected_pods) == (Phase.FAILED, 0)
    assert decided.status.started_at == decided.status.finished_at == NOW
    assert condition(decided.status, "Failed").reason == "NoMatchingPods"
    assert words in condition(decided.status, "Failed").message
    assert words in decided.status.last_error
    later = after(seen, decided, candidates=observe(THREE).candidates)
    assert plan(later).status == later.tool.status


def test_pods_that_are_just_starting_are_waited_for_a_minute() -> None:
    """Who applies pods and a PowerTool together means those pods; one that runs is enough, and a minute is the end."""
    fresh = tool(creationTimestamp=(NOW - timedelta(seconds=10)).isoformat())
    seen = observe([pod(0, phase="Pending"), pod(1, phase="Pending")], fresh)
    decided = plan(seen)
    assert (decided.status.phase, decided.status.started_at, decided.starts) == (Phase.PENDING, None, ())
    assert "2 pods match and none runs yet" in condition(decided.status, "Running").message
    assert decided.recheck_seconds is not None
    assert decided.recheck_seconds <= 60
    waited = after(seen, decided)
    runs = plan(replace(waited, candidates=observe([pod(0), pod(1, phase="Pending")]).candidates))
    assert (runs.status.selected_pods, runs.status.phase) == (1, Phase.RUNNING)
    late = plan(replace(waited, now=NOW + timedelta(seconds=50)))
    assert (late.status.phase, condition(late.status, "Failed").reason) == (Phase.FAILED, "NoMatchingPods")
    doomed = observe([pod(0, phase="Pending", terminating=True), pod(1, phase="Failed")], fresh)
    assert plan(doomed).status.phase is Phase.FAILED


def test_a_suspended_powertool_begins_nothing_and_what_runs_goes_on() -> None:
    """Before the run nothing is chosen; in its middle the batch that runs is left alone."""
    waiting = plan(observe(THREE, tool({"suspend": True})))
    assert waiting.status.phase is Phase.PENDING
    assert condition(waiting.status, "Running").reason == "Suspended"
    seen = begun(observe(THREE, tool({"budgets": {"maxConcurrentPods": 1}})))
    (start,) = plan(observe(THREE, tool({"budgets": {"maxConcurrentPods": 1}}))).starts
    paused = replace(seen, tool=replace(seen.tool, spec=replace(seen.tool.spec, suspend=True)))
    decided = plan(replace(paused, progress=done(start)))
    assert states(decided.status) == {TargetState.COMPLETED: 1, TargetState.PENDING: 2}
    assert decided.status.phase is Phase.RUNNING
    assert not decided.cancels
    assert condition(decided.status, "Running").reason == "Suspended"


ENDINGS = [
    pytest.param({}, {"deleted": True}, "Cancelled", "was deleted", id="deleted"),
    pytest.param(
        {"activeDeadlineSeconds": 60}, {"now": NOW + timedelta(seconds=60)}, "DeadlineExceeded", "60 s", id="dl"
    ),
    pytest.param({}, {"annotation": " enough\nseen "}, "Cancelled", "toe.run/cancel: enough seen", id="cancel"),
    pytest.param({}, {"switched_off": "the switch"}, "Cancelled", "the switch", id="kill switch"),
    pytest.param({}, {"config": config(allowedNamespaces=["x"])}, "NamespaceNotAllowed", "allows: x", id="withdrawn"),
]


@pytest.mark.parametrize(("spec", "facts", "reason", "words"), ENDINGS)
def test_a_run_that_has_to_end_cancels_what_runs_and_begins_nothing(
    spec: dict[str, Any], facts: dict[str, Any], reason: str, words: str
) -> None:
    """Running tools are told to stop, the others are Cancelled at once, and the phase follows when all have ended."""
    one = tool({**spec, "budgets": {"maxConcurrentPods": 1}})
    (start,) = plan(observe(THREE, one)).starts
    seen = begun(observe(THREE, one))
    if "deleted" in facts:
        seen = replace(seen, tool=deleted(seen.tool))
    if "annotation" in facts:
        seen = replace(seen, tool=annotated(seen.tool, facts["annotation"]))
    seen = replace(seen, **{key: one for key, one in facts.items() if key not in {"deleted", "annotation"}})
    decided = plan(seen)
    (cancel,) = decided.cancels
    assert (cancel.capture, cancel.reason) == (start.id, reason)
    assert words in cancel.message
    assert states(decided.status) == {TargetState.STARTING: 1, TargetState.CANCELLED: 2}
    assert {row.reason for row in decided.status.targets[1:]} == {reason}
    assert decided.finalizer
    assert plan(after(seen, decided)).cancels == decided.cancels, "asked for until it has ended"
    ended = replace(after(seen, decided), progress=done(start, TargetState.CANCELLED, reason=reason))
    final = plan(ended)
    assert final.status.phase is Phase.CANCELLED
    assert condition(final.status, "Complete").reason == reason
    assert condition(final.status, "Failed").status is ConditionStatus.FALSE
    assert not final.finalizer


def test_a_run_that_is_cancelled_before_it_begins_is_over() -> None:
    """Nothing was chosen, nothing starts, and taking the annotation away changes nothing; a schedule only pauses."""
    seen = observe(THREE, annotated(tool(), "not now"))
    decided = plan(seen)
    assert (decided.status.phase, decided.status.selected_pods) == (Phase.CANCELLED, 0)
    assert condition(decided.status, "Complete").reason == "Cancelled"
    assert decided.starts == ()
    later = after(seen, decided)
    assert plan(replace(later, tool=replace(later.tool, metadata=tool().metadata))).status == decided.status
    suspended = plan(observe(THREE, annotated(tool({"suspend": True}), "not now")))
    assert suspended.status.phase is Phase.CANCELLED, "nobody would wait for its end otherwise"
    hourly = {"schedule": "@hourly", "concurrencyPolicy": "Allow"}
    paused = observe(THREE, annotated(tool(hourly), "not now"), now=NOW + timedelta(hours=1))
    decided = plan(paused)
    assert (decided.status.phase, decided.starts) == (Phase.PENDING, ())
    assert condition(decided.status, "Running").reason == "Cancelled"
    assert "no run begins before it is taken away" in condition(decided.status, "Running").message
    assert len(plan(replace(paused, tool=tool(hourly))).starts) == 3


def test_a_withdrawn_grant_ends_the_targets_of_that_namespace_only() -> None:
    """H22: running ones are cancelled, waiting ones never begin, the others go on."""
    pods = [pod(0), pod(1, namespace="zoo"), pod(3, namespace="zoo")]
    namespaces = tuple(NamespaceFacts(name, granted=True, named=True) for name in ("shop", "zoo"))
    seen = observe(pods, tool({"budgets": {"maxConcurrentPods": 2}}), namespaces=namespaces)
    decided = plan(seen)
    (theirs,) = (one for one in decided.starts if one.target.namespace == "zoo")
    seen = after(seen, decided)
    seen = replace(seen, pods={uid_: replace(one, granted=uid_ == uid(0)) for uid_, one in seen.pods.items()})
    decided = plan(seen)
    assert [one.capture for one in decided.cancels] == [theirs.id]
    assert states(decided.status) == {TargetState.STARTING: 2, TargetState.CANCELLED: 1}


def test_a_deleted_powertool_is_let_go_after_its_bound_or_by_the_annotation() -> None:
    """H28: the finalizer waits for what runs, 120 s at most, and never where it may be skipped."""
    seen = begun(observe([pod(0)]))
    assert plan(replace(seen, tool=deleted(seen.tool, CANCEL_SECONDS - 1))).finalizer
    late = plan(replace(seen, tool=deleted(seen.tool, CANCEL_SECONDS)))
    assert not late.finalizer
    assert late.cancels
    assert not plan(replace(seen, tool=deleted(seen.tool, skip=True))).finalizer
    assert not plan(replace(seen, tool=deleted(seen.tool, finalizer=False))).finalizer, "none can be added any more"
    waiting = plan(replace(seen, tool=deleted(seen.tool, 100)))
    assert waiting.recheck_seconds == pytest.approx(20)
    begins = plan(observe([pod(0)], deleted(tool())))
    assert not begins.finalizer
    assert begins.starts == ()


def test_a_run_is_taken_up_again_with_equal_captures_after_a_restart() -> None:
    """G1: whatever is claimed and has no task is started again, and it is the very same capture."""
    seen = observe(THREE)
    first = plan(seen)
    restarted = replace(after(seen, first, 40), running=frozenset())
    again = plan(restarted)
    assert sorted(again.resumes, key=lambda one: one.id) == sorted(first.starts, key=lambda one: one.id)
    assert not again.starts
    assert again.status.ledger == first.status.ledger
    assert plan(after(restarted, again)).resumes == ()


def test_a_deleted_run_is_taken_up_again_to_be_cancelled() -> None:
    """A tool that runs while nobody watches it is not forgotten because of a restart."""
    seen = observe([pod(0)])
    first = plan(seen)
    gone = after(seen, first)
    again = plan(replace(gone, running=frozenset(), tool=deleted(gone.tool)))
    assert [one.id for one in again.resumes] == [one.capture for one in again.cancels] == [first.starts[0].id]


@pytest.mark.parametrize(("mode", "discard"), [("ephemeral", True), ("collector", False), ("pvc", False)])
def test_only_what_a_deleted_run_keeps_in_its_container_is_discarded(mode: OutputMode, discard: bool) -> None:
    """Nobody would find it again; what lies elsewhere outlives the object."""
    seen = begun(observe([pod(0)]))
    run = replace(seen.tool, spec=replace(seen.tool.spec, output=replace(seen.tool.spec.output, mode=mode)))
    assert [one.discard for one in plan(replace(seen, tool=deleted(run))).cancels] == [discard]
    assert [one.discard for one in plan(replace(seen, tool=annotated(run, "enough"))).cancels] == [False]


def test_an_attempt_whose_pod_went_while_nobody_watched_is_closed() -> None:
    """PT5: PodGone, in the totals, and nothing is started in a pod of the same name."""
    seen = observe(THREE)
    restarted = replace(after(seen, plan(seen)), running=frozenset())
    pods = {**restarted.pods, uid(0): PodNow("gone", None)}
    decided = plan(replace(restarted, pods=pods))
    assert {one.target.pod_uid for one in decided.resumes} == {uid(1), uid(2)}
    assert (decided.status.failed_pods, decided.status.running_pods) == (1, 2)
    (row,) = (one for one in decided.status.targets if one.state is TargetState.FAILED)
    assert (row.reason, row.uid, row.finished_at) == ("PodGone", uid(0), NOW)


@pytest.mark.parametrize("state", ["gone", "ended", "terminating"])
def test_a_target_whose_pod_ends_before_its_turn_is_closed(state: Any) -> None:
    """Only a running pod is ever begun with."""
    one = tool({"budgets": {"maxConcurrentPods": 1}})
    seen = begun(observe(THREE, one))
    waiting = next(entry.uid for entry in ledger.decode(seen.tool.status.ledger) if entry.state is TargetState.PENDING)
    decided = plan(replace(seen, pods={**seen.pods, waiting: PodNow(state, None)}))
    assert states(decided.status) == {TargetState.STARTING: 1, TargetState.PENDING: 1, TargetState.FAILED: 1}
    assert "PodGone" in decided.status.last_error


def test_a_running_attempt_is_shown_as_its_runner_tells_it_and_never_goes_back() -> None:
    """State, message and container are taken over; an attempt that is attached again does not become Starting."""
    seen = begun(observe([pod(0)]))
    (id_,) = seen.running
    running = Progress(state=TargetState.RUNNING, message="warming up", tool_container="toe-x", bytes=3)
    decided = plan(replace(seen, progress={id_: running}))
    (row,) = decided.status.targets
    assert (row.state, row.message, row.tool_container, row.bytes) == (TargetState.RUNNING, "warming up", "toe-x", 3)
    assert decided.status.active_pods == {"shop/web-0": "toe-x"}
    seen = after(seen, decided)
    back = plan(replace(seen, progress={id_: Progress(state=TargetState.STARTING)}))
    assert back.status.targets[0].state is TargetState.RUNNING
    assert ledger.decode(back.status.ledger)[0].at == NOW, "claimedAt stays, or the capture would be another one"


def test_words_alone_are_not_urgent_but_states_are() -> None:
    """Messages can wait for the next write; a phase or an ended target cannot."""
    seen = begun(observe([pod(0)]))
    (id_,) = seen.running
    told = plan(replace(seen, progress={id_: Progress(state=TargetState.STARTING, message="pulling the image")}))
    assert told.status != seen.tool.status
    assert not told.urgent
    assert plan(replace(seen, progress={id_: Progress(state=TargetState.RUNNING)})).urgent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("nonsense", "begins with 'nonsense'", id="not ours"),
        pytest.param("", "it is empty", id="cleared"),
        pytest.param("1;app;AAAAAAAAAAAAAAAAAAAAAAp0,???", "'???'", id="half"),
    ],
)
def test_a_ledger_that_somebody_changed_ends_the_run(text: str, words: str) -> None:
    """Nothing is guessed: what runs is cancelled, the run failed, and the totals are those of the ledger."""
    seen = begun(observe(THREE))
    progress = {id_: Progress(state=TargetState.RUNNING) for id_ in seen.running}
    broken = replace(seen.tool, status=replace(seen.tool.status, ledger=text))
    decided = plan(replace(seen, tool=broken, progress=progress))
    assert decided.status.phase is Phase.FAILED
    assert words in decided.status.last_error
    assert {one.capture for one in decided.cancels} == seen.running
    assert decided.status.selected_pods == decided.status.running_pods == 0
    assert plan(after(seen, decided)).status == decided.status


def test_a_cleared_status_takes_up_the_same_attempts_again() -> None:
    """PT17: a user who clears the status neither frees the container nor gets a second tool into it."""
    seen = observe([pod(0)])
    first = plan(seen)
    mine = replace(occupied(first.starts[0].id[:20]), namespace="", name="", tool="")
    again = plan(replace(seen, busy={(uid(0), "app"): (mine,)}))
    assert [one.id for one in again.starts] == [one.id for one in first.starts]


def occupied(capture: str) -> Any:
    """Somebody in a container."""

    return Occupant("bank", "other", "pt-0", NOW - timedelta(hours=1), "strace", (), capture)


def test_a_tool_that_was_removed_in_the_middle_ends_only_what_nobody_watches() -> None:
    """Tools that run go on; after a restart they cannot be described any more and are closed with the reason."""
    removed = {"config": None, "config_problem": refused(Reason.TOOL_NOT_FOUND)}
    seen = begun(observe([pod(0)]))
    goes_on = plan(replace(seen, **removed))
    assert states(goes_on.status) == {TargetState.STARTING: 1}
    assert not goes_on.cancels
    closed = plan(replace(seen, **removed, running=frozenset()))
    assert states(closed.status) == {TargetState.FAILED: 1}
    assert closed.status.targets[0].reason == "ToolNotFound"


def test_a_finished_powertool_is_deleted_after_its_time_to_live() -> None:
    """ttlSecondsAfterFinished counts from finishedAt; until then the plan says when to look again."""
    seen = begun(observe([pod(0)], tool({"ttlSecondsAfterFinished": 60})))
    (start,) = plan(observe([pod(0)])).starts
    over = after(seen, plan(replace(seen, progress=done(start))))
    early = plan(replace(over, now=NOW + timedelta(seconds=20)))
    assert (early.delete, early.recheck_seconds) == (False, 40)
    assert plan(replace(over, now=NOW + timedelta(seconds=60))).delete
    assert not plan(replace(over, now=NOW + timedelta(seconds=60), tool=deleted(over.tool))).delete
    forever = replace(over, tool=replace(over.tool, spec=tool().spec), now=NOW + timedelta(days=99))
    assert not plan(forever).delete


def test_targets_that_preflight_speaks_against_fail_with_its_reason_and_the_others_run() -> None:
    """No silent skip: each is in the totals and in lastError."""
    seen = observe(THREE)
    bad = replace(seen.candidates[0], problem=refused(Reason.VOLUME_NOT_MOUNTED, "no volume"))
    decided = plan(replace(seen, candidates=(bad, *seen.candidates[1:])))
    assert (decided.status.selected_pods, decided.status.failed_pods, len(decided.starts)) == (3, 1, 2)
    assert "VolumeNotMounted: no volume" in decided.status.last_error
    ends = {key: one for start in decided.starts for key, one in done(start).items()}
    final = plan(replace(after(seen, decided), progress=ends))
    assert final.status.phase is Phase.PARTIALLY_FAILED
    assert condition(final.status, "Failed").status is ConditionStatus.TRUE


def test_a_run_of_which_every_target_is_refused_has_failed_at_once() -> None:
    """PT8: an unknown container is never replaced by the first one."""
    decided = plan(observe(THREE, tool({"targets": {"container": "nope"}})))
    assert (decided.status.phase, decided.status.failed_pods) == (Phase.FAILED, 3)
    assert condition(decided.status, "Failed").reason == "TargetContainerMissing"
    assert "has no container nope; it has: app, side" in decided.status.last_error
    assert decided.starts == ()
    assert not decided.finalizer


def test_exit_code_reason_and_message_of_a_failure_reach_row_condition_and_event() -> None:
    """PT3: failed means failed, with code and words."""
    seen = begun(observe([pod(0)]))
    (start,) = plan(observe([pod(0)])).starts
    decided = plan(replace(seen, progress=failed(start)))
    (row,) = decided.status.targets
    assert (row.state, row.exit_code, row.reason) == (TargetState.FAILED, 1, "ToolFailed")
    assert decided.status.phase is Phase.FAILED
    assert condition(decided.status, "Failed").reason == "ToolFailed"
    assert decided.status.last_error == "pod shop/web-0: ToolFailed: exit code 1"
    assert [(one.reason, one.pod, one.warning) for one in decided.events] == [
        ("ToolFailed", "", True), ("ToolFailed", "web-0", True),
    ]  # fmt: skip


def test_conditions_keep_their_transition_time_until_their_truth_changes() -> None:
    """PT16: and observedGeneration is that of the spec they speak of."""
    seen = begun(observe([pod(0)], tool(generation=4)))
    later = plan(replace(seen, now=NOW + timedelta(minutes=5)))
    assert all(one.last_transition_time == NOW for one in later.status.conditions)
    assert all(one.observed_generation == 4 for one in later.status.conditions)
    (start,) = plan(observe([pod(0)])).starts
    ended = plan(replace(seen, now=NOW + timedelta(minutes=9), progress=done(start)))
    moved = {one.type: one.last_transition_time - NOW for one in ended.status.conditions}
    nine = timedelta(minutes=9)
    assert moved == {
        "Accepted": timedelta(0), "Running": nine, "Complete": nine, "Failed": timedelta(0), "ArtifactsStored": nine,
    }  # fmt: skip


def test_an_upload_that_is_retried_is_told_and_falls_back_once_it_is_through() -> None:
    """ArtifactsStored names the trouble while it lasts."""
    seen = begun(observe([pod(0)]))
    (start,) = plan(observe([pod(0)])).starts
    late = Progress(state=TargetState.STORING, reason="UploadRetrying", message="the collector does not answer")
    decided = plan(replace(seen, progress={start.id: late}))
    assert condition(decided.status, "ArtifactsStored").reason == "UploadRetrying"
    final = plan(replace(after(seen, decided), progress=done(start)))
    assert condition(final.status, "ArtifactsStored").reason == "AllStored"
    assert (
        plan(
            replace(after(seen, decided), progress=done(start, TargetState.FAILED, reason="UploadFailed"))
        ).status.phase
        is Phase.FAILED
    )


def test_five_hundred_targets_with_the_longest_names_fit() -> None:
    """Below 32 KiB at every stage, the ledger always whole."""
    long = [
        pod(
            number,
            name=f"{number:03}" + "p" * 250,
            namespace="n" * 63,
            node="k" * 250 + f"{number % 7}",
            containers=(replace(pod().containers[0], name="c" * 63),),
        )
        for number in range(500)
    ]
    namespaces = (NamespaceFacts("n" * 63, granted=True, named=True),)
    seen = observe(long, tool({"budgets": {"maxConcurrentPods": 200}}), namespaces=namespaces)
    seen = replace(seen, slots=replace(seen.slots, cluster=500, per_node=500))
    while True:
        decided = plan(seen)
        assert len(encode(decided.status)) < 32 << 10
        assert len(ledger.decode(decided.status.ledger)) == 500
        if decided.status.finished_at:
            break
        seen = after(seen, decided)
        progress = {}
        for number, id_ in enumerate(sorted(seen.running)):
            state = TargetState.FAILED if number % 2 else TargetState.COMPLETED
            progress[id_] = Progress(state=state, reason="ToolFailed", message="x" * 2000)
        seen = replace(seen, progress=progress, running=frozenset())
    assert decided.status.selected_pods == 500
    assert decided.status.completed_pods + decided.status.failed_pods == 500
    assert decided.status.targets, "some rows are shown all the same"


def test_ten_thousand_matching_pods_are_refused_or_sampled() -> None:
    """More than the ledger holds never begins without a sample."""
    many = [pod(number) for number in range(10_000)]
    decided = plan(observe(many))
    assert condition(decided.status, "Accepted").reason == "TooManyTargets"
    assert "10000 pods match" in condition(decided.status, "Accepted").message
    assert decided.status.phase is Phase.PENDING
    sampled = plan(observe(many, tool({"targets": {"maxTargets": 20, "pick": "Random"}})))
    assert sampled.status.selected_pods == 20
    assert len(encode(sampled.status)) < 32 << 10


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"policy_problem": "none"}, id="refused"),
        pytest.param({"pods_problem": "forbidden"}, id="pods cannot be read"),
        pytest.param({"known": False}, id="tools cannot be read"),
        pytest.param({"candidates": observe([pod(number) for number in range(501)]).candidates}, id="too many targets"),
    ],
)
def test_what_waits_for_somebody_else_is_looked_at_again_each_minute(facts: dict[str, Any]) -> None:
    """Should nobody tell when the cause is gone."""
    assert plan(observe(THREE, **facts)).recheck_seconds == HELD_SECONDS
    assert plan(observe(THREE)).recheck_seconds is None


def test_only_attempts_that_have_ended_may_be_forgotten() -> None:
    """What still runs is not settled; an outcome that no target claims any more is."""
    seen = begun(observe(THREE))
    first, second, _ = plan(observe(THREE)).starts
    stranger = replace(second, id="y" * 32)
    progress = {**done(first), **done(stranger), second.id: Progress(state=TargetState.RUNNING)}
    assert sorted(plan(replace(seen, progress=progress)).settled) == sorted([first.id, stranger.id])


def test_a_target_of_which_only_the_uid_is_left_is_still_named() -> None:
    """The ledger keeps no names: those beyond the shown rows lose theirs with their pod."""
    seen = begun(observe([pod(0)], tool({"budgets": {"maxConcurrentPods": 1}})))
    nameless = replace(seen.tool, status=replace(seen.tool.status, targets=()))
    decided = plan(replace(seen, tool=nameless, running=frozenset(), pods={uid(0): PodNow("gone", None)}))
    assert f"the pod with UID {uid(0)} is gone" in decided.status.last_error
    assert [one.pod for one in decided.events] == [""], "no Event can be put on a pod without its name"
