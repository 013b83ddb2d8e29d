"""What only prctl(2) can ask of Linux. Without ctypes or the right, the answer is False and nothing is changed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

_prctl: Callable[..., int] | None = None
try:
    import ctypes

    _prctl = ctypes.CDLL(None, use_errno=True).prctl
except (ImportError, OSError, AttributeError):  # a python3 that was built without ctypes
    pass

_PDEATHSIG, _DUMPABLE, _SUBREAPER = 1, 4, 36


def become_subreaper() -> bool:
    """Orphans among our descendants become our children."""
    return _call(_SUBREAPER, 1)


def hide_memory() -> bool:
    """Nobody of our own user may read our memory or attach to us; no core is written."""
    return _call(_DUMPABLE, 0)


def die_with_parent() -> bool:
    """The calling process is killed when the thread that started it ends."""
    return _call(_PDEATHSIG, signal.SIGKILL)


def offer_to_the_oom_killer() -> None:
    """When memory is short, we and all that we start are killed before anybody else. Raising a score needs no right."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _call(option: int, value: int) -> bool:
    return _prctl is not None and _prctl(option, value, 0, 0, 0) == 0
