"""How a tool's run is called where its artifacts are kept: its capture record, and the provenance beside it. Pure."""

import shlex
from typing import Final

from toe_async.agent.protocol import Orders
from toe_async.apis.captures import CaptureRecord, CollectorRef, S3Ref, SinkRef
from toe_async.apis.kinds import POWER_TOOLS
from toe_async.capture.toolrun import ToolCapture
from toe_async.kube.errors import clip

_LONGEST_DETAIL: Final = 1000


def record_of(capture: ToolCapture) -> CaptureRecord:
    """The record by which sinks know the capture; equal whoever makes it."""
    tool = capture.spec.tool
    when = f"scheduled for {capture.run}, " if capture.run else ""
    again = f", attempt {capture.attempt}" if capture.attempt > 1 else ""
    return CaptureRecord(
        id=capture.id,
        group=POWER_TOOLS.group,
        kind=POWER_TOOLS.kind,
        namespace=capture.namespace,
        name=capture.name,
        uid=capture.uid,
        target=capture.target,
        reason="scheduled" if capture.run else "on-demand",
        trigger=f"{when}{tool.name} for {tool.duration} asked by PowerTool {capture.namespace}/{capture.name}{again}",
        triggered_at=capture.claimed_at,
        holder="",
        sink=_sink(capture),
        matching_labels=capture.matching_labels,
        tool=capture.tool.name,
        retention_days=capture.spec.output.retention_days,
        named_at=capture.claimed_at,
    )


def details_of(capture: ToolCapture, orders: Orders, level: str, image_id: str = "") -> dict[str, str]:
    """What readers of an artifact want to know of how it came about (U13)."""
    tool = capture.spec.tool
    found = {
        "arguments": shlex.join(orders.argv),
        "image": capture.tool.image,
        "imageDigest": image_id,
        "toolVersion": capture.tool.version,
        "preset": tool.resolution_preset or "",
        "duration": tool.duration,
        "warmup": tool.warmup,
        "attempt": str(capture.attempt),
        "scheduledFor": capture.run,
        "podSecurityLevel": level,
        "sensitivity": capture.tool.sensitivity,
    }
    return {key: clip(value, _LONGEST_DETAIL) for key, value in found.items() if value}


def _sink(capture: ToolCapture) -> SinkRef:
    output = capture.spec.output
    if output.mode == "s3" and output.s3 is not None:
        s3 = output.s3
        return S3Ref(
            bucket=s3.bucket,
            prefix=s3.prefix,
            region=s3.region,
            endpoint=s3.endpoint,
            credentials_secret=s3.credentials_secret,
        )
    return CollectorRef(endpoint=output.collector.endpoint if output.collector is not None else "")
