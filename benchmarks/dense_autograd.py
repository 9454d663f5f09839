"""A training step as one writes it from the papers: all pre-activations, all codes, autograd, torch's Adam.

What the engine is compared with, both in what comes out and in how long it takes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from interp.types import Activations
from saes.base import SAE
from saes.engine.dense import DenseLatents
from saes.penalties.base import Step
from saes.records import default_lr
from saes.training import Job

Choice = Callable[[SAE, Tensor, Tensor], Tensor]
"""The mask of what is kept, of an SAE's pre-activations and the gradients at its rows."""


def rows(sae: SAE, scores: Tensor, _: Tensor) -> Tensor:
    """As many of each row."""
    return torch.zeros_like(scores).scatter(1, scores.topk(sae.k, dim=1).indices, 1.0)


def sizes(sae: SAE, scores: Tensor, grads: Tensor) -> Tensor:
    """As many of each row, by size."""
    return rows(sae, scores.abs(), grads)


def groups(sae: SAE, scores: Tensor, _: Tensor) -> Tensor:
    """The largest of each of `k` groups of a row."""
    grouped = scores.view(len(scores), sae.k, -1)
    best = grouped.argmax(dim=2, keepdim=True)
    return torch.zeros_like(grouped).scatter(2, best, 1.0).view_as(scores)


def batch(sae: SAE, scores: Tensor, _: Tensor) -> Tensor:
    """The largest of all rows together."""
    best = scores.flatten().topk(sae.k * len(scores)).indices
    return torch.zeros_like(scores).flatten().scatter(0, best, 1.0).view_as(scores)


def columns(sae: SAE, scores: Tensor, _: Tensor) -> Tensor:
    """As many of each feature as its budget."""
    budgets = sae.budgets(len(scores))
    best = scores.topk(int(budgets.max()), dim=0).indices
    within = (torch.arange(len(best))[:, None] < budgets).to(scores.dtype)
    return torch.zeros_like(scores).scatter(0, best, within)


def by_gradient(sae: SAE, scores: Tensor, grads: Tensor) -> Tensor:
    """As many of each row, large and felt by a loss."""
    gate = (grads @ sae.W_dec.T).abs()
    return rows(sae, scores * (1 + sae.beta * gate / grads.norm(dim=1, keepdim=True)), grads)


def mass(sae: SAE, scores: Tensor, _: Tensor) -> Tensor:
    """The largest of each row until they are a share of its positive sum."""
    values, order = scores.topk(sae.k_max, dim=1)
    before = values.cumsum(dim=1) - values
    needed = (before < sae.mass * scores.relu().sum(dim=1, keepdim=True)) & (values > 0)
    return torch.zeros_like(scores).scatter(1, order, needed.to(scores.dtype))


def everything(_: SAE, scores: Tensor, __: Tensor) -> Tensor:
    """Whatever the activation leaves."""
    return torch.ones(1, 1, dtype=scores.dtype)


def forward(job: Job, given: Activations, dead: Tensor, choice: Choice) -> Step:
    """The forward pass that the losses of a job see."""
    sae = job.sae
    pre_acts = (given.values - sae.b_dec) @ sae.W_enc + sae.b_enc
    mask = choice(sae, pre_acts.detach(), given.values if given.grads is None else given.grads)
    codes, extras = sae.activate(pre_acts, DenseLatents(pre_acts.detach()))
    codes = codes * mask
    prefixes = None
    if sae.prefixes is not None:
        prefixes = torch.stack([codes[:, :m] @ sae.W_dec[:m] + sae.b_dec for m in sae.prefixes])
    recon = codes @ sae.W_dec + sae.b_dec if prefixes is None else prefixes[-1]
    density = torch.zeros(sae.d_sae, dtype=codes.dtype)
    return Step(sae, given, DenseLatents(codes), recon, dead, density, 1.0, 1.0, prefixes, extras)


def loss(job: Job, step: Step) -> Tensor:
    """All terms together."""
    return torch.stack([job.signal(step), *(penalty(step) for penalty in job.penalties or ())]).sum()


def training(job: Job, choice: Choice) -> Callable[[Activations, Tensor], None]:
    """A step: loss, backward, projection, clipping, Adam, decoder rows of norm 1."""
    sae = job.sae
    optimizer = torch.optim.Adam(sae.parameters(), lr=default_lr(job.sae.d_sae, 1000) if job.lr is None else job.lr)

    def step(given: Activations, dead: Tensor) -> None:
        optimizer.zero_grad()
        loss(job, forward(job, given, dead, choice)).backward()
        with torch.no_grad():
            grad = sae.W_dec.grad
            assert grad is not None
            grad -= (grad * sae.W_dec).sum(1, keepdim=True) * sae.W_dec
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            optimizer.step()
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)

    return step
