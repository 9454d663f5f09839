"""Training steps with the kernels (interpreted) in place of their twins."""

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from saes.batch_topk import BatchTopK
from saes.engine import optimizing, products, selection
from saes.engine.choices import feature_top_k
from saes.engine.kernels import availability
from saes.engine.selection import Context
from saes.engine.stacking import Stack
from saes.jumprelu import JumpReLU
from saes.penalties.aux_k import AuxK
from saes.penalties.l0 import L0
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

ROWS = 5  # The interpreter takes a quarter of a second to select in a row.
CONFIG = {"tokens": 3 * ROWS, "batch_size": ROWS, "dead_tokens": 10, "normalise": "none", "path": "sparse"}
SIZES = {"d_in": 6, "d_sae": 16}
KINDS: dict[str, tuple[str, Callable[[], list[Job]]]] = {
    "TopK": ("float32", lambda: [Job(TopK(**SIZES, k=3), penalties=(AuxK(k_aux=2),))]),
    "BatchTopK": ("bfloat16", lambda: [Job(BatchTopK(**SIZES, k=3), penalties=(AuxK(),))]),
    "JumpReLU": ("float32", lambda: [Job(JumpReLU(**SIZES), penalties=(L0(0.1),))]),
    "prefixes": ("float32", lambda: [Job(BatchTopK(**SIZES, k=3, prefixes=[4, 16]), penalties=())]),
    "stack of rows": ("bfloat16", lambda: [Job(TopK(**SIZES, k=2, seed=s), name=f"{s}") for s in range(2)]),
    "stack of features": (
        "bfloat16",
        lambda: [Job(BatchTopK(**SIZES, k=2)), Job(JumpReLU(**SIZES, seed=1), penalties=(L0(0.1),))],
    ),
}
TAKEN = [
    *("sums.weighted_sums", "products.inner_products", "gradients.weight_gradients", "selection.top_rows"),
    "adam.adam_step",
]
SELECTS, APART = ("TopK", "stack of rows"), ("prefixes",)


@pytest.fixture
def called(kernels: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel was called, and that it may be, without a GPU."""
    found: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        return lambda *args, **named: (found.update([name]), real(*args, **named))[1]

    for name in TAKEN:
        file, function = name.split(".")
        module = getattr(kernels, file)
        monkeypatch.setattr(module, function, counting(name, getattr(module, function)))
    monkeypatch.setattr(availability, "available", lambda tensor: tensor.dtype == torch.float32)
    return found


def _trained(kind: str, store, *, kernels: bool) -> list[dict[str, Tensor]]:
    """Everything that moves, after three steps of which the second is skipped; three features are dead."""
    precision, jobs = KINDS[kind]
    config = TrainConfig(**CONFIG, precision=precision, stack="stack" in kind, kernels=kernels)
    trainer = Trainer(jobs(), config, store, progress=False)
    for step, batch in zip(range(3), store.batches(ROWS, seed=0), strict=False):
        for state in trainer.states:
            state.silent[:3] = 100
        if step == 1:
            batch.values[0, 0] = torch.nan
        trainer.step(batch, log=False)
    assert all(int(state.skipped) == 1 for state in trainer.states)
    found = []
    for job, state, optimizer in zip(trainer.jobs, trainer.states, trainer.optimizers, strict=True):
        moments = {f"{i} {n}": v for i, s in enumerate(optimizer.state.values()) for n, v in s.items()}
        found.append(job.sae.state_dict() | moments | {"silent": state.silent})
    return found


@pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "stack of rows" else ()) for kind in KINDS]
)
def test_steps_with_kernels_are_those_without(kind: str, store, called: Counter[str]) -> None:
    plain = _trained(kind, store, kernels=False)
    assert not called
    found = _trained(kind, store, kernels=True)
    left_out = {"selection.top_rows"} if kind not in SELECTS else set()
    left_out |= {"gradients.weight_gradients"} if kind in APART else set()
    assert set(called) == set(TAKEN) - left_out
    for one, other in zip(plain, found, strict=True):
        for name, value in one.items():
            # Adam moves by 2e-2 however small a gradient is, and a small one by its last bits' difference more or less.
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_rows_first_in_memory_are_selected_where_they_lie(rows, kernels, called, monkeypatch) -> None:
    """As a GPU has them: also where they are some columns of a stack's."""
    stack, x = Stack([TopK(**SIZES, k=3, seed=s) for s in range(2)]), rows(ROWS)
    expected = stack.encode(x, None, [None] * 2)
    for module in (products, selection):
        monkeypatch.setattr(module, "by_row", lambda device, by_feature: not by_feature)
    given, real = [], kernels.selection.top_rows
    monkeypatch.setattr(kernels.selection, "top_rows", lambda s, k: (given.append(s.stride()), real(s, k))[1])
    with availability.switched(True):
        found = stack.encode(x, None, [None] * 2)
    assert given == [(32, 1)] * 2
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other.latents.dense(), one.latents.dense())


def test_the_largest_of_features_and_of_many(called) -> None:
    scores = torch.randn(2, 600, generator=torch.Generator().manual_seed(0))
    for k, times in ((5, 1), (availability.LARGEST_K + 1, 0)):
        called.clear()
        with availability.switched(True):
            found = feature_top_k(scores, k, Context(training=True, n=600))
        assert called["selection.top_rows"] == times
        assert torch.equal(found.rows.view(2, k), scores.topk(k, dim=1).indices.sort(dim=1).values)


def test_adam_goes_over_to_the_kernel_and_back(called) -> None:
    """Counters and averages are the same ones."""
    saes = [TopK(**SIZES, k=3) for _ in range(2)]
    optimizers = [optimizing.Adam(sae, (0.9, 0.99)) for sae in saes]
    for step in range(4):
        for which, (sae, optimizer) in enumerate(zip(saes, optimizers, strict=True)):
            draw = torch.Generator().manual_seed(step)
            for parameter in sae.parameters():
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=draw))
            with availability.switched(which == 1 and step in (1, 2)):
                optimizing.update(
                    sae.W_dec,
                    optimizer,
                    lr=0.1,
                    clip=1.0 if step < 2 else None,
                    norm=optimizing.gradient_norm(sae),
                    good=torch.tensor(step != 2),
                )
    assert called == {"adam.adam_step": 4}
    for one, other in zip(*(sae.parameters() for sae in saes), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    assert {float(state["step"]) for optimizer in optimizers for state in optimizer.state.values()} == {3.0}
