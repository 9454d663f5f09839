"""SAELens' mixing buffer over a model that costs nothing, told by `turns.served`. pip install sae-lens==6.54.12."""

import itertools

import torch
from turns import arguments, served

asked = arguments(rows=2**20, block=4096)

from sae_lens.training.mixing_buffer import mixing_buffer  # noqa: E402  # The answers' stream must be set aside first.

block = torch.randn(asked.block, asked.d_in)
served(mixing_buffer(asked.rows, asked.batch, itertools.repeat(block)), "sae-lens", asked)
