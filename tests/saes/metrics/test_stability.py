import json

import pytest
import torch

from saes.metrics.stability import stability


def random(seed: int, n: int = 40, d: int = 8) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_same_rows_in_any_order_and_length_are_stable():
    W = random(0)
    found = stability([W, 3 * W.flip(0), W[torch.randperm(40, generator=torch.Generator().manual_seed(1))]])
    assert found.cosine.value == pytest.approx(1, abs=1e-6)
    assert found.shared.value == found.shared.low == 1
    assert len(found.pairs) == 3


def test_planted_share():
    """30 rows kept, 10 made orthogonal to everything."""
    first, second = torch.zeros(40, 64), torch.zeros(40, 64)
    first[:, :40] = torch.eye(40)
    second[:30, :30], second[30:, 50:60] = torch.eye(30), torch.eye(10)
    found = stability([first, second.flip(0)])
    assert found.cosine.value == found.shared.value == pytest.approx(0.75)
    assert found.shared.high - found.shared.low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 40) ** 0.5, rel=0.25)
    assert found.cosine_of_pairs.low is None
    assert found.matches[0].tolist() == [1.0] * 30 + [0.0] * 10


def test_an_opposite_row_is_not_the_same():
    assert stability([torch.eye(4), -torch.eye(4)]).cosine.value == 0


def test_pairs_of_seeds_have_an_interval_of_their_own():
    W = random(0)
    near = W + 0.05 * random(1)
    found = stability([W, near, random(2)], threshold=0.9)
    assert found.pairs[0][0] > 0.95 > max(found.pairs[1][0], found.pairs[2][0])
    assert found.cosine_of_pairs.value == pytest.approx(sum(mean for mean, _ in found.pairs) / 3)
    assert found.cosine_of_pairs.value == pytest.approx(found.cosine.value, rel=1e-5)
    assert found.cosine_of_pairs.high == pytest.approx(found.pairs[0][0], abs=1e-6)
    assert found.cosine.high - found.cosine.low < found.cosine_of_pairs.high - found.cosine_of_pairs.low
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["shared"]["value"] == found.shared.value
    assert written["threshold"] == 0.9
    assert "matches" not in written


@pytest.mark.parametrize("dictionaries", [[torch.eye(3)], [torch.eye(3), torch.eye(4)]])
def test_errors(dictionaries):
    with pytest.raises(ValueError, match=r"stability compares at least two of one shape"):
        stability(dictionaries)
