"""Memory that a run keeps until it ends."""

import contextlib
import ctypes
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # Of glibc's malloc.h.
_KEPT = 1 << 30
# Once told anything, glibc no longer adapts. This is where it arrives by itself when large tensors come and go.
_AFTERWARDS = {_M_MMAP_THRESHOLD: 1 << 25, _M_TRIM_THRESHOLD: 1 << 26, _M_MMAP_MAX: 65536}


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Let the allocator keep what a step frees for the next step, and give it back at the end.

    By default glibc returns every large tensor to the system when it is freed, and each page of the next one has to be
    found and zeroed anew: a tenth of a step. Under other C libraries nothing is done.
    """
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.malloc_trim(0)  # What making the model left over.
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
    libc.mallopt(_M_MMAP_MAX, 0)
    try:
        yield
    finally:
        for option, value in _AFTERWARDS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
