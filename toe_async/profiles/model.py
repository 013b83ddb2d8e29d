"""The compact form in which every profile is summed, rendered and encoded.

Inlined calls are frames of their own and mappings, labels and line tables are left out: nothing that we show needs
them, and a profile with 10,000 stacks stays a few megabytes.
"""

import msgspec

__all__ = ["Frame", "Profile", "ProfileError", "Sample", "ValueType"]


class ProfileError(ValueError):
    """The bytes are no profile that we accept; the message says what is wrong and where, in at most a line."""


class ValueType(msgspec.Struct, frozen=True, gc=False):
    """What one value of a sample measures, for example cpu in nanoseconds."""

    type: str
    unit: str


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One function on a stack; a place without symbols is named by its address in hex."""

    function: str
    file: str = ""
    line: int = 0


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One stack, leaf first, with one value for each sample type of its profile."""

    stack: tuple[Frame, ...]
    values: tuple[int, ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A whole profile. `default_type` names the sample type that its maker wants shown; empty when it names none."""

    sample_types: tuple[ValueType, ...]
    samples: tuple[Sample, ...]
    default_type: str = ""
    period_type: ValueType | None = None
    period: int = 0
    time_nanos: int = 0
    duration_nanos: int = 0

    def index_of(self, sample_type: str | None = None) -> int:
        """Position of the values called `sample_type`.

        Without a name: what the profile itself asks for, else CPU time, else the live heap, else the last one, which is
        what `go tool pprof` takes. Raises ProfileError for a name that the profile does not have.
        """
        names = [kind.type for kind in self.sample_types]
        if sample_type is not None:
            if sample_type not in names:
                raise ProfileError(f"no sample type {sample_type[:60]!r}; this profile has {', '.join(names)[:200]}")
            return names.index(sample_type)
        for preferred in (self.default_type, "cpu", "inuse_space"):
            if preferred in names:
                return names.index(preferred)
        return len(names) - 1
