import ctypes
import resource
from pathlib import Path

import pytest
import torch

from saes.engine.memory import kept_memory

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told to keep memory"
)
MEGABYTES = 8
PAGES = MEGABYTES * 2**20 // resource.getpagesize()
TENSORS = 20
# Each tensor mapped anew would be all of them; the holes of an old heap are filled once, a few tensors in all.
FEW = TENSORS * PAGES // 4


def _faults(tensors: int) -> int:
    """Pages that had to be found for large tensors that come and go."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.zeros(MEGABYTES * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_freed_memory_is_found_again_in_a_run_and_after_it() -> None:
    with kept_memory():
        _faults(1)
        assert _faults(TENSORS) < FEW
    _faults(1)
    assert _faults(TENSORS) < FEW, "a run leaves the allocator slower than it found it"


def test_memory_is_given_back_at_the_end_of_a_run_that_fails_too() -> None:
    def run() -> int:
        with kept_memory():
            for _ in [torch.zeros(2**20, dtype=torch.uint8) for _ in range(200)]:
                pass
            held.append(_resident())
            raise KeyboardInterrupt

    held: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run()
    assert _resident() < held[0] - 150 * 2**20
