import sys
from types import ModuleType

import pytest

from analyses.commands import logs
from saes.records import Metrics


def metrics(step, job="topk"):
    return Metrics(job, step, 100 * step, 2.0, 0.5, 3.0, 0.1, 1.0, 0.01, 0, {"AuxK": 0.25})


def test_the_numbers_of_a_step():
    found = logs.scalars(metrics(7))
    assert found["fvu"] == 0.5
    assert found["terms/AuxK"] == 0.25
    assert not {"job", "step", "terms"} & found.keys()


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_named(monkeypatch, tmp_path, name, module):
    assert name in logs.names()
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(ValueError, match=f"--log {name} needs a package that is missing: pip install {name}"),
        logs.opened([name], tmp_path),
    ):
        pass


def test_tensorboard_gets_every_number_of_every_job(monkeypatch, tmp_path):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            self.folder = folder
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((self.folder, name, value, step))

        def close(self):
            written.append((self.folder, "closed"))

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    with logs.opened(["tensorboard", "tensorboard"], tmp_path) as observers:
        assert written == []
        for observer in observers:
            observer([metrics(3, "a"), metrics(3, "b")])
            observer([metrics(4, "a")])
    a = str(tmp_path / "tensorboard" / "a")
    assert written[0] == (a, 3)
    assert (a, "terms/AuxK", 0.25, 4) in written
    assert written.count((a, "fvu", 0.5, 3)) == 1
    assert (a, "closed") in written


def fake_wandb(monkeypatch, error=None):
    said = []

    class Started:
        def log(self, values, step):
            said.append((step, values))

        def finish(self):
            said.append("finished")

    def init(**options):
        if error:
            raise fake.Error(error)
        said.append(options)
        return Started()

    fake = ModuleType("wandb")
    fake.Error = type("Error", (Exception,), {})
    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return said


def test_wandb_starts_with_the_first_step_only(monkeypatch, tmp_path):
    said = fake_wandb(monkeypatch)
    with logs.opened(["wandb"], tmp_path / "first"):
        pass
    assert said == []
    with logs.opened(["wandb"], tmp_path / "first") as (observer,):
        observer([metrics(3)])
    assert said[0]["name"] == "first"
    assert said[1][0] == 3
    assert said[1][1]["topk/fvu"] == 0.5
    assert said[-1] == "finished"


def test_wandb_that_does_not_start_says_the_way_out(monkeypatch, tmp_path):
    fake_wandb(monkeypatch, "no key")
    with (
        pytest.raises(ValueError, match=r"--log wandb cannot start \(no key\): set WANDB_MODE=offline"),
        logs.opened(["wandb"], tmp_path) as (observer,),
    ):
        observer([metrics(1)])


def test_a_trainer_feeds_its_observers(store):
    from interp.stores.disk import DiskStore
    from saes.topk import TopK
    from saes.training import Job, TrainConfig, Trainer

    rows = DiskStore(store, "blocks.1")
    seen = []
    config = TrainConfig(tokens=1000, batch_size=100, log_every=4)
    jobs = [Job(TopK(d_in=rows.d_in, d_sae=16, k=2), name=name) for name in "ab"]
    Trainer(jobs, config, rows, progress=False, observers=[seen.extend]).run()
    assert [(m.job, m.step) for m in seen] == [(job, step) for step in (4, 8, 10) for job in "ab"]
