"""Health as named checks that say why.

A check is a function that returns None while all is well, else one sentence. Liveness says "restart me"; readiness says
"do not count on me". An API server that is away must never fail liveness: a restart would not bring it back.
"""

from collections.abc import Callable

Check = Callable[[], str | None]


class Health:
    """The named checks of one process."""

    def __init__(self) -> None:
        self._ready: dict[str, Check] = {}
        self._live: dict[str, Check] = {}

    def add(self, name: str, check: Check, *, live: bool = False) -> None:
        """Register a check for readiness, or for liveness with ``live``."""
        (self._live if live else self._ready)[name] = check

    def livez(self) -> tuple[bool, str]:
        """Return whether the process lives, and a line per check."""
        return _run(self._live)

    def readyz(self, only: str = "") -> tuple[bool, str]:
        """Return whether the process is ready, and a line per check; ``only`` names one check.

        Raises:
            KeyError: there is no check of that name.
        """
        return _run({only: self._ready[only]} if only else self._ready)


def _run(checks: dict[str, Check]) -> tuple[bool, str]:
    lines, healthy = [], True
    for name, check in checks.items():
        problem = check()
        healthy = healthy and problem is None
        lines.append(f"[+]{name} ok" if problem is None else f"[-]{name} failed: {problem}")
    return healthy, "\n".join([*lines, "ok" if healthy else "not ready", ""])
