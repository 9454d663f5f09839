import json

import pytest
import torch
from torch import nn

from interp.models.synthetic import SyntheticWorld
from interp.stores.memory import MemoryStore
from interp.types import Activations, Latents
from saes.evaluation import evaluate


class Basis(nn.Module):
    """The `k` largest coordinates in an orthogonal basis; in training mode none."""

    signed, trainable, site, labels, provenance = True, False, None, {}, {}

    def __init__(self, d_in: int = 6, k: int = 6) -> None:
        super().__init__()
        self.d_in = self.d_sae = d_in
        self.k = k
        directions = torch.linalg.qr(torch.randn(d_in, d_in, generator=torch.Generator().manual_seed(0)))[0]
        self.W_dec = nn.Parameter(directions)
        self.W_enc = self.W_dec.T

    def encode(self, x):
        codes = x @ self.W_enc
        kept = torch.zeros_like(codes).scatter(1, codes.abs().topk(self.k, dim=1).indices, 1.0)
        return Latents.from_dense(codes * kept * (not self.training))

    def decode(self, latents):
        return latents.dense() @ self.W_dec


@pytest.fixture
def store() -> MemoryStore:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200, 6, generator=generator) + torch.randn(40, 6, generator=generator).repeat_interleave(5, 0)
    return MemoryStore(Activations(values, torch.arange(200) // 5, torch.arange(200) % 5), site="blocks.3")


def test_identity_is_perfect(store):
    found = evaluate(Basis(), store)
    assert found["fvu"].value == pytest.approx(0, abs=1e-10)
    assert found["l0"].value == 6
    assert found["dead"].value == 0
    assert found["density"].value == 1
    assert found["shrinkage"].value == pytest.approx(1, rel=1e-5)
    assert (found.rows, found.examples, found.model_examples) == (200, 40, 0)
    assert torch.equal(found.density, torch.ones(6))


def test_dense_reference(store):
    basis = Basis(k=2).eval()
    values = store.span(0, 200).values.double()
    codes = basis.encode(values.float()).dense().detach().double()
    recon = codes @ basis.W_dec.detach().double()
    found = evaluate(basis, store)
    fvu = (values - recon).square().sum() / (values - values.mean(0)).square().sum()
    assert found["fvu"].value == pytest.approx(float(fvu), rel=1e-5)
    assert found["shrinkage"].value == pytest.approx(float((values * recon).sum() / recon.square().sum()), rel=1e-5)
    assert torch.allclose(found.density, (codes != 0).float().mean(0))


def test_no_value_depends_on_the_batch_size(store):
    whole = evaluate(Basis(k=2), store)
    for size in (1, 7, 200):
        found = evaluate(Basis(k=2), store, batch_size=size)
        assert torch.equal(found.density, whole.density)
        for name, interval in found.metrics.items():
            ends = [end for end in ("value", "low", "high") if getattr(interval, end) is not None]
            assert len(ends) == (1 if name == "dead" else 3)
            for end in ends:
                assert getattr(interval, end) == pytest.approx(getattr(whole[name], end), rel=1e-5)


def test_no_value_depends_on_the_order_of_rows_inside_examples(store):
    rows = store.span(0, 200)
    order = torch.cat([5 * i + torch.tensor([3, 1, 4, 0, 2]) for i in range(40)])
    mixed = evaluate(Basis(k=2), MemoryStore(rows[order], site=store.site))
    for name, interval in evaluate(Basis(k=2), store).metrics.items():
        assert mixed[name].value == pytest.approx(interval.value, rel=1e-6)
        if name != "dead":
            assert mixed[name].low == pytest.approx(interval.low, rel=1e-6)


def test_intervals_are_over_examples_not_rows(store):
    rows = store.span(0, 200)
    alone = MemoryStore.from_values(rows.values)
    by_example, by_row = evaluate(Basis(k=2), store)["fvu"], evaluate(Basis(k=2), alone)["fvu"]
    assert by_example.value == pytest.approx(by_row.value)
    assert by_example.high - by_example.low > 1.2 * (by_row.high - by_row.low)


def test_modes_are_set_and_given_back(store):
    basis = Basis().train()
    assert evaluate(basis, store)["l0"].value == 6
    assert basis.training


def test_first_rows_only_and_no_interval(store):
    found = evaluate(Basis(k=1), store, max_rows=12, batch_size=5, resamples=0)
    assert (found.rows, found.examples) == (12, 3)
    assert found["fvu"].low is None
    assert evaluate(Basis(k=1), MemoryStore(store.span(0, 12)))["fvu"].value == pytest.approx(found["fvu"].value)


def test_nothing_fired_is_undefined_not_an_error(store):
    basis = Basis()
    basis.encode = lambda x: Latents.from_dense(torch.zeros(len(x), 6))
    found = evaluate(basis, store)
    assert found["dead"].value == 1
    assert found.to_json()["metrics"]["shrinkage"] == {"value": None, "low": None, "high": None}
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["site"] == "blocks.3"


def test_the_table_names_every_metric_and_what_was_read(store):
    text = str(evaluate(Basis(k=2), store))
    assert all(name in text for name in ("fvu", "l0", "density", "dead", "shrinkage"))
    assert text.endswith("200 rows of 40 examples at blocks.3")
    assert "nan" not in text


def test_noise_outside_the_basis_is_the_error():
    world = SyntheticWorld(n_features=1, d_in=8, mean_l0=0.5, noise=0.1, seed=1)
    basis = Basis(8, 1)
    basis.W_dec.data = torch.linalg.qr(torch.cat([world.features, torch.eye(8)[1:]]).T)[0].T
    basis.W_enc = basis.W_dec.data.T
    basis.encode = lambda x: Latents.from_dense((x @ basis.W_enc) * (torch.arange(8) == 0))
    found = evaluate(basis, world.store(6000))["fvu"]
    # Seven noisy coordinates are lost; the variance of a coin times a magnitude is (1 + s^2) / 2 - 1 / 4.
    lost, kept = 7 * 0.1**2, (1 + 0.25**2) / 2 - 0.25 + 0.1**2
    assert found.low < lost / (lost + kept) < found.high
    assert found.high - found.low < 0.1 * found.value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directions": Basis(7)}, r"activations of width 6 at blocks.3, but the directions take 7: harvest"),
        ({"max_rows": 0}, r"max_rows is 0"),
        ({"max_loss_examples": 0}, r"max_loss_examples is 0"),
    ],
)
def test_errors_name_the_way_out(store, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(arguments.pop("directions", Basis()), store, **arguments)
