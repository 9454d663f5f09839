import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.stores.memory import MemoryStore
from saes import normalising
from saes.forecasts import ForecastWarning, warn
from saes.normalising import Normaliser
from saes.records import default_lr
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer, train

N, D, D_SAE = 8000, 32, 256
CONFIG: dict[str, Any] = {"tokens": 200_000}


def _rows(seed: int = 0) -> Tensor:
    """Rows like those of a language model: correlated dimensions, a mean, norms that vary."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=draw) * torch.linspace(0.3, 2, D)
    return torch.randn(N, D, generator=draw) @ mixing * (1 + torch.rand(N, 1, generator=draw)) + 4


def _said(x: Tensor, *jobs: Job, config: dict[str, Any] | None = None) -> list[str]:
    store = MemoryStore.from_values(x)
    made = TrainConfig(**{**CONFIG, **(config or {})})
    normaliser = normalising.estimate(store, made.normalise, seed=made.seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(jobs or [Job(TopK(d_in=D, d_sae=D_SAE, k=8))], made, store, normaliser)
    assert all(warning.category is ForecastWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def test_a_healthy_run_is_silent() -> None:
    for config in ({}, {"tokens": 40_000, "batch_size": 512}, {"dead_tokens": 10_000}):
        assert _said(_rows(), config=config) == []
    rate = default_lr(D_SAE, TrainConfig(**CONFIG).steps)
    jobs = [Job(TopK(d_in=D, d_sae=D_SAE, k=8), name="half", lr=rate / 2), Job(ReLU(d_in=D, d_sae=D_SAE), lr=2 * rate)]
    assert _said(_rows(), *jobs) == []
    units = _rows() / _rows().std()
    assert _said(units, config={"normalise": "none"}) == []


def _plant(x: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    change(x)
    return x


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[::100].mul_(100), r"1.*% of the rows lie over 10 times as far .* carry 99% .*max_norm_ratio=10"),
        (lambda x: x[: N // 2].copy_(x[:1].expand(N // 2, -1)), r"5.% of a sample of 4,096 rows are copies"),
        (lambda x: x.copy_(x[:, :1] @ x[:1]), r"the rows lie near 1 of 32 directions"),
    ],
)
def test_rows_that_spoil_a_run_are_told(change: Callable[[Tensor], object], said: str) -> None:
    found = _said(_plant(_rows(), change), Job(ReLU(d_in=D, d_sae=D_SAE)))
    assert len(found) == 1
    with pytest.warns(ForecastWarning, match=said):
        warnings.warn(found[0], ForecastWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("job", "config", "said"),
    [
        ({}, {"normalise": "none"}, "normalise is 'none' and the activations have a standard deviation of"),
        ({}, {"tokens": 4000}, "a run of 1 x 2,048 rows is too short"),
        ({}, {"dead_tokens": 10_000_000}, "dead_tokens is 10,000,000, but the run has 200,000 tokens"),
        ({"d_sae": 2048}, {}, "job 'topk': 8,000 different rows are 3.9 a latent: .* Harvest more rows"),
        (
            {"d_sae": 1024},
            {"tokens": 5000, "batch_size": 100},
            "5,000 different rows are 4.9 a latent: .* Train on more",
        ),
        ({"d_sae": 16}, {}, "16 latents are fewer than the 32 dimensions"),
        ({"k": 40}, {}, r"k is 40, but the rows lie near 2\d directions"),
        ({"lr": 0.2}, {}, "lr is 0.2, .* times the rule for 256 latents .*: many latents will die"),
        ({"lr": 1e-4}, {}, "lr is 0.0001, 0.0057 times the rule .*: it will learn too slowly"),
    ],
)
def test_settings_that_spoil_a_run_are_told(job: dict[str, Any], config: dict[str, Any], said: str) -> None:
    lr = job.get("lr")
    shape = {"d_in": D, "d_sae": D_SAE, "k": 8} | {name: value for name, value in job.items() if name != "lr"}
    found = _said(_rows(), Job(TopK(**shape), lr=lr), config=config)
    assert len(found) == 1, found
    with pytest.warns(ForecastWarning, match=said):
        warnings.warn(found[0], ForecastWarning, stacklevel=1)


class _Stream(MemoryStore):
    def __len__(self) -> int:
        raise ValueError("a stream has no length")


def test_what_is_not_known_is_not_judged() -> None:
    """A stream of unknown length, a sample too small to tell, an SAE from a checkpoint."""
    store = _Stream.from_values(_rows()[:50])
    jobs, config = [Job(TopK(d_in=D, d_sae=2048, k=40))], TrainConfig(**CONFIG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sample in (None, torch.ones(50, D)):
            warn(jobs, config, store, Normaliser(torch.zeros(D), 1.0, sample))


def test_the_trainer_warns_once_before_its_first_step(tmp_path: Path) -> None:
    store = MemoryStore.from_values(_plant(_rows(), lambda x: x[::100].mul_(100)))
    config = TrainConfig(tokens=20 * 100, batch_size=100, checkpoint_every=10)

    def job() -> Job:
        return Job(TopK(d_in=D, d_sae=64, k=4))

    with pytest.warns(ForecastWarning) as caught:
        trainer = Trainer([job()], config, store, run=tmp_path / "run", progress=False)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", ForecastWarning)
        trainer.run()
        Trainer([job()], config, store, run=tmp_path / "run", resume=True, progress=False)  # Said when it began.


def test_the_mean_and_the_rows_of_the_sample_are_the_normalisers() -> None:
    x = _rows()
    store = MemoryStore.from_values(x)
    found = normalising.estimate(store, "scale", seed=3, size=500)
    assert found.sample is not None
    assert torch.equal(found.sample, next(store.batches(500, seed=3)).values)


def test_weights_do_not_depend_on_the_forecast() -> None:
    """Looking draws no random number and changes nothing."""
    x, config = _rows()[:2000], TrainConfig(tokens=20_000, batch_size=500)
    before, state = x.clone(), torch.random.get_rng_state()
    train(TopK(d_in=D, d_sae=64, k=4), MemoryStore.from_values(x), config, progress=False)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
