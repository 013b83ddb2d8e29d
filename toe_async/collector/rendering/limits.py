"""What one rendering may cost. The defaults suit a collector with 1 GiB: two children at their limit and itself."""

from msgspec import Struct


class RenderLimits(Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds. The child imposes on itself what the kernel can hold it to."""

    input_bytes: int = 64 << 20
    """Each source, as it is stored."""
    output_bytes: int = 32 << 20
    address_space: int = 384 << 20
    """RLIMIT_AS of the child; about 40 MiB of it are the interpreter."""
    cpu_seconds: int = 10
    wall_seconds: float = 15.0
    """From the child's start to the last byte of its answer, reading the sources included."""
    stderr_bytes: int = 4096
    """What is kept for the log of what the child says besides its answer."""
    children: int = 2
    waiting: int = 32
    """Orders that wait for a child; the next one is told to come again."""
    waiting_per_viewer: int = 8
    waiting_seconds: float = 30.0
    cache_bytes: int = 16 << 20
    """Finished answers kept, so that a page that is loaded again costs nothing; 0 keeps none."""
    cache_seconds: float = 300.0
