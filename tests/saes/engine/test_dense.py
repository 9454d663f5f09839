import pytest
import torch

from saes.engine.dense import BREAK_EVEN, breaks_even

FLOAT32, BFLOAT16, MEMORY = 54e12, 790e12, 4.3e12  # An H200: FLOP and bytes a second.


def _counted(d: int) -> float:
    """The density at which what a dense step has more for an entry costs what a sparse one has for a code."""
    entry = d * (10 / FLOAT32 - 2 / BFLOAT16) + 90 / MEMORY
    return entry / ((20 * d + 400) / MEMORY)


def test_the_break_even_of_a_gpu_is_the_one_that_was_counted() -> None:
    assert [round(_counted(d), 3) for d in (64, 256, 768, 4096)] == [0.083, 0.053, 0.044, 0.04]
    assert BREAK_EVEN["cuda"] == pytest.approx(_counted(4096), rel=0.01)


@pytest.mark.parametrize(("latents", "dense"), [(32, False), (160, False), (200, True)])
def test_small_saes_are_sparse_on_a_gpu(latents: int, dense: bool) -> None:
    """Of 4096: only sparse ones are stacked."""
    assert breaks_even(latents / 4096, torch.device("cuda")) == dense
