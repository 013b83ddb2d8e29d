"""How far downloads are: one line for all of them."""

from msgspec import Struct

from toe_async.cli.plugin import text

_BAR = 24
_SMOOTHING_SECONDS = 3.0


class State(Struct, frozen=True, kw_only=True):
    """Sums over all files of a command. `rate` is in bytes per second; `name` is the file that moved last."""

    files: int
    files_done: int
    bytes: int
    bytes_done: int
    rate: float
    name: str


def line(state: State) -> str:
    """The line to draw: bar, bytes, rate, time left and the name."""
    share = state.bytes_done / state.bytes if state.bytes else 1.0
    full = min(_BAR, int(share * _BAR))
    bar = "#" * full + "." * (_BAR - full)
    left = (state.bytes - state.bytes_done) / state.rate if state.rate > 0 else None
    eta = "--:--" if left is None or left >= 360_000 else clock(left)
    amount = f"{text.size(state.bytes_done)}/{text.size(state.bytes)} {text.size(int(state.rate))}/s"
    return f"[{bar}] {int(share * 100):3d}% {state.files_done}/{state.files} {amount} ETA {eta} {state.name}"


def clock(seconds: float) -> str:
    """`0:05`, `12:34`, `1:02:03`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Meter:
    """Counts bytes of a command's files. `now` is on any clock that only advances."""

    def __init__(self, files: int, size: int, now: float) -> None:
        self._files, self._size = files, size
        self._done = self._files_done = 0
        self._rate, self._measured_at, self._since = 0.0, now, 0
        self._name = ""

    def found(self, count: int) -> None:
        """Count bytes that were there already; they say nothing of the rate."""
        self._done += count

    def moved(self, name: str, count: int, now: float) -> State:
        """Count bytes that came."""
        self._done, self._since, self._name = self._done + count, self._since + count, name
        passed = now - self._measured_at
        if passed >= 0.2:
            weight = min(1.0, passed / _SMOOTHING_SECONDS)
            current = self._since / passed
            self._rate = current if self._rate == 0 else self._rate * (1 - weight) + current * weight
            self._measured_at, self._since = now, 0
        return self.state()

    def lost(self, count: int) -> None:
        """Take back bytes that have to come again."""
        self._done -= count

    def finished(self) -> State:
        """Count a file."""
        self._files_done += 1
        return self.state()

    def state(self) -> State:
        """The sums now."""
        return State(
            files=self._files, files_done=self._files_done, bytes=self._size, bytes_done=self._done,
            rate=self._rate, name=self._name,
        )  # fmt: skip
