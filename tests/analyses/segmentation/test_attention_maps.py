import pytest
import torch

from analyses.segmentation.attention_maps import AttentionMaps


def _slow(attention: torch.Tensor, mass: float) -> list[bool]:
    """The largest first, until they hold the share."""
    shares, held, kept = (attention / attention.sum()).tolist(), 0.0, [False] * len(attention)
    for place in sorted(range(len(shares)), key=lambda i: -shares[i]):
        if held >= mass:
            break
        kept[place], held = True, held + shares[place]
    return kept


@pytest.mark.parametrize("mass", [0.1, 0.6, 0.95])
def test_keeps_the_fewest_positions_that_hold_the_mass(mass: float) -> None:
    given = torch.rand(20, 4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    mean, each = AttentionMaps(mass)(given), AttentionMaps(mass, per_head=True)(given)
    assert each.masks.shape == (20, 3, 4, 5)
    for b in range(20):
        assert mean.masks[b, 0].flatten().tolist() == _slow(given[b].mean(-1).flatten(), mass)
        for head in range(3):
            assert each.masks[b, head].flatten().tolist() == _slow(given[b, ..., head].flatten(), mass)
    torch.testing.assert_close(each.saliency, (given / given.sum((1, 2), keepdim=True)).movedim(-1, 1))
    torch.testing.assert_close(each.details["attended"], given.sum((1, 2)))


def test_in_closed_form() -> None:
    """Shares 8, 4, 2, 1 of 15: two hold 12/15, of which three tenths need one."""
    given = torch.tensor([1.0, 8.0, 2.0, 4.0]).view(1, 4, 1)
    assert AttentionMaps(0.6)(given).masks[0, 0].tolist() == [False, True, False, True]
    assert AttentionMaps(0.3)(given).masks[0, 0].tolist() == [False, True, False, False]
    assert AttentionMaps(0.8)(given).masks[0, 0].tolist() == [False, True, False, True]  # just 12/15
    assert AttentionMaps(0.81)(given).masks[0, 0].tolist() == [False, True, True, True]


def test_ties_stand_together() -> None:
    given = torch.tensor([1.0, 3.0, 3.0, 3.0]).view(1, 4, 1)
    assert AttentionMaps(0.5)(given).masks[0, 0].tolist() == [False, True, True, True]


def test_a_mass_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mass is 1.0, but is a share of the attention"):
        AttentionMaps(1.0)


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"acts has -1, but attention is never negative"):
        AttentionMaps()(-torch.ones(1, 3, 3, 2))
