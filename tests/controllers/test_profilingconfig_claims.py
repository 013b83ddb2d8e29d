"""A claim whose reply was lost is begun exactly once, when the status shows it, and never when it does not."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from profilingconfig_facts import NOW, config, facts, observe

from toe_async.apis.profilingconfig import ProfilingConfig
from toe_async.apis.profilingstatus import ProfilingConfigStatus
from toe_async.controllers.profilingconfig.claims import Claims
from toe_async.controllers.profilingconfig.facts import ConfigKey, Plan
from toe_async.controllers.profilingconfig.plan import plan
from toe_async.kube.errors import Conflict, TransportError

KEY = ConfigKey("profiling.io", "shop", "hot")
OTHER = ConfigKey("profiling.io", "shop", "other")


def decided() -> Plan:
    """One hot pod, one claim."""
    made = plan(observe(facts(cpu=0.45)))
    assert len(made.starts) == 1
    return made


def written(status: ProfilingConfigStatus, version: str = "8", uid: str = "cr-1") -> ProfilingConfig:
    """The configuration as the watch shows it later."""
    held = config(status=msgspec.to_builtins(status))
    return replace(held, metadata=replace(held.metadata, resource_version=version, uid=uid))


def lost_reply(claims: Claims, made: Plan, error: BaseException | None = None) -> None:
    with pytest.raises(type(error or TransportError(""))), claims.writing(KEY, config(), made.starts):
        raise error or TransportError("no answer")


def test_a_claim_that_was_written_without_an_answer_is_begun_once() -> None:
    claims, made = Claims(), decided()
    lost_reply(claims, made)
    shown = written(made.status)
    assert claims.answered(KEY, shown, "replica-a", NOW) == made.starts
    assert claims.answered(KEY, shown, "replica-a", NOW) == ()
    assert claims.taken(OTHER) == {}


def test_a_cancelled_write_counts_as_one_without_an_answer() -> None:
    claims, made = Claims(), decided()
    lost_reply(claims, made, KeyboardInterrupt())
    assert claims.answered(KEY, written(made.status), "replica-a", NOW) == made.starts


def test_while_nothing_is_known_the_pod_is_taken_for_others_and_free_for_the_claim_itself() -> None:
    claims, made = Claims(), decided()
    lost_reply(claims, made)
    (start,) = made.starts
    assert claims.answered(KEY, config(), "replica-a", NOW) == ()  # the version that the claim was bound to
    assert claims.taken(OTHER) == {start.record.id: start.record.target.pod_uid}
    assert claims.taken(KEY) == {}
    claims.forget(KEY)
    assert claims.taken(OTHER) == {}


@pytest.mark.parametrize(
    ("shown", "holder", "later"),
    [
        pytest.param({"status": ProfilingConfigStatus()}, "replica-a", 0, id="another write won"),
        pytest.param({"uid": "cr-2"}, "replica-a", 0, id="re-created"),
        pytest.param({}, "replica-b", 0, id="claimed by another replica"),
        pytest.param({}, "replica-a", 3600, id="too late to end in time"),
    ],
)
def test_what_is_not_our_open_claim_is_not_begun(shown: dict[str, Any], holder: str, later: int) -> None:
    claims, made = Claims(), decided()
    lost_reply(claims, made)
    held = written(**{"status": made.status, **shown})
    assert claims.answered(KEY, held, holder, NOW + timedelta(seconds=later)) == ()
    assert claims.taken(OTHER) == {}


def test_a_second_write_that_is_answered_settles_the_first() -> None:
    claims, made = Claims(), decided()
    lost_reply(claims, made)
    with claims.writing(KEY, config(), made.starts):
        assert claims.taken(KEY)
    assert claims.taken(OTHER) == {}
    assert claims.answered(KEY, written(made.status), "replica-a", NOW) == ()


def test_a_conflict_leaves_the_unanswered_claim_to_the_watch() -> None:
    claims, made = Claims(), decided()
    lost_reply(claims, made)
    with pytest.raises(Conflict), claims.writing(KEY, config(), made.starts):
        raise Conflict(409, "Conflict", "overtaken")
    assert claims.answered(KEY, written(made.status), "replica-a", NOW) == made.starts


def test_an_unanswered_write_without_claims_changes_nothing() -> None:
    claims = Claims()
    lost_reply(claims, replace(decided(), starts=()))
    assert claims.taken(OTHER) == {}
