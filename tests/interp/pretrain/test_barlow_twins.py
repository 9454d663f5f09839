import torch

from interp.pretrain.barlow_twins import barlow_twins_loss, cross_correlation


def _rows(n=64, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_the_paper(first, second, redundancy):
    n, d = first.shape
    loss = 0.0
    for i in range(d):
        for j in range(d):
            a, b = first[:, i] - first[:, i].sum() / n, second[:, j] - second[:, j].sum() / n
            c = (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())
            loss = loss + ((1 - c) ** 2 if i == j else redundancy * c**2)
    return loss


def test_equals_the_slow_double_loop():
    first, second = _rows(seed=0), _rows(seed=1) + _rows(seed=0)
    for redundancy in (0.0, 0.005, 1.0):
        slow = _by_the_paper(first, second, redundancy)
        # Batch norm's eps is all that differs: 1e-5 of a variance near 1.
        torch.testing.assert_close(barlow_twins_loss(first, second, redundancy), slow, rtol=1e-4, atol=0)
    exact = cross_correlation(first, second, eps=0.0)
    torch.testing.assert_close(exact, torch.corrcoef(torch.cat([first, second], dim=1).T)[:6, 6:], rtol=1e-12, atol=0)


def test_whitened_identical_views_lose_nothing():
    rows = _rows()
    rows = rows - rows.mean(dim=0)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    white = rows @ vectors / values.sqrt() * 1e3  # Large, so that eps is nothing beside the variance.
    assert barlow_twins_loss(white, white, 0.005) < 1e-10


def test_each_feature_may_be_scaled_and_shifted():
    first, second = _rows(seed=0), _rows(seed=0) + 0.5 * _rows(seed=1)
    scale, shift = torch.tensor([1.0, 2.0, 50.0, 7.0, 3.0, 9.0]).double(), torch.arange(6).double()
    moved = first * scale + shift, second * scale.flip(0) - shift
    exact = cross_correlation(first, second, eps=0.0)
    torch.testing.assert_close(cross_correlation(*moved, eps=0.0), exact, rtol=0, atol=1e-12)
    loss = barlow_twins_loss(first, second, 0.005)
    torch.testing.assert_close(barlow_twins_loss(*moved, 0.005), loss, rtol=3e-4, atol=0)


def test_constant_embeddings_cost_one_a_feature_and_stay_finite():
    rows = torch.full((16, 6), 3.0, requires_grad=True)
    loss = barlow_twins_loss(rows, rows, 0.005)
    loss.backward()
    assert loss == 6
    assert rows.grad.isfinite().all()
