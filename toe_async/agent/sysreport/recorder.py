"""The loop: a sample each interval into a file, until it is told to stop or the file is large enough."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Protocol

from toe_async.agent.sysreport.sample import Sampler
from toe_async.agent.sysreport.series import Series

LARGEST = 200 << 20
"""Bytes of sysreport.jsonl. At 1 s that is about 12 hours; beyond it the recording ends and the page is made."""


class Waiting(Protocol):
    """What the recorder needs to be stopped: toe_async.agent.tools.child.Stop."""

    def wait(self, seconds: float) -> bool:
        """Return within `seconds`, at once when asked to stop; says whether that is why."""


def record(sampler: Sampler, interval: float, path: Path, stop: Waiting) -> Series:
    """Write samples to a new file until `stop` is asked, and make series of them. Late ones are left out.

    There are always two samples, the second one at the end, so that there is a rate of everything.
    """
    start = time.monotonic()
    size = 0
    header = sampler.header(interval, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    series = Series(header)
    with path.open("w", encoding="utf-8") as file:
        file.write(_line(header))
        stopped = False
        while True:
            sample = sampler.take(time.monotonic() - start)
            line = _line(sample)
            file.write(line)
            series.add(sample)
            size += len(line)
            if stopped or size > LARGEST:
                return series
            elapsed = time.monotonic() - start
            stopped = stop.wait(interval - elapsed % interval)


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"
