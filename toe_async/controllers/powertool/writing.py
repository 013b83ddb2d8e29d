"""What the controller writes of a PowerTool: its status, its finalizer, its end; and of a config when it was used."""

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from toe_async.apis.kinds import POWER_TOOL_CONFIGS, POWER_TOOLS
from toe_async.apis.powertool import PowerTool, PowerToolStatus, decode_power_tool
from toe_async.apis.powertoolconfig import PowerToolConfig, decode_power_tool_config
from toe_async.controllers.powertool.facts import FINALIZER
from toe_async.kube.errors import Conflict, NotFound
from toe_async.kube.requests import delete, merge_patch
from toe_async.kube.sender import Sender
from toe_async.lib.clock import Clock
from toe_async.runtime.keys import Key
from toe_async.runtime.statuses import StatusWriter

FIELD_MANAGER = "toe-powertool"
USED_EVERY = timedelta(minutes=1)


class Writer:
    """Every write names the incarnation it is meant for, and all but `used` the version that they were decided on."""

    def __init__(self, client: Sender, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._statuses = StatusWriter(client, POWER_TOOLS, decode_power_tool, FIELD_MANAGER)
        self._configs = StatusWriter(client, POWER_TOOL_CONFIGS, decode_power_tool_config, FIELD_MANAGER)
        self._used: dict[Key, datetime] = {}

    async def status(self, tool: PowerTool, status: PowerToolStatus) -> PowerTool:
        """Write what differs; returns the object as it is then.

        Raises:
            Conflict: the object changed in between.
            KubeError: not written, or not known to be.
        """
        return await self._statuses.write(tool, tool.status, status)

    async def finalizer(self, tool: PowerTool, *, wanted: bool) -> PowerTool:
        """Put our finalizer on the object or take it away; others' stay. Returns the object as it is then.

        Raises:
            Conflict: the object changed in between.
            KubeError: not written, or not known to be.
        """
        meta = tool.metadata
        others = [one for one in meta.finalizers if one != FINALIZER]
        body = {
            "metadata": {
                "resourceVersion": meta.resource_version,
                "uid": meta.uid,
                "finalizers": [*others, FINALIZER] if wanted else others,
            }
        }
        request = merge_patch(
            POWER_TOOLS, meta.namespace, meta.name, msgspec.json.encode(body), field_manager=FIELD_MANAGER
        )
        return decode_power_tool(await self._client.send(request))

    async def delete(self, tool: PowerTool) -> None:
        """Delete the object if it is still the one that was seen; one that is gone already is as good.

        Raises:
            Conflict: the object changed in between.
            KubeError: not deleted, or not known to be.
        """
        meta = tool.metadata
        try:
            await self._client.send(
                delete(POWER_TOOLS, meta.namespace, meta.name, uid=meta.uid, resource_version=meta.resource_version)
            )
        except NotFound:
            return

    async def used(self, config: PowerToolConfig) -> None:
        """Set the config's lastUsed, at most once a minute. Whoever overtakes us has set it himself.

        Raises:
            KubeError: the API server cannot be reached or refuses.
        """
        key, now = Key(config.metadata.namespace, config.metadata.name), self._clock.now().replace(microsecond=0)
        held = [one for one in (config.status.last_used, self._used.get(key)) if one is not None]
        if held and now - max(held) < USED_EVERY:
            return
        self._used = {one: at for one, at in self._used.items() if now - at < USED_EVERY} | {key: now}
        try:
            await self._configs.write(config, config.status, replace(config.status, last_used=now))
        except (Conflict, NotFound):
            return
