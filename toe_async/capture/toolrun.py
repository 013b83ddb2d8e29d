"""One tool in one container: what is to be done, and what has come of it. Shared by the controller and its runner."""

from datetime import datetime

from msgspec import Struct

from toe_async.apis.captures import Target
from toe_async.apis.powertool import PowerToolSpec, StoredArtifact, TargetState
from toe_async.apis.powertoolconfig import PowerToolConfigSpec


class ToolCapture(Struct, frozen=True, kw_only=True):
    """A claimed attempt on one target. Everybody who reads the same PowerTool, tool and pod makes an equal one.

    `id` is `capture_id(PowerTool UID, pod UID, container, "RUN/ATTEMPT")`; `run` is the scheduled instant, or empty for
    a PowerTool without schedule. `matching_labels` are those of the target that its selector names.
    """

    id: str
    namespace: str
    name: str
    uid: str
    run: str
    attempt: int
    claimed_at: datetime
    target: Target
    tool: PowerToolConfigSpec
    spec: PowerToolSpec
    matching_labels: dict[str, str]


class Progress(Struct, frozen=True, kw_only=True):
    """How far an attempt has come. `passing` tells of a failure that a second attempt may mend."""

    state: TargetState
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    bytes: int = 0
    artifacts: tuple[StoredArtifact, ...] = ()
    started_at: datetime | None = None
    finished_at: datetime | None = None
    tool_container: str = ""
    passing: bool = False
