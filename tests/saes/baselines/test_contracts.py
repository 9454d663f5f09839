"""What every fitted dictionary keeps, found by walking the folders: a new file is tested with no edit here."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyses.dictionary.bundle import FeatureDictionary
from interp.harvesting import harvest
from interp.stores.disk import open_stores
from interp.stores.memory import MemoryStore
from interp.types import Directions
from saes import weights_file
from saes.baselines import base
from saes.baselines.base import Fitted, Projection, load, methods
from saes.evaluation import evaluate

METHODS = [pytest.param(method, id=method.__name__) for _, method in sorted(methods().items())]
every_method = pytest.mark.parametrize("method", METHODS)
# Some fits stop before they converge, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:.*converge.*", "ignore:Maximum number of iterations")


def _fit(method: type[Fitted], store: Any, **own: Any) -> Fitted:
    """The method with 5 directions, or its own number where that is no choice."""
    asked = {"d_sae": 5, "steps": 10, "batch_size": 128, "iterations": 50, "seed": 0, **own}
    return method.fit(store, **{n: v for n, v in asked.items() if n in inspect.signature(method.fit).parameters})


@pytest.fixture(scope="module")
def many(rows) -> MemoryStore:
    return MemoryStore.from_values(rows(600), site="blocks.1@in", provenance={"model": "tiny", "shape": (1, 2)})


@pytest.fixture(scope="module")
def fitted_methods(many) -> dict[type[Fitted], Fitted]:
    return {method: _fit(method, many) for method in methods().values()}


@pytest.fixture
def fitted(method: type[Fitted], fitted_methods) -> Fitted:
    return fitted_methods[method]


def _equal(a: Fitted, b: Fitted) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_folders_are_walked() -> None:
    names = {method.__name__ for method in methods().values()}
    assert {"Identity", "Random", "PCA", "ICA", "NMF", "KMeans"} <= names
    assert {"VectorQuantizer", "SimVQ", "SparseDistributed"} <= names
    assert not names & {"Fitted", "Projection", "Codebook"}


@every_method
def test_they_are_directions(fitted: Fitted, many, rows) -> None:
    assert isinstance(fitted, Directions)
    x = rows(50, seed=1)
    latents = fitted.encode(x)
    dense = latents.dense()
    assert fitted.W_dec.shape == (fitted.d_sae, fitted.d_in)
    assert dense.shape == (50, fitted.d_sae)
    assert (latents.values != 0).all()
    assert fitted.signed == bool((dense < 0).any())
    assert torch.allclose(fitted.decode(latents), dense @ fitted.W_dec + fitted.b_dec, atol=1e-5)
    assert torch.equal(fitted(x), fitted.decode(latents))
    assert str(fitted.site) == "blocks.1@in"
    assert fitted.provenance["store"] == many.fingerprint
    assert fitted.provenance["shape"] == [1, 2]
    assert not fitted.trainable
    assert not fitted.training


@every_method
def test_codes_are_of_each_row_alone(fitted: Fitted, rows, monkeypatch) -> None:
    x = rows(50, seed=1)
    whole = fitted.encode(x).dense()
    assert torch.allclose(torch.cat([fitted.encode(row[None]).dense() for row in x]), whole, atol=1e-5)
    monkeypatch.setattr(base, "_CHUNK_VALUES", 7 * fitted.d_sae)
    in_parts = fitted.encode(x)
    assert len(in_parts) == 50
    assert torch.allclose(in_parts.dense(), whole, atol=1e-5)
    assert fitted.encode(x[:0]).dense().shape == (0, fitted.d_sae)
    assert fitted.decode(fitted.encode(x[:0])).shape == (0, 6)


@pytest.mark.parametrize("method", [p for p in METHODS if "k" in inspect.signature(p.values[0]).parameters])
def test_k_keeps_the_largest_codes(method: type[Fitted], fitted: Fitted, rows) -> None:
    x = rows(50, seed=1)
    full = fitted.encode(x).dense()
    fewer = method(**{**fitted.arguments, "k": 2})
    fewer.load_state_dict(fitted.state_dict())
    kept = fewer.encode(x).dense()
    border = full.abs().sort(dim=1, descending=True).values[:, 1:2]
    assert torch.equal(kept, full * ((full.abs() >= border) & (full != 0)))
    assert int((kept != 0).sum(1).max()) == 2
    with pytest.raises(ValueError, match=r"k is 0, but it is a whole number in 1\.\.d_sae"):
        method(**{**fitted.arguments, "k": 0})


@every_method
def test_what_is_saved_comes_back(fitted: Fitted, rows, tmp_path: Path) -> None:
    fitted.labels = {1: "costs $5"}
    fitted.save(tmp_path / "a")
    fitted.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = load(tmp_path / "a")
    assert type(found) is type(fitted)
    assert _equal(found, fitted)
    for name in ("site", "labels", "provenance", "arguments", "training"):
        assert getattr(found, name) == getattr(fitted, name), name
    x = rows(50, seed=1)
    assert torch.equal(found.encode(x).dense(), fitted.encode(x).dense())
    fitted.double().save(tmp_path / "c")
    assert load(tmp_path / "c").b_dec.dtype == torch.float64
    fitted.float()


@every_method
def test_they_are_evaluated_and_shown(fitted: Fitted, many, tmp_path: Path) -> None:
    found = evaluate(fitted, many, resamples=0)
    assert np.isfinite(found["fvu"].value)
    assert 0 < found["l0"].value <= fitted.d_sae
    bundle = FeatureDictionary.build(fitted, many, tmp_path / "dict", progress=False)
    assert bundle.features()["density"].tolist() == pytest.approx(found.density.tolist())


@every_method
def test_fits_are_functions_of_store_and_seed(method: type[Fitted], fitted: Fitted, many) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    again = _fit(method, many)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()
    assert _equal(again, fitted)
    assert again.provenance == fitted.provenance
    if method.__name__ not in ("Identity", "PCA"):
        assert not _equal(_fit(method, many, seed=1, rows=100), fitted)


def test_fits_do_not_depend_on_the_size_of_shards(tiny_text, sentences, tmp_path: Path) -> None:
    stores = []
    for size in (37, 400):
        options = {"chunk_examples": 16, "rows_per_shard": size}
        harvest(tiny_text, sentences(60), ("blocks.0",), tmp_path / str(size), **options)
        stores += open_stores(tmp_path / str(size)).values()
    for method in methods().values():
        assert _equal(*(_fit(method, store, rows=200) for store in stores)), method


@every_method
def test_other_widths_and_missing_fits_are_refused(method: type[Fitted], fitted: Fitted, many) -> None:
    with pytest.raises(ValueError, match=rf"x has shape \[3, 4\], but this {method.__name__} takes \[n, 6\]: harvest"):
        fitted.encode(torch.zeros(3, 4))
    other = MemoryStore.from_values(torch.randn(20, 4))
    with pytest.raises(ValueError, match=r"store holds activations of width 4 .* but the directions take 6"):
        evaluate(fitted, other)
    with pytest.raises(ValueError, match=r"d_in is 0, but a width"):
        method(**{**fitted.arguments, "d_in": 0, "d_sae": 1} if method.__name__ != "SparseDistributed" else {"d_in": 0})
    empty = method(**fitted.arguments)
    if empty.b_dec.isnan().any():
        with pytest.raises(ValueError, match=rf"holds no directions yet: make it with {method.__name__}\.fit\(store"):
            empty.encode(torch.zeros(3, 6))


@pytest.mark.parametrize("method", [p for p in METHODS if issubclass(p.values[0], Projection)])
def test_linear_codes_are_those_of_their_weights(fitted: Fitted, rows) -> None:
    x = rows(50, seed=1)
    assert fitted.W_enc is not None
    assert fitted.W_enc.shape == (6, fitted.d_sae)
    assert torch.allclose(fitted.encode(x).dense(), (x - fitted.b_dec) @ fitted.W_enc + fitted.b_enc, atol=1e-5)
    assert torch.allclose(fitted.W_dec.norm(dim=1), torch.ones(fitted.d_sae), atol=1e-5)
    x.requires_grad_()
    fitted.encode(x).values.sum().backward()
    assert torch.allclose(x.grad, fitted.W_enc.sum(1).expand_as(x), atol=1e-4)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (
            {"class": "saes.baselines.base.load", "arguments": {}},
            "names the class 'saes.baselines.base.load'",
        ),
        ({"class": "os.system", "arguments": {"command": "true"}}, "which is none of saes.baselines.ica.ICA"),
        ({"class": "saes.topk.TopK", "arguments": {}}, "load it by saes.load"),
        ({"class": "saes.baselines.pca.PCA", "arguments": {"d_in": 3, "d_sae": 2}}, "damaged or from another version"),
        ({"class": "saes.baselines.pca.PCA", "arguments": {"nonsense": 3}}, "damaged or from another version"),
        ({"class": "saes.baselines.pca.PCA"}, "damaged or from another version"),
    ],
)
def test_crafted_files_are_refused(about: dict[str, Any], message: str, tmp_path: Path) -> None:
    weights_file.write(tmp_path / "f", {"b_dec": torch.zeros(3)}, about)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "f")
