import pytest
import torch

from interp.types import Latents
from saes import states
from saes.batch_topk import BatchTopK
from saes.states import TrainState
from saes.topk import TopK


def test_silence_and_density_follow_the_batches() -> None:
    sae = BatchTopK(d_in=2, d_sae=3, k=1)
    state = TrainState.start(sae)
    state.move(sae, Latents.from_dense(torch.tensor([[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]])), 0.5)
    assert state.silent.tolist() == [0, 0, 2]
    assert state.density.tolist() == [0.5, 0.25, 0.0]
    assert float(sae.threshold) == 1.0
    state.move(sae, Latents.from_dense(torch.tensor([[0.0, 1.0, 0.0]])), 0.5)
    assert state.silent.tolist() == [1, 0, 3]
    assert state.density.tolist() == [0.25, 0.625, 0.0]
    assert (state.steps, int(state.skipped), float(state.kept)) == (2, 0, 1.0)


def test_skipped_steps_move_nothing_but_their_count_and_stop_the_run() -> None:
    sae = BatchTopK(d_in=2, d_sae=3, k=1)
    state, codes = TrainState.start(sae), Latents.from_dense(torch.ones(1, 3))
    state.move(sae, codes, 0.5, torch.tensor(False))
    assert state.silent.tolist() == state.density.tolist() == [0, 0, 0]
    assert sae.threshold.isnan() and state.kept.isnan()
    state.move(sae, codes, 0.5)
    state.check("mine", 0.1, 1)
    state.move(sae, codes, 0.5, torch.tensor(False))
    assert (state.steps, int(state.skipped), int(state.skipped_in_a_row)) == (3, 2, 1)
    state.check("mine", 0.1, 2)
    state.move(sae, codes, 0.5, torch.tensor(False))
    with pytest.raises(FloatingPointError, match=r"job 'mine' had no finite loss in 2 steps .* \(lr 0\.1\): lower lr"):
        state.check("mine", 0.1, 2)


def test_a_review_lists_the_dead_and_takes_the_faster_path(monkeypatch) -> None:
    state = TrainState.start(TopK(d_in=2, d_sae=4, k=1))
    state.silent.copy_(torch.tensor([5, 11, 10, 12]))
    state.review(dead_after=10, path="auto")
    assert state.dead.tolist() == [1, 3]
    assert not state.dense  # Nothing is known of the density yet.
    for kept, path, dense in ((0.4, "auto", False), (3.0, "auto", True), (3.0, "sparse", False), (0.4, "dense", True)):
        state.kept.fill_(kept)
        state.review(dead_after=10, path=path)
        assert state.dense == dense
    monkeypatch.setitem(states.REVIEW, "cpu", 4)
    state.steps = 3
    state.review(dead_after=4, path="sparse")
    assert state.dead.tolist() == [1, 3]
    state.steps = 4
    state.review(dead_after=4, path="sparse")
    assert state.dead.tolist() == [0, 1, 2, 3]
    assert not state.dense
