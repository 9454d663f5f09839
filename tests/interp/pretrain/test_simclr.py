import math

import pytest
import torch

from interp.pretrain.simclr import SimCLR, nt_xent


def _rows(b=5, d=4, seed=0):
    return torch.randn(b, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_the_paper(first, second, temperature):
    rows = [*first, *second]
    b, total = len(first), 0.0
    for i in range(2 * b):

        def similarity(k, i=i):
            return math.exp(float(rows[i] @ rows[k] / (rows[i].norm() * rows[k].norm())) / temperature)

        positive = (i + b) % (2 * b)
        total -= math.log(similarity(positive) / sum(similarity(k) for k in range(2 * b) if k != i))
    return total / (2 * b)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_equals_the_slow_double_loop(temperature):
    first, second = _rows(seed=0), _rows(seed=1)
    assert nt_xent(first, second, temperature).item() == pytest.approx(_by_the_paper(first, second, temperature))


def test_lengths_do_not_matter_and_views_may_change_places():
    first, second = _rows(seed=0), _rows(seed=1)
    loss = nt_xent(first, second, 0.2)
    torch.testing.assert_close(nt_xent(first * 7, second / 3, 0.2), loss)
    torch.testing.assert_close(nt_xent(second, first, 0.2), loss)


def test_embeddings_that_are_all_alike_cost_the_logarithm_of_the_others():
    rows = torch.zeros(8, 4, requires_grad=True)
    loss = nt_xent(rows, rows, 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(15))
    assert rows.grad.isfinite().all()


def test_the_head_can_be_read_at_each_layer(tiny_encoder):
    head = SimCLR(tiny_encoder(), d_hidden=12, d_out=6).eval()
    pooled = torch.rand(3, 16)
    first, middle, last = head.projected(pooled)
    assert (first.shape[1], middle.shape[1], last.shape[1]) == (12, 12, 6)
    torch.testing.assert_close(head.head[2](head.head[1](first)), last)
    assert (middle >= 0).all()
