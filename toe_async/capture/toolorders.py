"""What a supervisor is told to do, from a claimed attempt and its pod. Pure: whoever leads next writes the same orders.

That matters, since the container's arguments hold the digest of the orders that it will take.
"""

from typing import Final
from urllib.parse import urlsplit

from toe_async.agent.protocol import Orders
from toe_async.apis.podspec import PodDetail
from toe_async.apis.reasons import Reason
from toe_async.capture.arguments import render
from toe_async.capture.preflight import host_pid
from toe_async.capture.refusals import Refused
from toe_async.capture.toolrun import ToolCapture
from toe_async.capture.vessels import CLAIM_MOUNT
from toe_async.lib.durations import format_duration, parse_duration
from toe_async.lib.names import digest
from toe_async.lib.quantities import parse_quantity

KEEP_SECONDS: Final = 900.0
HEARTBEAT_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 10.0
_MIB: Final = 1 << 20


def orders(
    capture: ToolCapture,
    pod: PodDetail,
    *,
    level: str,
    collector: str,
    ca: str,
    max_bytes: int,
    upload_seconds: float,
) -> Orders | Refused:
    """The orders of one attempt. `max_bytes` bounds each leaf and `upload_seconds` the upload; both are the operator's.

    `collector` and `ca` (PEM) are told in mode collector only.
    """
    tool, wanted, output = capture.tool, capture.spec.tool, capture.spec.output
    argv = render(tool, wanted)
    if isinstance(argv, Refused):
        return argv
    duration = parse_duration(wanted.duration).total_seconds()
    if tool.max_duration and duration > (most := parse_duration(tool.max_duration)).total_seconds():
        return Refused(
            Reason.INVALID_SPEC,
            f"spec.tool.duration: {wanted.duration} is longer than the {format_duration(most)} of tool {tool.name}",
        )
    limit = int(parse_quantity(tool.upload_limit)) if tool.upload_limit else max_bytes
    status = pod.container_status(capture.target.container)
    on_node = host_pid(tool, level)
    # PID 1 is the target's only where nobody else's processes are to be seen.
    crowded = on_node or pod.spec.share_process_namespace or pod.spec.host_pid
    container_id = status.container_id.partition("://")[2] if crowded and status is not None else ""
    if crowded and not container_id:
        where = f"container {capture.target.container} of pod {capture.target.namespace}/{capture.target.pod}"
        return Refused(Reason.TARGET_CONTAINER_MISSING, f"{where} has no id, so its processes cannot be told")
    throttle = tool.throttle
    return Orders(
        capture=capture.id,
        tool=tool.name,
        argv=argv,
        duration=duration,
        warmup=parse_duration(wanted.warmup).total_seconds() if wanted.warmup else 0.0,
        mode=output.mode,
        outputs=tool.outputs,
        compress=output.compress,
        rolling=_rolling(output.rolling_interval, duration),
        max_bytes=min(limit, max_bytes),
        max_output_bytes=4 * min(limit, max_bytes),
        upload_seconds=upload_seconds,
        keep_seconds=KEEP_SECONDS,
        grace=GRACE_SECONDS,
        endpoint=collector if output.mode == "collector" else "",
        ca=ca if output.mode == "collector" and urlsplit(collector).scheme == "https" else "",
        pvc_path=_pvc_path(capture),
        fetch_key=digest(capture.uid, capture.target.pod_uid, capture.id, "fetch") if output.mode == "s3" else "",
        cpu_percent=_cpu_percent(capture),
        overhead_percent=float(capture.spec.budgets.per_pod_overhead_target or 0),
        throttle=throttle,
        memory_bytes=int(parse_quantity(tool.resources.limits.memory)) if tool.resources.limits.memory else 0,
        nice=0 if tool.resources.requests.cpu else 10,
        heartbeat_seconds=HEARTBEAT_SECONDS if tool.heartbeat else 0.0,
        target_pod_uid=capture.target.pod_uid if on_node else "",
        target_container_id=container_id,
        target_container=capture.target.container,
    )


def _rolling(interval: str, duration: float) -> float:
    """Seconds of one segment; 0 where a single segment would hold the whole run anyway."""
    seconds = parse_duration(interval).total_seconds() if interval else 0.0
    return seconds if 0 < seconds < duration else 0.0


def _pvc_path(capture: ToolCapture) -> str:
    pvc = capture.spec.output.pvc
    if pvc is None:
        return ""
    inside = "/".join(part for part in pvc.path.split("/") if part)
    return f"{CLAIM_MOUNT}/{inside}" if inside else CLAIM_MOUNT


def _cpu_percent(capture: ToolCapture) -> float:
    """The cap in per cent of one core: the author's, never above the tool's own limit."""
    limit = capture.tool.resources.limits.cpu
    caps = [float(parse_quantity(limit)) * 100] if limit else []
    if capture.spec.tool.max_cpu_percent is not None:
        caps.append(float(capture.spec.tool.max_cpu_percent))
    return min(caps, default=0.0)
