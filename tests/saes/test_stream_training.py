"""Training over a live model: what a run over a stored harvest promises, a run over a stream keeps."""

import json
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from interp.models.torch_module import TorchModel
from interp.stores.stream import StreamStore
from interp.types import Inputs
from saes.batch_topk import BatchTopK
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer, train

ROOT = Path(__file__).resolve().parents[2]
CONFIG = TrainConfig(tokens=40 * 32, batch_size=32, checkpoint_every=8, log_every=1, dead_tokens=256)

pytestmark = pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")  # Small runs are what is tried here.


class Counting(TorchModel):
    """Vectors of 8, one an item; counts the items it is given."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Embedding(1500, 8)))
        self.seen: list[int] = []

    def forward(self, inputs: Inputs) -> Any:
        self.seen += inputs.tensors["x"].tolist()
        return super().forward(inputs)


def _numbers(items: list[int]) -> Inputs:
    return Inputs({"x": torch.tensor(items)})


def _store(model: Counting | None = None, n: int = 300, **options: Any) -> StreamStore:
    options = {"half_window": 2, "chunk_examples": 20, "threads": 1, **options}
    return StreamStore(model or Counting(), range(n), "0", collate=_numbers, **options)


def _jobs() -> list[Job]:
    return [Job(TopK(d_in=8, d_sae=32, k=3)), Job(BatchTopK(d_in=8, d_sae=32, k=3))]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _running() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("unweave")]


def test_training_while_the_model_works_equals_training_on_rows_made_before() -> None:
    batches = [batch for _, batch in zip(range(CONFIG.steps), _store().batches(32, seed=0), strict=False)]
    alone = Trainer(_jobs(), CONFIG, _store(), progress=False)
    for batch in batches:
        alone.step(batch, log=False)
    for (_, expected), found in zip(alone.export(), train(_jobs(), _store(), CONFIG, progress=False), strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, found.state_dict()[name]), name


def test_a_run_ends_with_no_thread_and_few_rows_made_in_vain() -> None:
    model = Counting()
    store = _store(model, n=1000)
    trainer = Trainer(_jobs(), CONFIG, store, progress=False)
    estimated = len(model.seen)
    assert estimated >= 1000  # Fewer rows than an estimate takes.
    trainer.run()
    assert len(model.seen) - estimated <= CONFIG.tokens + 3 * 40
    assert _running() == []


def test_an_estimate_within_the_first_window_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from saes import normalising

    estimate = normalising.estimate
    monkeypatch.setattr(normalising, "estimate", lambda *a, **k: estimate(*a, **k, rows=30, size=16))
    model = Counting()
    config = TrainConfig(tokens=16 * 32, batch_size=32)
    train(_jobs(), _store(model, n=1000), config, progress=False)
    again = [item for item in set(model.seen) if model.seen.count(item) > 1]
    assert set(again) <= {0, *range(80, 120)}  # The width's item, and what was begun ahead of the estimate.


def test_an_error_while_training_stops_the_model() -> None:
    def fail(_metrics: Any) -> None:
        assert _running()
        raise KeyboardInterrupt

    trainer = Trainer(_jobs(), CONFIG, _store(), progress=False, observers=[fail])
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.run()
    assert caught.tb is not None  # The traceback is alive, with all its frames.
    assert _running() == []


def _stopped(folder: Path, step: int, store: StreamStore) -> None:
    """Train until a step was logged, then break."""

    def stop(metrics: Any) -> None:
        if metrics[0].step == step:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Trainer(_jobs(), CONFIG, store, run=folder, progress=False, observers=[stop]).run()


def test_a_resumed_run_is_equal_and_runs_the_model_for_what_is_left(tmp_path: Path) -> None:
    train(_jobs(), _store(n=1500), CONFIG, run=tmp_path / "whole", progress=False)
    _stopped(tmp_path / "run", 29, _store(n=1500))
    model = Counting()
    train(_jobs(), _store(model, n=1500), CONFIG, run=tmp_path / "run", resume=True, progress=False)
    assert _contents(tmp_path / "run") == _contents(tmp_path / "whole")
    # From the half-window before step 24's on; the first item gives the width, and nothing is estimated again.
    assert min(model.seen[1:]) == (24 * 32 + 20) // 40 * 40 - 40
    state = json.loads((tmp_path / "run/checkpoints/step-40/state.json").read_text())
    assert [rows for rows, _ in state["stream"]["half_windows"]] == [40] * 33
    assert json.loads((tmp_path / "run/data.json").read_text())["rows"] is None


def test_a_run_goes_on_over_another_pass(tmp_path: Path) -> None:
    """300 rows a pass, stopped in the third."""
    train(_jobs(), _store(), CONFIG, run=tmp_path / "whole", progress=False)
    _stopped(tmp_path / "run", 26, _store())
    train(_jobs(), _store(), CONFIG, run=tmp_path / "run", resume=True, progress=False)
    assert _contents(tmp_path / "run") == _contents(tmp_path / "whole")


@pytest.mark.parametrize("changed", [{"half_window": 3}, {"threads": 2}, {"n": 301}, {"chunk_examples": 10}])
def test_a_stream_of_something_else_is_refused(tmp_path: Path, changed: dict[str, int]) -> None:
    _stopped(tmp_path, 10, _store())
    with pytest.raises(ValueError, match="resume needs the same data, but .* was .* and is"):
        Trainer(_jobs(), CONFIG, _store(**changed), run=tmp_path, resume=True, progress=False)


def test_items_that_changed_since_the_checkpoint_are_found_out(tmp_path: Path) -> None:
    _stopped(tmp_path, 10, _store())
    file = tmp_path / "checkpoints/step-8/state.json"
    state = json.loads(file.read_text())
    state["stream"]["half_windows"][5][1] = "0" * 16
    file.write_text(json.dumps(state))
    with pytest.raises(ValueError, match="half-window 5 of the dataset is not what it was"):
        Trainer(_jobs(), CONFIG, _store(), run=tmp_path, resume=True, progress=False).run()


def test_by_default_a_stream_asks_for_the_length_of_the_run() -> None:
    with pytest.raises(ValueError, match=r"no length before .* TrainConfig\(tokens=\.\.\.\)"):
        train(_jobs(), _store(), progress=False)


# Kills ---------------------------------------------------------------------------------------------------------------

# One process imports torch and makes the texts; each attempt at the run is a fork of it, which has computed nothing.
PROGRAM = """
import importlib.util, json, os, signal, sys, time, warnings
from pathlib import Path
import torch
spec = importlib.util.spec_from_file_location("tiny_text", "tests/tiny_text.py")
tiny = sys.modules["tiny_text"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
from interp.stores.stream import StreamStore
from saes.batch_topk import BatchTopK
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

warnings.simplefilter("ignore")
torch.set_num_threads(1)
texts = tiny.sentences(120)

def run(folder):
    store = StreamStore(tiny.TinyText(), texts, "blocks.1", half_window=2, chunk_examples=8, max_norm_ratio=1.5)
    jobs = [Job(TopK(d_in=8, d_sae=64, k=3)), Job(BatchTopK(d_in=8, d_sae=64, k=3))]
    config = TrainConfig(tokens=90 * 32, batch_size=32, checkpoint_every=5, log_every=1, dead_tokens=256)
    Trainer(jobs, config, store, run=folder, resume=True, progress=False).run()

# What an optimizer imports when it first steps is imported here, not in each attempt.
weight = torch.nn.Parameter(torch.ones(2))
weight.grad = torch.ones(2)
torch.optim.Adam([weight], fused=True).step()
for line in sys.stdin:
    folder, seconds = json.loads(line)
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(folder)
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    found = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    print(json.dumps([found, time.monotonic() - begin]), flush=True)
"""


def _killed(root: Path, seed: int, kills: int) -> None:
    """Kill runs at random moments, going on with each until it is done; compare them with one never killed."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def attempt(folder: Path, seconds: float | None) -> tuple[int | None, float]:
            print(json.dumps([str(folder), seconds]), file=process.stdin, flush=True)
            status, taken = json.loads(process.stdout.readline())
            return status, taken

        status, duration = attempt(root / "whole", None)
        assert status == 0
        draw, found, runs = random.Random(seed), 0, [root / "0"]
        while found < kills:
            if (runs[-1] / "DONE").exists():
                runs.append(root / str(len(runs)))
            status, _ = attempt(runs[-1], duration * draw.uniform(0.05, 0.75))
            assert status in (0, None)
            found += status is None
        assert attempt(runs[-1], None)[0] == 0
        process.stdin.close()
    whole = _contents(root / "whole")
    assert "DONE" in whole
    for path in runs:
        run = _contents(path)
        assert run.keys() == whole.keys()
        assert [name for name in whole if whole[name] != run[name]] == []


def test_runs_killed_at_random_moments_end_in_equal_bytes(tmp_path: Path) -> None:
    _killed(tmp_path, seed=0, kills=3)


@pytest.mark.soak
def test_runs_killed_twenty_times_end_in_equal_bytes(tmp_path: Path) -> None:
    _killed(tmp_path, seed=1, kills=20)
