"""Whether the kernels can take a tensor, and are asked to. Imports no Triton: the kernels' own files do, after this."""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator

import torch
from torch import Tensor

LARGEST_K = 256
"""What the kernel that selects in a row was made for; for more, what it holds in registers no longer fits them."""

_on = False


@contextlib.contextmanager
def switched(on: bool) -> Iterator[None]:
    """Let kernels take the place of their twins, or not, while it lasts.

    For all threads: on a GPU autograd's backward pass runs in one of its own.
    """
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


def wanted(tensor: Tensor) -> bool:
    """Whether a kernel is to take this tensor."""
    return _on and available(tensor)


def available(tensor: Tensor) -> bool:
    """Whether a tensor is on a GPU, in a precision the kernels know, and Triton is installed."""
    # float64 stays with torch: the kernels add in float32. Nor is Triton's interpreter, which tests use, a fast path.
    return tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16) and _compiles()


@functools.cache
def _compiles() -> bool:
    return importlib.util.find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") != "1"
