"""pprof files: a gzip stream of one `perftools.profiles.Profile` message (github.com/google/pprof, profile.proto).

Decoding is for bytes that a stranger wrote. Memory and time are bounded by `Limits`, every reference is checked, and
the only error is ProfileError. Encoding is deterministic: the same profile gives the same bytes.
"""

import zlib
from collections.abc import Iterator

from toe_async.profiles.limits import Limits, inflate
from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType

__all__ = ["Limits", "decode", "encode"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_U64 = (1 << 64) - 1


def decode(data: bytes, limits: Limits | None = None) -> Profile:
    """Read a profile, gzip or plain. Raises ProfileError for anything else, and for anything over `limits`."""
    limits = limits or Limits()
    try:
        return _Reader(inflate(data, limits), limits).profile()
    except IndexError as error:  # a read past the end: checked once here, not at every byte
        raise ProfileError("the profile ends in the middle of a field") from error


def encode(profile: Profile) -> bytes:
    """Write a profile as every pprof reader takes it: gzip, without a time stamp in the gzip header."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(_Writer().profile(profile)) + packer.flush()


class _Reader:
    """One pass over the message, then one over the samples: strings and locations may come after their users."""

    def __init__(self, raw: bytes, limits: Limits) -> None:
        self._raw = raw
        self._limits = limits
        self._strings: list[str] = []
        self._functions: dict[int, tuple[str, str]] = {}
        self._locations: dict[int, tuple[Frame, ...]] = {}
        self._stacks: dict[tuple[int, ...], tuple[Frame, ...]] = {}
        self._frames = 0
        self._seen = 0

    def profile(self) -> Profile:
        """The whole message."""
        types: list[tuple[int, int]] = []
        spans: dict[int, list[tuple[int, int]]] = {2: [], 4: [], 5: []}
        numbers: dict[int, int] = {}
        period_span: tuple[int, int] | None = None
        caps = {2: self._limits.samples, 4: self._limits.locations, 5: self._limits.functions}
        for field, value, end in self._fields(0, len(self._raw)):
            if field == 1:
                types.append(self._span(field, value, end))
                _cap("sample types", len(types), self._limits.sample_types)
            elif field in spans:
                spans[field].append(self._span(field, value, end))
                _cap(_NAMES[field], len(spans[field]), caps[field])
            elif field == 6:
                start, stop = self._span(field, value, end)
                self._strings.append(self._raw[start:stop].decode("utf-8", "replace"))
                _cap("strings", len(self._strings), self._limits.strings)
            elif field == 11:
                period_span = self._span(field, value, end)
            elif field in {9, 10, 12, 14}:
                numbers[field] = self._number(field, value, end)
        if not self._strings or self._strings[0]:
            raise ProfileError("no string table that begins with the empty string: this is no pprof profile")
        if not types:
            raise ProfileError("the profile names no sample type")
        for span in spans[5]:
            self._function(span)
        for span in spans[4]:
            self._location(span)
        return Profile(
            sample_types=tuple(self._value_type(span) for span in types),
            samples=tuple(self._sample(span, len(types)) for span in spans[2]),
            default_type=self._text(numbers.get(14, 0)),
            period_type=self._value_type(period_span) if period_span else None,
            period=_signed(numbers.get(12, 0)),
            time_nanos=_signed(numbers.get(9, 0)),
            duration_nanos=_signed(numbers.get(10, 0)),
        )

    def _function(self, span: tuple[int, int]) -> None:
        number = name = file = 0
        for field, value, end in self._fields(*span):
            if field == 1:
                number = self._number(field, value, end)
            elif field == 2:
                name = self._number(field, value, end)
            elif field == 4:
                file = self._number(field, value, end)
        if number == 0 or number in self._functions:
            raise ProfileError(f"function id {number} is zero or there twice")
        self._functions[number] = (self._text(name), self._text(file))

    def _location(self, span: tuple[int, int]) -> None:
        number = address = 0
        lines: list[tuple[int, int]] = []
        for field, value, end in self._fields(*span):
            if field == 1:
                number = self._number(field, value, end)
            elif field == 3:
                address = self._number(field, value, end)
            elif field == 4:
                lines.append(self._span(field, value, end))
                _cap("inlined calls at one place", len(lines), self._limits.depth)
        if number == 0 or number in self._locations:
            raise ProfileError(f"location id {number} is zero or there twice")
        self._spend(len(lines))
        self._locations[number] = tuple(self._line(line, address) for line in lines) or (Frame(f"{address:#x}"),)

    def _line(self, span: tuple[int, int], address: int) -> Frame:
        function = line = 0
        for field, value, end in self._fields(*span):
            if field == 1:
                function = self._number(field, value, end)
            elif field == 2:
                line = self._number(field, value, end)
        if function == 0:
            return Frame(f"{address:#x}", line=_signed(line))
        known = self._functions.get(function)
        if known is None:
            raise ProfileError(f"a location names function id {function}, which is not there")
        return Frame(known[0] or f"{address:#x}", known[1], _signed(line))

    def _sample(self, span: tuple[int, int], width: int) -> Sample:
        places: list[int] = []
        values: list[int] = []
        for field, value, end in self._fields(*span):
            if field == 1:
                self._numbers(places, value, end, self._limits.depth)
            elif field == 2:
                self._numbers(values, value, end, width)
        if len(values) != width:
            raise ProfileError(f"a sample has {len(values)} values where the profile names {width} types")
        return Sample(self._stack(tuple(places)), tuple(_signed(value) for value in values))

    def _stack(self, places: tuple[int, ...]) -> tuple[Frame, ...]:
        known = self._stacks.get(places)
        if known is not None:
            return known
        try:
            parts = [self._locations[place] for place in places]
        except KeyError as error:
            raise ProfileError(f"a sample names location id {error.args[0]}, which is not there") from error
        size = sum(map(len, parts))
        _cap("frames in one stack", size, self._limits.depth)
        self._spend(size)
        stack = tuple(frame for part in parts for frame in part)
        self._stacks[places] = stack
        return stack

    def _spend(self, frames: int) -> None:
        self._frames += frames
        _cap("frames", self._frames, self._limits.frames)

    def _value_type(self, span: tuple[int, int]) -> ValueType:
        kind = unit = 0
        for field, value, end in self._fields(*span):
            if field == 1:
                kind = self._number(field, value, end)
            elif field == 2:
                unit = self._number(field, value, end)
        return ValueType(self._text(kind), self._text(unit))

    def _text(self, index: int) -> str:
        if index >= len(self._strings):
            raise ProfileError(f"string {index} is not in the table of {len(self._strings)}")
        return self._strings[index]

    def _numbers(self, into: list[int], value: int, end: int, cap: int) -> None:
        """A repeated number: packed (a span) or one at a time."""
        if end < 0:
            into.append(value)
        elif self._raw[value : min(end, value + cap + 1)].isascii():  # numbers of one byte each, the usual case
            into.extend(self._raw[value : min(end, value + cap + 1)])
            value += cap + 1
        while value < end and len(into) <= cap:
            number, value = self._varint(value)
            if value > end:
                raise ProfileError("a number runs over the end of its field")
            into.append(number)
        _cap("numbers in one sample", len(into), cap)

    @staticmethod
    def _number(field: int, value: int, end: int) -> int:
        if end >= 0:
            raise ProfileError(f"field {field} should be a number")
        return value

    @staticmethod
    def _span(field: int, value: int, end: int) -> tuple[int, int]:
        if end < 0:
            raise ProfileError(f"field {field} should be a message")
        return value, end

    def _fields(self, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(field, number, -1) or (field, start, end) for each field in [at, stop); fixed-width ones are passed over."""
        while at < stop:
            self._seen += 1
            _cap("fields", self._seen, self._limits.fields)
            key, at = self._varint(at)
            field, wire = key >> 3, key & 7
            if field == 0:
                raise ProfileError("field number 0")
            if wire == _VARINT:
                value, at = self._varint(at)
                if at > stop:
                    raise ProfileError("a number runs over the end of its message")
                yield field, value, -1
                continue
            if wire == _BYTES:
                size, start = self._varint(at)
            elif wire in {_FIXED64, _FIXED32}:
                size, start = (8 if wire == _FIXED64 else 4), at
            else:
                raise ProfileError(f"wire type {wire} in field {field}")
            at = start + size
            if at > stop:
                raise ProfileError("a field runs over the end of its message")
            if wire == _BYTES:
                yield field, start, at

    def _varint(self, at: int) -> tuple[int, int]:
        raw = self._raw
        byte = raw[at]
        at += 1
        if byte < 0x80:
            return byte, at
        value, shift = byte & 0x7F, 7
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _U64, at
            shift += 7
            if shift > 63:
                raise ProfileError("a number is longer than 64 bits")


_NAMES = {2: "samples", 4: "locations", 5: "functions"}


def _cap(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise ProfileError(f"more than {limit} {what}")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


class _Writer:
    """Numbers strings, functions and locations in the order in which they are met."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[Frame, int] = {}
        self._tables = bytearray()

    def profile(self, profile: Profile) -> bytes:
        """The message, uncompressed."""
        out = bytearray()
        for kind in profile.sample_types:
            _put_bytes(out, 1, self._value_type(kind))
        width = len(profile.sample_types)
        for sample in profile.samples:
            if len(sample.values) != width:
                raise ProfileError(f"a sample has {len(sample.values)} values where the profile names {width} types")
            body = bytearray()
            _put_bytes(body, 1, _packed(self._location(frame) for frame in sample.stack))
            _put_bytes(body, 2, _packed(sample.values))
            _put_bytes(out, 2, body)
        tail = bytearray()
        _put_number(tail, 9, profile.time_nanos)
        _put_number(tail, 10, profile.duration_nanos)
        if profile.period_type:
            _put_bytes(tail, 11, self._value_type(profile.period_type))
        _put_number(tail, 12, profile.period)
        _put_number(tail, 14, self._text(profile.default_type))
        out += self._tables
        for text in self._strings:
            _put_bytes(out, 6, text.encode("utf-8", "replace"))
        return bytes(out + tail)

    def _value_type(self, kind: ValueType) -> bytearray:
        body = bytearray()
        _put_number(body, 1, self._text(kind.type))
        _put_number(body, 2, self._text(kind.unit))
        return body

    def _text(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _function(self, name: str, file: str) -> int:
        number = self._functions.get((name, file))
        if number is None:
            number = self._functions[name, file] = len(self._functions) + 1
            body = bytearray()
            _put_number(body, 1, number)
            _put_number(body, 2, self._text(name))
            _put_number(body, 3, self._text(name))
            _put_number(body, 4, self._text(file))
            _put_bytes(self._tables, 5, body)
        return number

    def _location(self, frame: Frame) -> int:
        number = self._locations.get(frame)
        if number is None:
            number = self._locations[frame] = len(self._locations) + 1
            line = bytearray()
            _put_number(line, 1, self._function(frame.function, frame.file))
            _put_number(line, 2, frame.line)
            body = bytearray()
            _put_number(body, 1, number)
            _put_bytes(body, 4, line)
            _put_bytes(self._tables, 4, body)
        return number


def _packed(numbers: Iterator[int] | tuple[int, ...]) -> bytearray:
    out = bytearray()
    for number in numbers:
        _put_varint(out, number)
    return out


def _put_number(out: bytearray, field: int, number: int) -> None:
    if number:
        _put_varint(out, field << 3)
        _put_varint(out, number)


def _put_bytes(out: bytearray, field: int, body: bytes | bytearray) -> None:
    _put_varint(out, field << 3 | _BYTES)
    _put_varint(out, len(body))
    out += body


def _put_varint(out: bytearray, number: int) -> None:
    if not -(1 << 63) <= number < 1 << 63:
        raise ProfileError("a value does not fit 64 bits")
    number &= _U64
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
