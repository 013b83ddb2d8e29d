"""The admission policy is looked for until it is there, and its loss is noticed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from toe_async.kube.errors import NotFound, TransportError
from toe_async.kube.requests import Request
from toe_async.lib.tasks import TaskOwner
from toe_async.runtime.policy import POWERTOOL_POLICY, PROFILING_POLICY, PolicyMonitor

Answer = Callable[[Request], bytes]


class Server:
    """Answers by a function."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def send(self, request: Request) -> bytes:
        self.asked.append(request.path)
        await asyncio.sleep(0)
        return self.answer(request)


@asynccontextmanager
async def running(monitor: PolicyMonitor) -> AsyncIterator[None]:
    """Run the monitor until the block ends; what it raises fails the test."""
    failures: list[BaseException] = []
    async with TaskOwner(lambda name, error: failures.append(error)) as owner:
        owner.start(monitor.run(), name="policy")
        yield
    assert failures == []


def binding(name: str, *actions: str) -> bytes:
    return msgspec.json.encode({"spec": {"policyName": name, "validationActions": actions}})


def monitor_of(
    answer: Answer,
    *,
    name: str = PROFILING_POLICY,
    flag: str = "--policy",
    required: bool = True,
    on_change: Callable[[], None] = lambda: None,
) -> PolicyMonitor:
    return PolicyMonitor(Server(answer), name, on_change, required=required, flag=flag)


def nothing(request: Request) -> bytes:
    raise NotFound(404, "NotFound", "not there")


@pytest.mark.looptime
async def test_the_policy_counts_as_missing_until_it_and_its_binding_are_seen() -> None:
    """H21: nothing runs before; what was seen once survives an outage of the API server; its deletion is noticed."""
    answers: dict[str, Exception | bytes] = {}

    def answer(request: Request) -> bytes:
        found = answers.get(request.path.split("/")[4], NotFound(404, "NotFound", "not there"))
        if isinstance(found, Exception):
            raise found
        return found

    woken: list[int] = []
    monitor = monitor_of(answer, on_change=lambda: woken.append(1))

    def problem() -> str:
        return monitor.problem or ""

    assert problem()
    async with running(monitor):
        await asyncio.sleep(1)
        assert "apply the ValidatingAdmissionPolicy" in problem()
        assert monitor.known
        answers["validatingadmissionpolicies"] = b"{}"
        await asyncio.sleep(6)
        assert problem()
        answers["validatingadmissionpolicybindings"] = binding(PROFILING_POLICY, "Deny")
        await asyncio.sleep(6)
        assert not problem()
        answers["validatingadmissionpolicies"] = TransportError("connection refused")
        await asyncio.sleep(120)
        assert not problem()
        del answers["validatingadmissionpolicies"]
        await asyncio.sleep(61)
        assert problem()
    assert len(woken) >= 3


@pytest.mark.looptime
@pytest.mark.parametrize("found", [binding(PROFILING_POLICY, "Audit"), binding(POWERTOOL_POLICY, "Deny")])
async def test_a_binding_that_does_not_deny_or_binds_another_policy_is_no_binding(found: bytes) -> None:
    """Audit-only would let everybody through."""
    monitor = monitor_of(lambda request: found)
    async with running(monitor):
        await asyncio.sleep(1)
        assert "Deny" in (monitor.problem or "")


@pytest.mark.looptime
async def test_each_kind_has_its_own_policy_and_its_own_flag() -> None:
    """What is told names the policy of that kind and the flag that does without it."""
    monitor = monitor_of(nothing, name=POWERTOOL_POLICY, flag="--powertool-policy")
    async with running(monitor):
        await asyncio.sleep(1)
    problem = monitor.problem or ""
    assert POWERTOOL_POLICY in problem
    assert "--powertool-policy=optional" in problem


@pytest.mark.looptime
async def test_an_optional_policy_is_never_asked_for() -> None:
    """It is known from the start, and nothing is missing."""
    monitor = monitor_of(nothing, required=False)
    assert monitor.known
    assert monitor.problem is None
    async with running(monitor):
        await asyncio.sleep(100)
    assert monitor.problem is None
