import pytest
import torch
from torch import Tensor

from interp.stores.memory import MemoryStore
from saes.parametrizations.archetypal import Archetypal
from saes.topk import TopK
from saes.training import TrainConfig, train


def _outside(rows: Tensor, points: Tensor) -> Tensor:
    """Distance of each row from the convex hull of the points, by projected (Frank-Wolfe) descent on the weights."""
    weights = torch.full((len(rows), len(points)), 1 / len(points), dtype=torch.float64)
    for step in range(4000):
        gradient = (weights @ points - rows) @ points.T
        corner = torch.zeros_like(weights).scatter_(1, gradient.argmin(dim=1, keepdim=True), 1.0)
        weights += (corner - weights) * 2 / (step + 2)
    return (weights @ points - rows).norm(dim=1)


def _moved(delta: float, points: int | None = None) -> Archetypal:
    draw = torch.Generator().manual_seed(0)
    made = Archetypal(directions=torch.randn(12, 4, generator=draw), points=points, delta=delta).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(3 * torch.randn(parameter.shape, generator=draw))
    return made


@pytest.mark.parametrize("points", [None, 5])
def test_without_relaxation_every_row_is_in_the_hull_of_the_data(points: int | None) -> None:
    made = _moved(0.0, points)
    assert float(_outside(made().detach(), made.points).max()) < 0.02
    weights = made.logits.softmax(dim=1)
    torch.testing.assert_close(made(), weights @ made.points)


def test_relaxation_reaches_as_far_as_delta_and_no_farther() -> None:
    made = _moved(0.2)
    reach = 0.2 * float(made.points.square().sum(1).mean().sqrt())
    away = (made() - made.logits.softmax(dim=1) @ made.points).norm(dim=1)
    assert float(away.max()) == pytest.approx(reach)
    assert float(away.min()) > 0.5 * reach


def test_gradients_are_finite_where_nothing_is_relaxed_yet() -> None:
    made = Archetypal(directions=torch.eye(4).repeat(3, 1))
    made().sin().sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in made.parameters())


def test_the_points_are_directions_of_rows_of_data(rows) -> None:
    store = MemoryStore.from_values(rows(400))
    sae = TopK(d_in=6, d_sae=32, k=4, parametrization={"class": "Archetypal", "delta": 0.0, "points": 100})
    sae.initialise(store)
    data = torch.nn.functional.normalize((rows(400) - sae.b_dec).detach(), dim=1)
    points = sae.parametrization.points
    assert all(float((data - point).norm(dim=1).min()) < 1e-5 for point in points)
    trained = train(sae, store, TrainConfig(tokens=60 * 64, batch_size=64), progress=False)[0]
    assert float(_outside(trained.W_dec.detach().double(), trained.parametrization.points.double()).max()) < 0.1
    with pytest.raises(ValueError, match="rows are 40, but 100 points span the hull"):
        sae.parametrization.start_at(data[:40])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="points 0 and delta"):
        Archetypal(directions=torch.eye(4), points=0)
