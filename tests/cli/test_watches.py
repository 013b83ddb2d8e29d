"""Which watches the operator cannot do without, and what becomes of those whose kind is not installed."""

import asyncio

import pytest
from directapi import DirectApi
from loopclock import LoopClock
from prometheus_client import CollectorRegistry

from toe_async.apis.kinds import BOLOMETER_CONFIGS, POWER_TOOL_CONFIGS, POWER_TOOLS
from toe_async.cli.watches import watches
from toe_async.lib.tasks import TaskOwner
from toe_async.telemetry.metrics import OperatorMetrics


@pytest.mark.looptime
async def test_a_cluster_without_the_powertools_crds_is_told_and_the_rest_goes_on() -> None:
    """What is required is synced, what is missing says which CRD to install, and becomes live once it is there."""
    api = DirectApi(LoopClock())
    api.install("toe-system")
    for kind in (POWER_TOOLS, POWER_TOOL_CONFIGS):
        api.registry.drop(kind.group, kind.plural)
    watched = watches(api, LoopClock(), OperatorMetrics(CollectorRegistry()), "toe-system")
    missing = (watched.tools, watched.tool_configs)
    optional = (*missing, watched.configs[BOLOMETER_CONFIGS.group])
    assert {one.resource for one in watched.all()} - {one.resource for one in watched.required()} == {
        one.resource for one in optional
    }
    async with TaskOwner(lambda name, error: None) as owner:
        for informer in watched.all():
            owner.start(informer.run(), name=informer.resource)
        for informer in watched.required():
            await informer.synced.wait()
        await asyncio.sleep(5)
        for informer in missing:
            assert not informer.synced.is_set()
            assert "install its CustomResourceDefinition" in (informer.problem or "")
        api.install()
        for informer in missing:
            async with asyncio.timeout(120):
                await informer.synced.wait()
