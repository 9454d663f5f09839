import pytest
import torch

from interp.types import Latents
from saes.batch_topk import BatchTopK
from saes.states import TrainState


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
    assert (state.steps, state.skipped) == (2, 0)


def test_skipped_steps_count_and_stop_the_run() -> None:
    sae = BatchTopK(d_in=2, d_sae=3, k=1)
    state = TrainState.start(sae)
    state.skip("mine", 0.1, 2)
    state.move(sae, Latents.from_dense(torch.ones(1, 3)), 0.5)
    state.skip("mine", 0.1, 2)
    assert (state.steps, state.skipped, state.skipped_in_a_row) == (3, 2, 1)
    with pytest.raises(FloatingPointError, match=r"job 'mine' had no finite loss in 2 steps .* \(lr 0\.1\): lower lr"):
        state.skip("mine", 0.1, 2)
