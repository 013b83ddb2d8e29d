"""The PowerToolConfig controller: says of each approved tool whether it can be run.

Only configs in the operator's namespace are watched; those of other namespaces do not exist for us (PC1). A config is
looked at when it changes, and when another one takes or leaves its `spec.name`.
"""

from collections.abc import Callable

from toe_async.apis.powertoolconfig import PowerToolConfig
from toe_async.capture.toolconfig import ToolPolicy
from toe_async.controllers.powertoolconfig.plan import plan
from toe_async.kube.errors import Conflict, NotFound
from toe_async.lib.clock import Clock
from toe_async.runtime.controller import Result
from toe_async.runtime.informer import Informer
from toe_async.runtime.keys import Key
from toe_async.runtime.statuses import OwnWrites, StatusWriter
from toe_async.runtime.workqueue import WorkQueue

BY_NAME = "tool"
"""The index by which the informer finds the configs that claim one `spec.name`."""
FIELD_MANAGER = "toe-powertoolconfig"
_AFTER_CONFLICT = 0.2  # seconds until the watch has most likely brought what we conflicted with
_UNSYNCED = 1.0


class PowerToolConfigController:
    """Wires the watch to the queue and applies plans. Its handler is added at construction."""

    def __init__(
        self,
        *,
        configs: Informer[PowerToolConfig],
        writer: StatusWriter[PowerToolConfig],
        queue: WorkQueue[Key],
        fence: Callable[[], None],
        clock: Clock,
        policy: ToolPolicy,
    ) -> None:
        self._configs, self._writer, self._queue = configs, writer, queue
        self._fence, self._clock, self._policy = fence, clock, policy
        self._own: OwnWrites[Key, PowerToolConfig] = OwnWrites()
        configs.add_handler(self._changed)

    def _changed(self, old: PowerToolConfig | None, new: PowerToolConfig | None) -> None:
        config = new or old
        assert config is not None
        self._queue.add(key_of(config))
        if old is not None and new is not None and old.spec.name == new.spec.name:
            return
        for name in {one.spec.name for one in (old, new) if one is not None}:
            for other in self._configs.store.by_index(BY_NAME, name):
                self._queue.add(key_of(other))

    async def reconcile(self, key: Key) -> Result:
        """Validate one config and write what came of it, if that is news."""
        if not self._configs.synced.is_set():
            # Somebody with the same name may still be on his way: neither of them would be Ready.
            return Result(requeue_after=_UNSYNCED)
        config = self._own.newest(key, self._configs.store.get(key))
        if config is None:
            return Result()
        status = plan(config, self._configs.store.list(), self._policy, self._clock.now())
        if status == config.status:
            return Result()
        self._fence()
        try:
            self._own.wrote(key, await self._writer.write(config, config.status, status))
        except NotFound:
            return Result()
        except Conflict:
            return Result(requeue_after=_AFTER_CONFLICT)
        return Result()


def key_of(config: PowerToolConfig) -> Key:
    """Under which key a config is queued."""
    return Key(config.metadata.namespace, config.metadata.name)
