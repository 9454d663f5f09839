import json
import math

import pytest

from saes.penalties.aux_k import AuxK
from saes.penalties.l1 import L1
from saes.records import Job, Metrics, TrainConfig
from saes.relu import ReLU
from saes.topk import TopK


@pytest.fixture
def sae() -> TopK:
    return TopK(d_in=6, d_sae=64)


def test_a_job_takes_the_methods_own_defaults(sae: TopK) -> None:
    job = Job(sae)
    assert (job.name, job.penalties) == ("topk", (AuxK(),))
    assert Job(sae, penalties=()).penalties == ()
    record = json.loads(json.dumps(job.to_json()))
    assert record["class"] == "saes.topk.TopK"
    assert record["arguments"] == {"d_in": 6, "d_sae": 64, "seed": 0, "k": 32}
    assert record["penalties"] == [{"class": "AuxK", "coefficient": 0.25, "k_aux": None}]
    assert record["signal"] == "reconstruction"


def test_a_learning_rate_that_is_left_out_is_the_rules(sae: TopK) -> None:
    config = TrainConfig(tokens=1000 * 64, batch_size=64)
    rate = config.peak_lr(Job(ReLU(d_in=6, d_sae=256)))
    assert rate == pytest.approx(1e-2)
    assert config.recorded(Job(ReLU(d_in=6, d_sae=256)))["lr"] == rate
    assert config.peak_lr(Job(sae, lr=0.5)) == config.recorded(Job(sae, lr=0.5))["lr"] == 0.5


def test_wrong_jobs_are_refused(sae: TopK) -> None:
    for name in ("a/b", "..", "a b", "a\n"):
        with pytest.raises(ValueError, match="it names files: use letters, digits"):
            Job(sae, name=name)
    for lr in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"lr is .*, but a learning rate is positive"):
            Job(sae, lr=lr)
    with pytest.raises(ValueError, match=r"penalties are \['L1', 'L1'\].* give each class once"):
        Job(sae, penalties=(L1(coefficient=1.0), L1(coefficient=2.0)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokens": 0}, "tokens is 0, but it is a whole number of at least 1"),
        ({"batch_size": -3}, "batch_size is -3"),
        ({"max_skipped": 0}, "max_skipped is 0"),
        ({"warmup": 1.2}, r"warmup is 1\.2, but it is a part of the run"),
        ({"decay": -0.1}, r"decay is -0\.1"),
        ({"clip": 0.0}, r"clip is 0\.0, but it is positive or None"),
        ({"dead_tokens": 0}, "dead_tokens is 0"),
        ({"checkpoint_every": -5}, "checkpoint_every is -5"),
    ],
)
def test_wrong_configurations_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**wrong)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("path", "fast", "path is 'fast', but it is one of auto, sparse, dense: choose one"),
        ("precision", "bf16", "precision is 'bf16', but it is one of float32, bfloat16, or None: choose one"),
    ],
)
def test_words_that_are_no_choice_are_refused(name: str, value: str, message: str) -> None:
    config = TrainConfig()
    object.__setattr__(config, name, value)  # The shape checks of the tests would refuse it first.
    with pytest.raises(ValueError, match=message):
        config.__post_init__()


def test_the_schedule_rises_holds_and_falls() -> None:
    config = TrainConfig(tokens=100, batch_size=1, warmup=0.1, decay=0.2)
    factors = [config.lr_factor(step) for step in range(100)]
    assert factors[:11] == pytest.approx([min(1, (step + 1) / 10) for step in range(11)])
    assert factors[10:80] == [1.0] * 70
    assert factors[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])
    flat = TrainConfig(tokens=100, batch_size=1, warmup=0.0, decay=0.0)
    assert {flat.lr_factor(step) for step in range(100)} == {1.0}
    crossed = TrainConfig(tokens=100, batch_size=1, warmup=1.0, decay=1.0)
    assert max(crossed.lr_factor(step) for step in range(100)) == pytest.approx(0.5, abs=0.01)


def test_steps_and_silence() -> None:
    assert TrainConfig(tokens=1000, batch_size=300).steps == 3
    assert TrainConfig(tokens=10, batch_size=300).steps == 1
    assert TrainConfig(tokens=1_000_000, batch_size=100).dead_after == 10_000
    assert TrainConfig(tokens=1000, batch_size=100).dead_after == 100
    assert TrainConfig(tokens=10**10, batch_size=100).dead_after == 10**7
    assert TrainConfig(dead_tokens=7).dead_after == 7


def test_metrics_are_json_even_when_they_are_not_finite() -> None:
    values = {"loss": math.inf, "fvu": math.nan, "l0": 1.0, "dead": 0.0, "grad_norm": 1.0, "lr": 0.1}
    metrics = Metrics(job="a", step=1, tokens=2, **values, skipped=0, terms={"signal": math.inf, "L1": 2.0})
    found = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert (found["loss"], found["fvu"], found["l0"]) == (None, None, 1.0)
    assert found["terms"] == {"signal": None, "L1": 2.0}
