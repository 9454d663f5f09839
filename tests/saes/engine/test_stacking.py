"""Stacked SAEs against the same SAEs one by one."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from interp.types import Activations, Latents
from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.engine import optimizing, products
from saes.engine.choices import row_top_k
from saes.engine.selection import Candidates, Context
from saes.engine.stacking import Stack, stacked
from saes.grouping import groups
from saes.jumprelu import JumpReLU
from saes.penalties.aux_k import AuxK
from saes.penalties.base import Step
from saes.penalties.l0 import L0
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.states import TrainState
from saes.stepping import Moment, take, take_stacked
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

CONFIG = TrainConfig(tokens=30 * 40, batch_size=40, dead_tokens=1, path="sparse")  # By itself it would go dense.


class Hesitant(SAE):
    """Rows keep two latents, found only when asked for the second time."""

    by_feature = False

    def __init__(self, *, d_in: int, d_sae: int, seed: int = 0) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed)

    def candidates(self, pre_acts: Tensor, context: Context) -> Candidates:
        return row_top_k(pre_acts, 1 + context.attempt, context)

    def choose(self, candidates: Candidates, context: Context) -> Candidates | None:
        return candidates if context.attempt else None


class DecoderSize:
    """A term that reaches for a parameter, past the forward pass."""

    def __call__(self, step: Step) -> Tensor:
        return 1e-2 * (step.sae.W_dec.abs().sum() + step.sae.b_enc.square().sum())


STACKS: dict[str, Callable[[], list[Job]]] = {
    "rows, of one k": lambda: [Job(TopK(d_in=6, d_sae=16, k=3, seed=s), name=f"{s}") for s in range(3)],
    "rows, all different": lambda: [
        Job(TopK(d_in=6, d_sae=24, k=3), name="a", lr=1e-2),
        Job(TopK(d_in=6, d_sae=16, k=2, seed=1), name="b", lr=1e-3, penalties=()),
        Job(Hesitant(d_in=6, d_sae=12, seed=2), name="c", penalties=(AuxK(k_aux=2), DecoderSize())),
    ],
    "features": lambda: [
        Job(BatchTopK(d_in=6, d_sae=24, k=3), name="a"),
        Job(ReLU(d_in=6, d_sae=16, seed=1), name="b", penalties=(L1(0.1), AuxK())),
        Job(JumpReLU(d_in=6, d_sae=12, seed=2), name="c", lr=3e-3, penalties=(L0(0.1),)),
    ],
}


def _at_rate(jobs: list[Job], lr: float) -> list[Job]:
    return [dataclasses.replace(job, lr=lr) for job in jobs]


def _batches(rows, dtype: torch.dtype) -> list[Activations]:
    x = rows(CONFIG.tokens).to(dtype).view(CONFIG.steps, CONFIG.batch_size, 6)
    places = torch.arange(CONFIG.batch_size), torch.zeros(CONFIG.batch_size, dtype=torch.long)
    return [Activations(batch, *places) for batch in x]


def _trained(
    jobs: list[Job], batches: list[Activations], *, together: bool, config: TrainConfig = CONFIG
) -> list[dict[str, Tensor]]:
    dtype = batches[0].values.dtype
    each = [(job, TrainState.start(job.sae.to(dtype)), optimizing.Adam(job.sae, config.betas)) for job in jobs]
    stack = Stack([job.sae for job in jobs]) if together else None
    dead = 0
    for t, batch in enumerate(batches, start=1):
        if stack is not None:
            take_stacked(stack, each, batch, Moment(config, t, 1.0), log=False)
        else:
            for one in each:
                take(*one, batch, Moment(config, t, 1.0), log=False)
        dead += sum(len(state.dead) for _, state, _ in each)
    assert dead > 0 or len(batches) < CONFIG.steps, "AuxK had nothing to do"
    return [job.sae.state_dict() | {"silent": state.silent, "density": state.density} for job, state, _ in each]


@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", STACKS)
def test_stacked_equals_one_by_one(kind: str, dtype: torch.dtype, close: float, rows) -> None:
    batches = _batches(rows, dtype)
    start = [job.sae.state_dict() for job in STACKS[kind]()]
    alone = _trained(STACKS[kind](), batches, together=False)
    together = _trained(STACKS[kind](), batches, together=True)
    for before, one, other in zip(start, alone, together, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=close, atol=close, msg=lambda m, n=name: f"{n}: {m}")
        assert (other["W_enc"] - before["W_enc"]).abs().amin() > 0, "some of the encoder never learned"


@pytest.mark.parametrize("kind", STACKS)
def test_stacked_equals_one_by_one_in_bfloat16(kind: str, rows, monkeypatch) -> None:
    """The first steps, short ones: later ones round what is left of each batch less a `b_dec` of its own, or of all."""
    rounded, real = [], products._low_inputs
    monkeypatch.setattr(products, "_low_inputs", lambda x, W, b: (rounded.append(len(W)), real(x, W, b))[1])
    batches, config = _batches(rows, torch.float32)[:2], TrainConfig(**vars(CONFIG) | {"precision": "bfloat16"})
    alone = _trained(_at_rate(STACKS[kind](), 1e-3), batches, together=False, config=config)
    widths = rounded.copy()
    rounded.clear()
    together = _trained(_at_rate(STACKS[kind](), 1e-3), batches, together=True, config=config)
    assert rounded[0] == (widths[0] if kind == "features" else sum(widths[: len(widths) // 2]))
    for one, other in zip(alone, together, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_jobs_of_one_run_are_stacked_where_asked(store) -> None:
    def jobs() -> list[Job]:
        return [
            Job(BatchTopK(d_in=6, d_sae=24, k=3), name="first"),
            *STACKS["rows, all different"](),
            Job(TopK(d_in=6, d_sae=16, k=2, prefixes=[4, 16]), name="prefixes"),
            Job(ReLU(d_in=6, d_sae=24, seed=5), name="last"),
        ]

    config = TrainConfig(tokens=20 * 64, batch_size=64, dead_tokens=128, path="sparse")
    apart = Trainer(jobs(), config, store, progress=False)
    assert apart.groups == [(None, [0, 1, 2, 3, 4, 5])], "a CPU is faster one by one"
    joint = Trainer(jobs(), TrainConfig(**vars(config) | {"stack": True}), store, progress=False)
    assert [members for _, members in joint.groups] == [[0, 5], [1, 2, 3], [4]]
    for one, other in zip(apart.run(), joint.run(), strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    on_gpu = groups(jobs(), config, torch.device("cuda"))
    assert [members for _, members in on_gpu] == [[0, 5], [1, 2, 3], [4]]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stacked_run_resumes_to_the_bit(precision: str, store, tmp_path) -> None:
    about = {"dead_tokens": 128, "stack": True, "checkpoint_every": 8, "precision": precision, "path": "sparse"}
    config = TrainConfig(tokens=20 * 64, batch_size=64, **about)
    whole = Trainer(STACKS["rows, all different"](), config, store, progress=False).run()
    stopped = Trainer(STACKS["rows, all different"](), config, store, run=tmp_path / "run", progress=False)
    for batch, _ in zip(store.batches(64, seed=config.seed), range(11), strict=False):
        stopped.step(batch)
        if stopped.steps == 8:
            assert stopped.run_folder is not None
            stopped.run_folder.checkpoint(stopped)
    assert stopped.run_folder is not None
    stopped.run_folder.close()
    resumed = Trainer(STACKS["rows, all different"](), config, store, run=tmp_path / "run", resume=True, progress=False)
    assert resumed.steps == 8
    for one, other in zip(whole, resumed.run(), strict=True):
        assert all(torch.equal(other.state_dict()[name], value) for name, value in one.state_dict().items())


def test_a_step_without_a_finite_loss_is_lost_for_that_job_alone(rows) -> None:
    def infinite(step: Step) -> Tensor:
        return step.recon.square().sum() * math.inf

    def jobs(signal: object) -> list[Job]:
        made = STACKS["rows, of one k"]()
        return [made[0], Job(made[1].sae, name="1", **({} if signal is None else {"signal": signal})), made[2]]

    batch = _batches(rows, torch.float64)[:1]
    good, bad = (
        [(j, TrainState.start(j.sae.double()), optimizing.Adam(j.sae, CONFIG.betas)) for j in jobs(signal)]
        for signal in (None, infinite)
    )
    for each in (good, bad):
        take_stacked(Stack([job.sae for job, _, _ in each]), each, batch[0], Moment(CONFIG, 1, 1.0), log=False)
    for i, ((one, _, _), (other, state, _)) in enumerate(zip(good, bad, strict=True)):
        assert int(state.skipped) == (i == 1)
        same = [torch.equal(a, b) for a, b in zip(one.sae.parameters(), other.sae.parameters(), strict=True)]
        assert all(same) == (i != 1)


def test_a_stack_makes_one_product_with_the_batch(rows) -> None:
    stack = Stack([job.sae for job in STACKS["rows, all different"]()][:2])
    x = rows(40)
    with FlopCounterMode(display=False) as counter:
        stack.encode(x, None, [None, None])
    assert counter.get_flop_counts()["Global"][torch.ops.aten.addmm] == 2 * 40 * 6 * (24 + 16)


def test_no_rows_and_rows_of_different_length_stack() -> None:
    ragged = Latents.from_dense(torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]))
    even = Latents(torch.tensor([3.0, 4.0]), torch.tensor([1, 0]), None, 2, k=1)
    joint = stacked([ragged, even])
    expected = torch.zeros(4, 5)
    expected[0, 1], expected[0, 2], expected[2, 4], expected[3, 3] = 1, 2, 3, 4
    torch.testing.assert_close(joint.dense(), expected)
    assert len(stacked([ragged[0:0], even[0:0]])) == 0
