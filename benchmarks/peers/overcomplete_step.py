"""overcomplete's training step, told by `turns`: its `train_sae`, silent. pip install overcomplete==0.3.0.

It has no dead latents: with `--dead` its auxiliary loss is at work, which takes half of all latents each step. Only
`overcomplete.sae` is imported: the package itself asks for a torchvision and a matplotlib that fit no more.
"""

import functools
import importlib.util
import sys
import types

from turns import LR, Turns, arguments

asked = arguments("topk", "batchtopk", "l1", d_sae=8192, k=32)

spec = importlib.util.find_spec("overcomplete")
sys.modules["overcomplete"] = types.ModuleType("overcomplete")
sys.modules["overcomplete"].__path__ = list(spec.submodule_search_locations)

import torch  # noqa: E402
from overcomplete.sae import SAE, BatchTopKSAE, TopKSAE, train_sae  # noqa: E402
from overcomplete.sae.losses import mse_l1, top_k_auxiliary_loss  # noqa: E402
from torch import Tensor  # noqa: E402


def mse(x: Tensor, x_hat: Tensor, *_: Tensor) -> Tensor:
    return (x - x_hat).square().mean()


METHODS = {
    "topk": lambda *shape: TopKSAE(*shape, top_k=asked.k),
    "batchtopk": lambda *shape: BatchTopKSAE(*shape, top_k=asked.k * asked.batch),
    "l1": lambda *shape: SAE(*shape),
}
turns = Turns("overcomplete", asked)
sae = METHODS[asked.method](asked.d_in, asked.d_sae)
criterion = functools.partial(mse_l1, penalty=1e-3) if asked.method == "l1" else mse
if asked.dead:
    criterion = top_k_auxiliary_loss
optimizer = torch.optim.Adam(sae.parameters(), lr=LR)


def loss(rows: Tensor) -> Tensor:
    pre, codes, recon = sae(rows)
    return criterion(rows, recon, pre, codes, sae.get_dictionary())


train_sae(sae, turns(sae, loss, lambda: None), criterion, optimizer, nb_epochs=1, monitoring=0)
