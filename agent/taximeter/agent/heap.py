"""One heap for all threads: memory that each of several heaps had at its own peak would be that of the agent for ever.

Owns a setting of the C library, and needs none: where it does not know it, memory is as it is.
"""

import ctypes

#: M_ARENA_MAX of glibc's mallopt.
_ARENA_MAX = -8


def share() -> None:
    """Have threads that begin from now on allocate where this one does."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library has one heap, or no such option
    if set_option is not None:
        set_option(_ARENA_MAX, 1)
