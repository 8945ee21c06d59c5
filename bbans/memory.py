"""Asks glibc to keep large buffers instead of returning them to the kernel at every free.

Networks and codecs allocate the same tens of megabytes again and again; page faults on fresh pages cost up to a third
of the time. Does nothing where there is no glibc. For programs, not for libraries: nothing calls it on import.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_large_buffers() -> bool:
    """Whether the allocator took the settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_M_MMAP_THRESHOLD, 2**31 - 1), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    taken = [mallopt(name, value) for name, value in settings]
    return all(taken)
