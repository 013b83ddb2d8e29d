"""Kubernetes quantities: ``100m``, ``199633923n``, ``128Mi``, ``1e3``, ``1.5G``.

The grammar is that of apimachinery's resource.Quantity: a signed decimal number and one suffix, decimal SI, binary
SI or a decimal exponent.
"""

import re
from decimal import Decimal

_FACTORS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([eE][+-]?[0-9]{1,3})|(n|u|m|k|[KMGTPE]i|[MGTPE])?)")
_LONGEST_TEXT = 64


def parse_quantity(text: str) -> Decimal:
    """Read a quantity in its base unit (cores, bytes), exactly.

    Raises:
        ValueError: not a quantity.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise ValueError(f"{text[:_LONGEST_TEXT]!r} is no quantity; write it like 500m, 2, 128Mi or 1Gi")
    number, exponent, suffix = match.groups()
    return Decimal(number + exponent) if exponent else Decimal(number) * _FACTORS[suffix or ""]


def format_bytes(count: int) -> str:
    """Write a size for people, in binary units with one digit: ``12.3 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
