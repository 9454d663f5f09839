import pytest
import torch

from interp.types import Site
from saes.heads import by_head, head_pre_acts, head_weights
from saes.topk import TopK


def test_weights_of_heads_add_up_and_tell_who_writes(randomised) -> None:
    sae = randomised(TopK(d_in=12, d_sae=20, k=3).double())
    sae.site = Site("blocks.0.attn.hook_z", heads=3)
    with torch.no_grad():
        sae.W_dec[4, 4:] = 0  # Head 0 alone.
    found = head_weights(sae)
    torch.testing.assert_close(found.sum(1), torch.ones(20, dtype=torch.float64))
    assert found[4].tolist() == [1, 0, 0]
    expected = torch.tensor([sae.W_dec[7, 4 * h : 4 * h + 4].norm() for h in range(3)], dtype=torch.float64)
    torch.testing.assert_close(found[7], expected / expected.sum())


def test_parts_of_a_pre_activation_add_up_to_it(randomised) -> None:
    sae = randomised(TopK(d_in=12, d_sae=20, k=3).double())
    x = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = head_pre_acts(sae.W_enc, x, 7, 3)
    bias = sae.b_enc[7] - sae.b_dec @ sae.W_enc[:, 7]
    torch.testing.assert_close(parts.sum(1) + bias, sae.pre_acts(x, torch.tensor([7]))[:, 0])
    assert by_head(x, 3).shape == (5, 3, 4)


def test_what_has_no_heads_is_refused() -> None:
    sae = TopK(d_in=12, d_sae=20, k=3)
    with pytest.raises(ValueError, match="heads is not given, and the site of the directions is None"):
        head_weights(sae)
    with pytest.raises(ValueError, match="heads is 5, but rows of width 12 are no 5 heads"):
        head_weights(sae, 5)
