"""Prefixes, and a training that takes either engine, against what they are written as."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp.types import Activations
from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.engine import optimizing
from saes.engine.choices import feature_top_k, row_top_k
from saes.engine.dense import DenseLatents
from saes.engine.passes import decode_prefixes
from saes.engine.selection import Candidates, Context
from saes.jumprelu import JumpReLU
from saes.penalties.aux_k import AuxK
from saes.penalties.l0 import L0
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.states import TrainState
from saes.stepping import Moment, forward, take
from saes.topk import TopK
from saes.training import Job, TrainConfig

PREFIXES = [4, 10, 24]


class Columns(SAE):
    """Every feature keeps its two largest rows."""

    def __init__(self, *, d_in: int, d_sae: int, seed: int = 0) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed)

    def candidates(self, pre_acts: Tensor, context: Context) -> Candidates:
        return feature_top_k(pre_acts, 2, context)


class Gradients(SAE):
    """Rows keep three latents by the size of what they would do to a loss."""

    by_feature = False

    def __init__(self, *, d_in: int, d_sae: int, seed: int = 0) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed)

    def candidates(self, pre_acts: Tensor, context: Context) -> Candidates:
        return row_top_k(pre_acts, 3, context, (self.W_dec @ context.grads.T).abs() * pre_acts)


KINDS: dict[str, tuple[Callable[[], SAE], tuple]] = {
    "TopK": (lambda: TopK(d_in=6, d_sae=24, k=3), (AuxK(),)),
    "BatchTopK": (lambda: BatchTopK(d_in=6, d_sae=24, k=3), (AuxK(),)),
    "Matryoshka": (lambda: TopK(d_in=6, d_sae=24, k=3, prefixes=PREFIXES), (AuxK(),)),
    "Matryoshka over the batch": (lambda: BatchTopK(d_in=6, d_sae=24, k=3, prefixes=PREFIXES), ()),
    "ReLU": (lambda: ReLU(d_in=6, d_sae=24), (L1(0.1), AuxK())),
    "JumpReLU": (lambda: JumpReLU(d_in=6, d_sae=24), (L0(0.1), L1(0.1), AuxK())),
    "columns": (lambda: Columns(d_in=6, d_sae=24), (AuxK(),)),
    "gradients": (lambda: Gradients(d_in=6, d_sae=24), (AuxK(),)),
}
CONFIG = TrainConfig(tokens=50 * 40, batch_size=40, dead_tokens=80)


def _batches(rows, n: int = 40) -> list[Activations]:
    x = rows(50 * n).double().view(50, n, 6)
    places = torch.arange(n), torch.zeros(n, dtype=torch.long)
    return [Activations(batch, *places, batch.flip(0).sin()) for batch in x]


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_and_dense_train_to_the_same_weights(kind: str, rows) -> None:
    trained, seen = {}, set()
    for path in ("sparse", "dense"):
        make, penalties = KINDS[kind]
        job = Job(make().double(), lr=1e-2, penalties=penalties)
        state, optimizer = TrainState.start(job.sae), optimizing.Adam(job.sae, (0.9, 0.99))
        config = TrainConfig(**{**vars(CONFIG), "path": path})
        start = [p.detach().clone() for p in job.sae.parameters()]
        for step, batch in enumerate(_batches(rows), start=1):
            state.silent[: 4 * (step % 2)] = 1000
            take(job, state, optimizer, batch, Moment(config, step, 1.0), log=False)
            seen.add(len(state.dead) > 0)
        assert all(not torch.equal(now, then) for now, then in zip(job.sae.parameters(), start, strict=True))
        trained[path] = dict(job.sae.named_parameters())
    for name, weights in trained["sparse"].items():
        torch.testing.assert_close(weights, trained["dense"][name], rtol=0, atol=1e-6)
    assert seen == {True, False}


def _slow_prefixes(codes: Tensor, W_dec: Tensor) -> Tensor:
    return torch.stack([codes[:, :m] @ W_dec[:m] for m in PREFIXES])


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_prefixes_decode_as_their_slices(form: str) -> None:
    draw = torch.Generator().manual_seed(0)
    sae, x = TopK(d_in=6, d_sae=24, k=3).double(), torch.randn(9, 6, generator=draw).double()
    latents = sae.train().codes(x)
    codes = latents.dense().detach().requires_grad_()
    W_dec, weights = sae.W_dec, torch.randn(3, 9, 6, generator=draw).double()
    expected = _slow_prefixes(codes, W_dec) + sae.b_dec
    if form == "dense":
        given, values = DenseLatents(codes), codes
    else:
        values = latents.values.detach().requires_grad_()
        given = latents.with_values(values)
    found, rows = decode_prefixes(given, W_dec, sae.b_dec, PREFIXES, torch.tensor([2, 20]))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows, W_dec[[2, 20]])
    ours = torch.autograd.grad((found.sin() * weights).sum() + rows.cos().sum(), (values, W_dec))
    theirs = torch.autograd.grad((expected.sin() * weights).sum() + W_dec[[2, 20]].cos().sum(), (codes, W_dec))
    picked = theirs[0] if form == "dense" else theirs[0][latents.rows, latents.indices]
    torch.testing.assert_close(ours[0], picked, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-11, atol=1e-12)


def test_one_prefix_is_the_method_itself_and_more_are_their_mean(rows) -> None:
    batch = _batches(rows)[0]
    losses = {}
    for name, prefixes in {"none": None, "one": [24], "three": PREFIXES}.items():
        job = Job(TopK(d_in=6, d_sae=24, k=3, prefixes=prefixes).double())
        step = forward(job, TrainState.start(job.sae), batch, Moment(CONFIG, 1, 1.0))
        losses[name] = float(job.signal(step).detach())
        slow = _slow_prefixes(step.latents.dense(), job.sae.W_dec) + job.sae.b_dec
        errors = [(batch.values - recon).square().sum(1).mean().item() for recon in slow]
        assert losses[name] == pytest.approx(sum(errors) / 3 if name == "three" else errors[-1], rel=1e-12)
    assert losses["none"] == pytest.approx(losses["one"], rel=1e-12)


@pytest.mark.parametrize("prefixes", [[], [0, 24], [4, 4, 24], [4, 12], [24, 4]])
@pytest.mark.parametrize("method", [TopK, BatchTopK])
def test_prefixes_that_do_not_ascend_to_all_are_refused(method: type[SAE], prefixes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"prefixes is .*, but prefixes ascend .* give \[3, 6, 12, 24\]"):
        method(d_in=6, d_sae=24, k=2, prefixes=prefixes)


@torch.no_grad()
def test_columns_choose_rows_of_a_feature(rows) -> None:
    sae, x = Columns(d_in=6, d_sae=24), rows(37)
    pre_acts = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    best = pre_acts.topk(2, dim=0).indices
    expected = torch.relu(torch.zeros_like(pre_acts).scatter(0, best, pre_acts.gather(0, best)))
    found = sae.codes(x)
    torch.testing.assert_close(found.dense(), expected)
    order, offsets = found.by_feature.order, found.by_feature.offsets
    assert (found.indices[order].diff() >= 0).all()
    assert offsets.tolist() == list(range(0, 49, 2))
    assert all((found.rows[order[a:b]].diff() > 0).all() for a, b in itertools.pairwise(offsets.tolist()))


@torch.no_grad()
def test_gradient_scores_rank_and_the_codes_stay_pre_activations(rows) -> None:
    sae, x = Gradients(d_in=6, d_sae=24), rows(37)
    pre_acts = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    best = ((x.cos() @ sae.W_dec.T).abs() * pre_acts).topk(3, dim=1).indices
    expected = torch.relu(torch.zeros_like(pre_acts).scatter(1, best, pre_acts.gather(1, best)))
    torch.testing.assert_close(sae.codes(x, x.cos()).dense(), expected)
