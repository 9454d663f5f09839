import pytest
import torch
from torch import Tensor

from saes.engine.selection import Context
from saes.group_max import GroupMax
from saes.penalties.base import reconstruction
from saes.relu import ReLU


def _slow(sae: GroupMax, x: Tensor) -> Tensor:
    """ReLU, then the largest of each run of d_sae / k features; a row and a group at a time."""
    size, rows = sae.d_sae // sae.k, []
    for row in x:
        pre_acts = torch.relu((row - sae.b_dec) @ sae.W_enc + sae.b_enc)
        codes = []
        for group in pre_acts.split(size):
            codes += [value if f == int(group.argmax()) else 0 * value for f, value in enumerate(group)]
        rows.append(torch.stack(codes))
    return torch.stack(rows)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 3, 8, 24])
def test_group_max_is_the_slow_one_and_so_are_its_gradients(k: int, x: Tensor, randomised, step_of) -> None:
    sae = randomised(GroupMax(d_in=6, d_sae=24, k=k).double())
    expected, step = _slow(sae, x), step_of(sae, x)
    for training in (True, False):
        latents = sae.train(training).encode(x)
        torch.testing.assert_close(latents.dense(), expected, rtol=1e-12, atol=1e-12)
        assert latents.offsets.diff().max() <= k
    loss = (expected @ sae.W_dec + sae.b_dec - x).square().sum() / len(x)
    parameters = list(sae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(reconstruction(step), parameters), torch.autograd.grad(loss, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_rows_are_full_and_features_ascend_across_chunks(randomised) -> None:
    sae = randomised(GroupMax(d_in=6, d_sae=24, k=4))
    latents = sae.codes(torch.randn(1100, 6, generator=torch.Generator().manual_seed(0)))
    assert latents.k == 4
    assert (latents.indices.view(-1, 4) // 6 == torch.arange(4)).all()


def test_a_chunk_may_lie_in_memory_by_row() -> None:
    """As it does on a GPU."""
    sae, pre_acts = GroupMax(d_in=6, d_sae=24, k=4), torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
    one, other = (sae.candidates(given, Context(training=True, n=5)) for given in (pre_acts, pre_acts.T.contiguous().T))
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.values, other.values)


def test_groups_of_one_are_relu(x: Tensor, randomised) -> None:
    ours = randomised(GroupMax(d_in=6, d_sae=24, k=24).double())
    theirs = ReLU(d_in=6, d_sae=24).double()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.encode(x).dense(), theirs.encode(x).dense())


def test_groups_of_unequal_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"k is 7, .* divisor of d_sae = 64: choose another k, or d_sae = 70\."):
        GroupMax(d_in=6, d_sae=64, k=7)
    with pytest.raises(ValueError, match=r"k is 0, but it is a whole number"):
        GroupMax(d_in=6, d_sae=64, k=0)
