"""What binary artifacts are that only look like a damaged profile, so that a refusal can say where to go. Pure."""

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\xd4\xc3\xb2\xa1", "a packet capture, which tcpdump -r and Wireshark read"),
    (b"\xa1\xb2\xc3\xd4", "a packet capture, which tcpdump -r and Wireshark read"),
    (b"\x4d\x3c\xb2\xa1", "a packet capture, which tcpdump -r and Wireshark read"),
    (b"\xa1\xb2\x3c\x4d", "a packet capture, which tcpdump -r and Wireshark read"),
    (b"\x0a\x0d\x0d\x0a", "a packet capture, which Wireshark reads"),
    (b"\x7fELF", "a core dump or a program, which a debugger reads"),
)
WHAT_CAN = "what can be shown are pprof profiles and folded stacks of bounded size; the bytes can be had as they are"


def describe(raw: bytes) -> str | None:
    """What it is instead of a profile, or None when the first bytes do not tell."""
    return next((said for beginning, said in _BEGINNINGS if raw.startswith(beginning)), None)
