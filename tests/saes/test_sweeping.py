import json
from pathlib import Path

import pytest
import torch

from interp import durability
from interp.stores.memory import MemoryStore
from saes import sweep_plan
from saes.batch_topk import BatchTopK
from saes.evaluation import evaluate
from saes.loading import load
from saes.settings import grid
from saes.sweep_results import summary
from saes.sweeping import sweep
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer, train

CONFIG = TrainConfig(tokens=6 * 64, batch_size=64, checkpoint_every=2, log_every=1, max_skipped=2, dead_tokens=256)
SETTINGS = [*grid(TopK, d_sae=24, k=[2, 4]), *grid(BatchTopK, d_sae=24, k=[2, 4])]
OPTIONS = {"seeds": (0, 1), "resamples": 20, "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")


@pytest.fixture(scope="module")
def store(rows) -> MemoryStore:
    return MemoryStore.from_values(rows(600), site="blocks.1@in")


@pytest.fixture(scope="module")
def held_out(rows) -> MemoryStore:
    return MemoryStore.from_values(rows(200, seed=1), site="blocks.1@in")


@pytest.fixture(scope="module")
def in_two() -> float:
    """Memory that eight SAEs need two groups for."""
    jobs = sweep_plan.planned(SETTINGS, 6, CONFIG, (0, 1))
    return 1.01 * sweep_plan.footprints.peak([job.footprint for job in jobs[:4]], "cpu")


@pytest.fixture(scope="module")
def whole(store, held_out, in_two, tmp_path_factory) -> tuple[Path, list]:
    """Folder and records of a sweep that nothing stops."""
    run = tmp_path_factory.mktemp("sweeps") / "whole"
    return run, sweep(SETTINGS, store, held_out, CONFIG, run=run, memory=in_two, **OPTIONS)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_each_sae_is_the_one_trained_and_judged_alone(whole, store, held_out) -> None:
    run, records = whole
    assert [len(names) for names in json.loads((run / "plan.json").read_text())["groups"]] == [4, 4]
    assert [(r["method"], r["k"], r["seed"]) for r in records] == [
        (method, k, seed) for method in ("TopK", "BatchTopK") for k in (2, 4) for seed in (0, 1)
    ]
    for record, kind in ((records[1], TopK), (records[6], BatchTopK)):
        sae = kind(d_in=6, d_sae=24, k=record["k"], seed=record["seed"])
        (alone,) = train(Job(sae, name=record["name"]), store, CONFIG, progress=False)
        saved = load(run / record["file"])
        assert all(torch.equal(value, saved.state_dict()[name]) for name, value in alone.state_dict().items())
        fvu = evaluate(alone, held_out, resamples=20)["fvu"]
        assert (record["fvu"], record["fvu_low"], record["fvu_high"]) == (fvu.value, fvu.low, fvu.high)
    assert json.loads((run / "sweep.json").read_text()) == {"settings": summary(records), "saes": records}


class Killed(BaseException):
    """No error that anything catches."""


def _killed(monkeypatch, write: int, start) -> bool:
    """Run until the so-manieth file or folder is about to take its name; False if there are fewer."""
    count = 0
    replace = durability.os.replace

    def counted(*names) -> None:
        nonlocal count
        count += 1
        if count > write:
            raise Killed
        replace(*names)

    with monkeypatch.context() as patch:
        patch.setattr(durability.os, "replace", counted)
        try:
            start()
        except Killed:
            return True
    return False


@pytest.mark.parametrize(
    "writes",
    [(9, 22), *(pytest.param((n,) * 60, marks=pytest.mark.soak) for n in (1, 4, 7, 11, 23, 38))],
)
def test_killed_and_resumed_a_sweep_ends_with_the_same_bytes(
    writes, whole, store, held_out, in_two, tmp_path, monkeypatch
) -> None:
    folder, expected = whole

    def start():
        return sweep(SETTINGS, store, held_out, CONFIG, run=tmp_path, memory=in_two, resume=True, **OPTIONS)

    assert sum(_killed(monkeypatch, write, start) for write in writes) > 0
    assert start() == expected
    assert _contents(tmp_path) == _contents(folder)
    monkeypatch.setattr(Trainer, "__init__", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("saes.sweeping.evaluate", lambda *_, **__: pytest.fail("judged again"))
    assert start() == expected
    assert _contents(tmp_path) == _contents(folder)


def test_a_job_that_fails_loses_only_itself(store, held_out, tmp_path) -> None:
    good = grid(TopK, d_sae=24, k=[2, 4])
    bad = grid(TopK, d_sae=24, k=4, lr=1e30)
    options = OPTIONS | {"seeds": (0,)}
    expected = sweep(good, store, held_out, CONFIG, run=tmp_path / "good", **options)
    records = sweep([*good, *bad], store, held_out, CONFIG, run=tmp_path / "all", **options)
    assert records[:2] == expected
    assert records[2]["failure"].startswith("job 'topk-k4-lr1e_30-seed0' had no finite loss in 2 steps in a row")
    assert "fvu" not in records[2]
    for name in (record["name"] for record in expected):
        one, two = (load(tmp_path / run / "groups/000/saes" / f"{name}.safetensors") for run in ("good", "all"))
        assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    assert sweep([*good, *bad], store, held_out, CONFIG, run=tmp_path / "all", resume=True, **options) == records
    (only,) = sweep(bad, store, held_out, CONFIG, run=tmp_path / "bad", **options)
    assert only["failure"]
    steps = [int(path.name.removeprefix("step-")) for path in (tmp_path / "bad/groups/000/checkpoints").iterdir()]
    assert max(steps) < CONFIG.steps  # With nobody left, no more of the stream is read.


@pytest.mark.parametrize("stack", [False, True])
def test_dropping_is_kept_by_checkpoints(stack: bool, store, tmp_path, monkeypatch) -> None:
    config = TrainConfig(**vars(CONFIG) | {"stack": stack})

    def trainer(run: str, **options) -> Trainer:
        jobs = [Job(TopK(d_in=6, d_sae=24, k=2)), Job(TopK(d_in=6, d_sae=24, k=2), name="bad", lr=1e30)]
        return Trainer(jobs, config, store, run=tmp_path / run, progress=False, on_failure="drop", **options)

    first = trainer("whole")
    assert len(first.run()) == 1
    assert list(first.failures) == ["bad"]
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert [line["job"] for line in lines if line["step"] > 2] == ["topk"] * 4
    assert _killed(monkeypatch, 9, lambda: trainer("killed").run())  # As the checkpoint of step 6 is written.
    again = trainer("killed", resume=True)
    assert list(again.failures) == ["bad"]
    again.run()
    assert again.failures == first.failures
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "whole")
    assert json.loads((tmp_path / "killed/failures.json").read_text()) == first.failures
    Trainer([Job(TopK(d_in=6, d_sae=24, k=2))], config, store, run=tmp_path / "killed", overwrite=True, progress=False)
    assert not (tmp_path / "killed/failures.json").exists()


def test_stores_that_do_not_fit_are_refused(store, rows, tmp_path) -> None:
    options = {"run": tmp_path / "run", **OPTIONS}
    with pytest.raises(ValueError, match="held_out holds the rows of store, but SAEs are judged on others"):
        sweep(SETTINGS, store, store, CONFIG, **options)
    with pytest.raises(ValueError, match=r"held_out has width 5 at blocks\.2, but store has 6 at blocks\.1@in"):
        sweep(SETTINGS, store, MemoryStore.from_values(rows(20)[:, :5], site="blocks.2"), CONFIG, **options)
    assert not (tmp_path / "run").exists()
