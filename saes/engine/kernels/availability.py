"""Whether the kernels can take a tensor. Imports no Triton: the kernels' own files do, once this has said yes."""

import functools
import importlib.util
import os

import torch
from torch import Tensor


def available(tensor: Tensor) -> bool:
    """Whether a tensor is on a GPU, in a precision the kernels know, and Triton is installed."""
    # float64 stays with torch: the kernels add in float32. Nor is Triton's interpreter, which tests use, a fast path.
    return tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16) and _compiles()


@functools.cache
def _compiles() -> bool:
    return importlib.util.find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") != "1"
