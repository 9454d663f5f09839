"""dictionary_learning's ActivationBuffer over a model that costs nothing, told by `turns.served`.

pip install dictionary-learning==0.1.0; see `dictionary_learning_step` about torchvision.
"""

import contextlib
import itertools
from typing import Any

import torch
from turns import arguments, served

asked = arguments(rows=2**20, block=2**16)

from dictionary_learning.buffer import ActivationBuffer  # noqa: E402  # The answers' stream must be set aside first.

CONTEXT = 128


class Saved:
    """What nnsight gives for something that was saved."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def save(self) -> "Saved":
        return self

    def stop(self) -> None:
        pass


class Model:
    """A model whose one layer gives the same block each time."""

    dtype = torch.float32
    output = Saved(torch.randn(asked.block // CONTEXT, CONTEXT, asked.d_in))
    inputs = Saved(((), {"attention_mask": torch.ones(asked.block // CONTEXT, CONTEXT, dtype=torch.long)}))

    def trace(self, *_: object, **__: object) -> contextlib.nullcontext:
        return contextlib.nullcontext()


model = Model()
buffer = ActivationBuffer(
    itertools.repeat("text"),
    model,
    model,
    d_submodule=asked.d_in,
    n_ctxs=asked.rows // CONTEXT,
    ctx_len=CONTEXT,
    refresh_batch_size=asked.block // CONTEXT,
    out_batch_size=asked.batch,
)
served(buffer, "dictionary-learning", asked)
