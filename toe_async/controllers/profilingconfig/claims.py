"""Claims on their way into the status, and those whose answer never came.

A claim is written before its capture starts (D2). When the API server took the patch and the reply was lost, the claim
is ours and nothing was begun: it is begun when the watch shows it. The patch is bound to a version, so a status of
another version without the claim proves that it never will be there.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from toe_async.apis.profilingconfig import ProfilingConfig
from toe_async.apis.profilingstatus import CaptureState
from toe_async.controllers.profilingconfig.accounting import find
from toe_async.controllers.profilingconfig.facts import ConfigKey, Start
from toe_async.kube.errors import Conflict, NotFound


class _Unanswered(Struct, frozen=True):
    uid: str
    version: str
    starts: dict[str, Start]


class Claims:
    """What this process has claimed and not begun. Until then a claim's pod is taken and its place is used."""

    def __init__(self) -> None:
        self._writing: dict[str, str] = {}
        self._unanswered: dict[ConfigKey, _Unanswered] = {}

    @contextlib.contextmanager
    def writing(self, key: ConfigKey, config: ProfilingConfig, starts: Sequence[Start]) -> Iterator[None]:
        """Write the claims in the block. When it ends by anything but an answer, they are kept for `answered`."""
        ids = {start.record.id: start.record.target.pod_uid for start in starts}
        self._writing |= ids
        try:
            yield
        except (Conflict, NotFound):
            raise
        except BaseException:
            if starts:
                self._keep(key, config, starts)
            raise
        else:
            # This write and those before it were bound to one version: it has won, they never will.
            self._unanswered.pop(key, None)
        finally:
            for id_ in ids:
                del self._writing[id_]

    def taken(self, key: ConfigKey) -> dict[str, str]:
        """Capture ids and pod UIDs that are claimed. Unanswered claims of ``key`` itself it may write again."""
        held = {
            id_: start.record.target.pod_uid
            for owner, unanswered in self._unanswered.items()
            if owner != key
            for id_, start in unanswered.starts.items()
        }
        return held | self._writing

    def answered(self, key: ConfigKey, config: ProfilingConfig, holder: str, now: datetime) -> tuple[Start, ...]:
        """The claims that the status turns out to hold, each once, while there is time for their captures."""
        held = self._unanswered.get(key)
        if held is None or (held.uid, held.version) == (config.metadata.uid, config.metadata.resource_version):
            return ()
        del self._unanswered[key]
        if held.uid != config.metadata.uid:
            return ()
        return tuple(start for start in held.starts.values() if _is_ours(config, start, holder, now))

    def forget(self, key: ConfigKey) -> None:
        """The configuration is gone."""
        self._unanswered.pop(key, None)

    def _keep(self, key: ConfigKey, config: ProfilingConfig, starts: Sequence[Start]) -> None:
        version, uid = config.metadata.resource_version, config.metadata.uid
        before = self._unanswered.get(key)
        known = before.starts if before is not None and (before.uid, before.version) == (uid, version) else {}
        self._unanswered[key] = _Unanswered(uid, version, known | {start.record.id: start for start in starts})


def _is_ours(config: ProfilingConfig, start: Start, holder: str, now: datetime) -> bool:
    row = find(config.status, start.record.id)
    if row is None or row.holder != holder or row.state is not CaptureState.CAPTURING:
        return False
    # Begun too late it would be given up by the next leader while it runs.
    return now <= row.started_at + (row.deadline - row.started_at) / 2
