"""A PowerToolConfig earns Ready, loses it again, and is written only when there is news."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from directapi import Call, DirectApi
from loopclock import LoopClock
from prometheus_client import CollectorRegistry

from toe_async.apis.kinds import POWER_TOOL_CONFIGS
from toe_async.apis.powertoolconfig import PowerToolConfigStatus, decode_power_tool_config
from toe_async.capture.toolconfig import ToolPolicy
from toe_async.controllers.powertoolconfig.controller import BY_NAME, PowerToolConfigController
from toe_async.kube.errors import Conflict, KubeError, TransportError
from toe_async.lib.tasks import TaskOwner
from toe_async.runtime.controller import Controller
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.runtime.statuses import StatusWriter
from toe_async.runtime.workqueue import WorkQueue
from toe_async.telemetry.metrics import OperatorMetrics

HOME = "toe-system"
PLURAL = "powertoolconfigs"
DIGEST = "@sha256:" + "0123456789abcdef" * 4


def config(name: str, tool: str = "", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": POWER_TOOL_CONFIGS.api_version,
        "kind": "PowerToolConfig",
        "metadata": {"name": name},
        "spec": {
            "name": tool or name,
            "image": "registry.example/tools/thing:1",
            "securityContext": {},
            **spec,
        },
    }


class Rig:
    """The controller over an API server without sockets."""

    def __init__(self, policy: ToolPolicy) -> None:
        self.api = DirectApi(LoopClock())
        self.api.install(HOME, "default")
        clock, metrics = LoopClock(), OperatorMetrics(CollectorRegistry())
        self.informer = Informer(
            self.api,
            POWER_TOOL_CONFIGS,
            decode_power_tool_config,
            key_of=lambda one: Key(one.metadata.namespace, one.metadata.name),
            version_of=lambda one: one.metadata.resource_version,
            uid_of=lambda one: one.metadata.uid,
            namespace=HOME,
            indexes={BY_NAME: lambda one: [one.spec.name]},
            clock=clock,
            metrics=metrics,
        )
        queue: WorkQueue[Key] = WorkQueue("powertoolconfig", clock=clock, metrics=metrics)
        controller = PowerToolConfigController(
            configs=self.informer,
            writer=StatusWriter(self.api, POWER_TOOL_CONFIGS, decode_power_tool_config, "toe-powertoolconfig"),
            queue=queue,
            fence=lambda: None,
            clock=clock,
            policy=policy,
        )
        self.queue = queue
        self.worker = Controller("powertoolconfig", queue, controller.reconcile, clock=clock, metrics=metrics)

    def status(self, name: str) -> PowerToolConfigStatus:
        held = self.api.get(PLURAL, HOME, name)
        assert held is not None
        return decode_power_tool_config(msgspec.json.encode(held)).status

    def ready(self, name: str) -> str:
        (condition,) = self.status(name).conditions
        return f"{condition.status} {condition.reason} {condition.message}"


@asynccontextmanager
async def running(policy: ToolPolicy | None = None) -> AsyncIterator[Rig]:
    rig = Rig(policy or ToolPolicy())
    failures: list[BaseException] = []
    async with TaskOwner(lambda name, error: failures.append(error)) as owner:
        owner.start(rig.informer.run(), name="informer")
        owner.start(rig.worker.run(), name="worker")
        await rig.informer.synced.wait()
        yield rig
    assert failures == []


@pytest.mark.looptime
async def test_a_good_config_becomes_ready_and_a_bad_one_says_which_field_is_wrong() -> None:
    """PC2: nothing panics, and the sentence begins with the field."""
    async with running() as rig:
        rig.api.create(PLURAL, HOME, config("good"))
        rig.api.create(PLURAL, HOME, config("bad", securityContext={"capabilities": {"add": ["NO_SUCH"]}}))
        await asyncio.sleep(1)
        assert rig.ready("good") == "True Valid tool good can be run"
        assert rig.status("good").phase == "Ready"
        assert rig.ready("bad").startswith("False InvalidSpec spec.securityContext.capabilities.add:")
        assert rig.status("bad").phase == "NotReady"


@pytest.mark.looptime
async def test_ready_is_lost_and_earned_again_with_the_spec() -> None:
    """The transition time and lastValidated move with the verdict; the generation is told each time."""
    async with running() as rig:
        rig.api.create(PLURAL, HOME, config("tool"))
        await asyncio.sleep(1)
        first = rig.status("tool")
        rig.api.change(PLURAL, HOME, "tool", {"spec": {"suspend": True}})
        await asyncio.sleep(10)
        suspended = rig.status("tool")
        assert rig.ready("tool").startswith("False Suspended")
        rig.api.change(PLURAL, HOME, "tool", {"spec": {"suspend": None}})
        await asyncio.sleep(10)
        again = rig.status("tool")
    assert [one.phase for one in (first, suspended, again)] == ["Ready", "NotReady", "Ready"]
    assert [one.observed_generation for one in (first, suspended, again)] == [1, 2, 3]
    moments = [one.last_validated for one in (first, suspended, again)]
    assert all(moments)
    assert len(set(moments)) == 3


@pytest.mark.looptime
async def test_two_configs_that_claim_one_name_are_both_not_ready_until_one_leaves_it() -> None:
    """PC3: neither of them wins; the other one is looked at again although nothing happened to itself."""
    async with running() as rig:
        rig.api.create(PLURAL, HOME, config("a", "dump"))
        await asyncio.sleep(1)
        assert rig.status("a").phase == "Ready"
        rig.api.create(PLURAL, HOME, config("b", "dump"))
        await asyncio.sleep(1)
        assert [rig.status(name).phase for name in "ab"] == ["NotReady", "NotReady"]
        assert "claimed by b too" in rig.ready("a")
        rig.api.change(PLURAL, HOME, "b", {"spec": {"name": "other"}})
        await asyncio.sleep(1)
        assert [rig.status(name).phase for name in "ab"] == ["Ready", "Ready"]
        rig.api.change(PLURAL, HOME, "b", {"spec": {"name": "dump"}})
        await asyncio.sleep(1)
        rig.api.delete(PLURAL, HOME, "b")
        await asyncio.sleep(1)
        assert rig.status("a").phase == "Ready"


@pytest.mark.looptime
async def test_further_passes_write_nothing_and_lastused_is_left_alone() -> None:
    """PC2: no write per pass, whoever else writes the status."""
    async with running() as rig:
        rig.api.create(PLURAL, HOME, config("tool"))
        await asyncio.sleep(1)
        rig.api.change(PLURAL, HOME, "tool", {"status": {"lastUsed": "2026-01-24T20:00:01Z"}}, subresource="status")
        written = len(rig.api.writes)
        assert written == 1
        for _ in range(20):
            rig.queue.add(Key(HOME, "tool"))
            await asyncio.sleep(61)
        assert len(rig.api.writes) == written
        assert rig.status("tool").last_used is not None


@pytest.mark.looptime
async def test_a_config_of_another_namespace_does_not_exist() -> None:
    """PC1: it is not looked at, and takes nobody's name."""
    async with running() as rig:
        rig.api.create(PLURAL, "default", config("tool"))
        rig.api.create(PLURAL, HOME, config("tool"))
        await asyncio.sleep(1)
        assert rig.status("tool").phase == "Ready"
        assert "status" not in (rig.api.get(PLURAL, "default", "tool") or {})


@pytest.mark.looptime
@pytest.mark.parametrize(("image", "phase"), [("r.example/t:1", "NotReady"), (f"r.example/t{DIGEST}", "Ready")])
async def test_where_digests_are_required_a_tag_is_not_ready(image: str, phase: str) -> None:
    """PC5."""
    async with running(ToolPolicy(require_digest=True)) as rig:
        rig.api.create(PLURAL, HOME, config("tool", image=image))
        await asyncio.sleep(1)
        assert rig.status("tool").phase == phase


@pytest.mark.looptime
@pytest.mark.parametrize("error", [Conflict(409, "Conflict", "changed"), TransportError("connection refused")])
async def test_a_write_that_fails_is_made_again(error: KubeError) -> None:
    """Nothing is lost by an answer that did not come."""
    failures = [error, error]

    def before(call: Call) -> KubeError | None:
        return failures.pop() if call.is_write and failures else None

    async with running() as rig:
        rig.api.before = before
        rig.api.create(PLURAL, HOME, config("tool"))
        await asyncio.sleep(5)
        assert rig.status("tool").phase == "Ready"
        assert len(rig.api.writes) == 3
