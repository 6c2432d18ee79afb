"""The C library's allocator: what is freed goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def return_freed(size: int = 8 << 20) -> None:
    """From now on memory of this process goes back to the system when it is freed, if it was taken `size` bytes or more at a time.

    glibc raises that limit to 32 MB by itself, and beneath it keeps what is freed, in which larger pieces find no room: tensors of
    24 MB that are gone weigh as much as those that are there. Nothing happens where the C library has no `mallopt`.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, size)  # M_MMAP_THRESHOLD
        mallopt(-1, 2 * size)  # M_TRIM_THRESHOLD: setting one ends the other's growth, too
