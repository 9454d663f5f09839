import pytest
import torch

from interp.effective_rank import rank_me, singular_values


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(x: torch.Tensor) -> float:
    """The paper's formula, term by term."""
    values = torch.linalg.svdvals(x).tolist()
    shares = [value / sum(values) + 1e-7 for value in values]
    return float(torch.tensor([-p * torch.tensor(p).log() for p in shares], dtype=torch.float64).sum().exp())


def streamed(x: torch.Tensor, size: int = 100) -> float:
    return rank_me(singular_values(sum(part.T @ part for part in x.split(size))))


@pytest.mark.parametrize("r", [1, 2, 8, 30])
def test_so_many_orthonormal_directions_so_much_rank(r: int) -> None:
    directions = torch.linalg.qr(draw(32, 32))[0][:r]
    codes = torch.linalg.qr(draw(400, r))[0]
    # The paper's epsilon adds some 16 parts in a million a direction.
    assert streamed(codes @ directions) == pytest.approx(r, rel=1e-3)


def test_streaming_equals_the_batch() -> None:
    for x in (draw(1000, 40), draw(1000, 40) * torch.logspace(0, -3, 40)):
        assert streamed(x, 17) == pytest.approx(slow(x), rel=1e-6)
    x = draw(30, 40)
    assert rank_me(singular_values(x @ x.T)) == pytest.approx(slow(x), rel=1e-6)  # From the smaller product.


def test_rotations_and_scale_change_nothing() -> None:
    x = draw(500, 24) * torch.linspace(0.1, 2, 24)
    rotation = torch.linalg.qr(draw(24, 24, seed=1))[0]
    assert streamed(1e4 * x @ rotation) == pytest.approx(streamed(x), rel=1e-9)


def test_a_mean_hides_the_rank() -> None:
    x = draw(5000, 64)
    raw, centred = x + 5, x - x.mean(0)
    assert streamed(x) == pytest.approx(63.9, abs=0.05)
    assert streamed(raw) == pytest.approx(24.5, abs=0.2)
    assert streamed(centred) == pytest.approx(63.9, abs=0.05)


def test_no_rows_but_zeros_have_no_rank() -> None:
    assert rank_me(torch.zeros(5)) == 0
