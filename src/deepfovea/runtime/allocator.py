"""Reuse of freed memory by long computations on the CPU."""

from __future__ import annotations

import ctypes
import platform

# Numbers of the parameters of mallopt in glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4

TOP_PAD = 64 * 2**20
"""Bytes by which the heap grows at least: a few full frames. Our choice."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and use it again.

    By default glibc returns every block of more than 32 MiB to the system as soon as it is freed.
    The next tensor of this size is then made of new pages, each of which the system has to zero.
    In exchange, the process keeps its memory until it ends.

    Source: mallopt(3) of the Linux man-pages.

    Returns:
        Whether it was possible: False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    never = ctypes.c_int(-1)  # of M_TRIM_THRESHOLD: the heap is not made smaller
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, never), (M_TOP_PAD, TOP_PAD))
    return all(mallopt(parameter, value) for parameter, value in settings)
