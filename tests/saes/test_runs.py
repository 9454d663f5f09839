import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import saes
from interp import durability
from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes import checkpoints
from saes.batch_topk import BatchTopK
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer


class StoppedError(Exception):
    pass


class Stopping(MemoryStore):
    """A store that stops the run before a step."""

    before: int | None = None

    def batches(
        self, size: int, *, seed: int | None, start_step: int = 0, epochs: int | None = None
    ) -> Iterator[Activations]:
        for step, batch in enumerate(
            super().batches(size, seed=seed, start_step=start_step, epochs=epochs), start_step
        ):
            if size == 32 and step == self.before:
                raise StoppedError
            yield batch


@pytest.fixture
def data(rows) -> Stopping:
    return Stopping.from_values(rows(300), site="blocks.2")


CONFIG = {"tokens": 12 * 32, "batch_size": 32, "checkpoint_every": 3, "log_every": 1, "dead_tokens": 64}


def _trainer(store: MemoryStore, run: Path, *, jobs: int = 3, **changed) -> Trainer:
    options = {name: changed.pop(name) for name in ("resume", "overwrite", "exact") if name in changed}
    # A name that begins like another job's.
    made = [Job(TopK(d_in=6, d_sae=16, k=2), name="a"), Job(BatchTopK(d_in=6, d_sae=16, k=2), name="a.sae")]
    made = [*made, Job(ReLU(d_in=6, d_sae=16))][:jobs]
    return Trainer(made, TrainConfig(**(CONFIG | changed)), store, run=run, progress=False, **options)


# The shortest run that does everything a run does.
FEW = {"jobs": 1, "tokens": 3 * 32, "checkpoint_every": 2, "keep_checkpoints": 1, "log_every": 2}


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _stopped(store: Stopping, run: Path, before: int, **options) -> None:
    store.before = before
    with pytest.raises(StoppedError):
        _trainer(store, run, **options).run()
    store.before = None


def test_a_run_holds_what_was_asked_seen_and_found(data: Stopping, tmp_path) -> None:
    trained = _trainer(data, tmp_path / "run").run()
    folder = tmp_path / "run"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        *("DONE", "checkpoints/step-12/state.json", "checkpoints/step-12/tensors.safetensors"),
        *("checkpoints/step-9/state.json", "checkpoints/step-9/tensors.safetensors", "data.json", "env.json"),
        *("metrics.jsonl", "run.yaml", "saes/a.sae.safetensors", "saes/a.safetensors", "saes/relu.safetensors"),
    ]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [(line["step"], line["job"]) for line in lines[:4]] == [(1, "a"), (1, "a.sae"), (1, "relu"), (2, "a")]
    assert len(lines) == 36
    assert json.loads((folder / "run.yaml").read_text())["config"]["tokens"] == 384
    assert json.loads((folder / "data.json").read_text())["fingerprint"] == data.fingerprint
    for name, sae in zip(("a", "a.sae", "relu"), trained, strict=True):
        loaded = saes.load(folder / "saes" / f"{name}.safetensors")
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in sae.state_dict().items())
        assert loaded.provenance == sae.provenance


def test_equal_runs_are_equal_bytes(data: Stopping, tmp_path) -> None:
    _trainer(data, tmp_path / "one").run()
    _trainer(data, tmp_path / "two").run()
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


@pytest.mark.parametrize("before", [0, 1, 3, 4, 11])
def test_a_resumed_run_is_equal_to_one_never_stopped(before: int, data: Stopping, tmp_path) -> None:
    whole = _trainer(data, tmp_path / "whole")
    whole.run()
    _stopped(data, tmp_path / "parts", before)
    resumed = _trainer(data, tmp_path / "parts", resume=True)
    assert resumed.steps == before // 3 * 3
    resumed.run()
    assert _contents(tmp_path / "parts") == _contents(tmp_path / "whole")
    for ours, theirs, a, b in zip(resumed.jobs, whole.jobs, resumed.states, whole.states, strict=True):
        assert ours.sae.W_enc.stride() == theirs.sae.W_enc.stride()
        assert all(torch.equal(x, y) for x, y in zip(ours.sae.parameters(), theirs.sae.parameters(), strict=True))
        assert torch.equal(a.silent, b.silent)
        assert torch.equal(a.density, b.density)


def test_a_run_that_is_done_stays_the_same_when_resumed(data: Stopping, tmp_path) -> None:
    _trainer(data, tmp_path / "run").run()
    before = _contents(tmp_path / "run")
    _trainer(data, tmp_path / "run", resume=True).run()
    assert _contents(tmp_path / "run") == before


def test_only_the_newest_checkpoints_are_kept(data: Stopping, tmp_path) -> None:
    for keep, names in ((1, ["step-12"]), (3, ["step-12", "step-6", "step-9"])):
        run = tmp_path / str(keep)
        _trainer(data, run, keep_checkpoints=keep).run()
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == names
    _trainer(data, tmp_path / "last", checkpoint_every=None).run()
    assert [p.name for p in (tmp_path / "last/checkpoints").iterdir()] == ["step-12"]


def test_a_kill_between_a_checkpoint_and_the_end_of_its_housekeeping(data: Stopping, tmp_path, monkeypatch) -> None:
    _trainer(data, tmp_path / "whole", keep_checkpoints=1).run()

    def killed(folder: Path) -> None:
        raise StoppedError

    monkeypatch.setattr(checkpoints, "remove", killed)
    for resume in (False, True, True):  # Each gets one checkpoint further, the last one to the end.
        with pytest.raises(StoppedError):
            _trainer(data, tmp_path / "parts", keep_checkpoints=1, resume=resume).run()
    monkeypatch.undo()
    (tmp_path / "parts/checkpoints/step-3.partial").mkdir()
    (tmp_path / "parts/run.yaml.partial").touch()
    _trainer(data, tmp_path / "parts", keep_checkpoints=1, resume=True).run()
    assert _contents(tmp_path / "parts") == _contents(tmp_path / "whole")


# Refusals ---------------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused(data: Stopping, tmp_path) -> None:
    _trainer(data, tmp_path / "run").run()
    before = _contents(tmp_path / "run")
    with pytest.raises(ValueError, match="but a run is there already: use resume, overwrite or another folder"):
        _trainer(data, tmp_path / "run")
    assert _contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 7}, r"needs the same jobs and configuration, but config\.seed was 0 and is 7.* overwrite"),
        ({"tokens": 24 * 32}, r"config\.tokens was 384 and is 768"),
        ({"betas": (0.9, 0.999)}, r"config\.betas was \[0\.7, 0\.99\] and is \[0\.9, 0\.999\]"),
        ({"jobs": 2}, r"jobs was .* and is "),
    ],
)
def test_resuming_with_another_configuration_is_refused(changed: dict, message: str, data: Stopping, tmp_path) -> None:
    _stopped(data, tmp_path / "run", 4)
    before = _contents(tmp_path / "run")
    with pytest.raises(ValueError, match=rf"run cannot be resumed: .*{message}"):
        _trainer(data, tmp_path / "run", resume=True, **changed)
    assert _contents(tmp_path / "run") == before


def test_an_option_that_the_run_does_not_know_is_one_left_out(data, tmp_path) -> None:
    _stopped(data, tmp_path / "run", 4)
    asked = json.loads((tmp_path / "run" / "run.yaml").read_text())
    assert asked["config"].pop("stack", "gone") is None
    (tmp_path / "run" / "run.yaml").write_text(json.dumps(asked))
    with pytest.raises(ValueError, match="but config.stack was None and is False"):
        _trainer(data, tmp_path / "run", resume=True, stack=False)
    assert _trainer(data, tmp_path / "run", resume=True).steps == 3


def test_resuming_with_other_data_is_refused(data: Stopping, rows, tmp_path) -> None:
    _stopped(data, tmp_path / "run", 4)
    with pytest.raises(ValueError, match="needs the same data, but fingerprint was .* and is "):
        _trainer(MemoryStore.from_values(rows(300, seed=1), site="blocks.2"), tmp_path / "run", resume=True)


def test_resuming_with_other_threads_is_refused_unless_inexact(data: Stopping, tmp_path, monkeypatch) -> None:
    _stopped(data, tmp_path / "run", 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 96)
    with pytest.raises(ValueError, match=r"threads was \d+ and is 96.* pass exact=False \(--inexact\) to go on"):
        _trainer(data, tmp_path / "run", resume=True)
    _trainer(data, tmp_path / "run", resume=True, exact=False).run()
    assert (tmp_path / "run/DONE").exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_is_no_run_is_left_alone(overwrite: bool, data: Stopping, tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="the files there are not a run's: nothing is removed; choose another folder"):
        _trainer(data, tmp_path, overwrite=overwrite)
    assert _contents(tmp_path) == {"metrics.jsonl": b"mine"}


def test_overwriting_leaves_nothing_of_the_old_run(data: Stopping, tmp_path) -> None:
    _trainer(data, tmp_path / "new").run()
    _trainer(data, tmp_path / "run", seed=5, tokens=20 * 32, keep_checkpoints=5).run()
    (tmp_path / "run/notes.txt").write_text("mine")
    _trainer(data, tmp_path / "run", overwrite=True).run()
    assert _contents(tmp_path / "run") == _contents(tmp_path / "new") | {"notes.txt": b"mine"}


def test_overwriting_can_be_killed_anywhere(data: Stopping, tmp_path, monkeypatch) -> None:
    """After each removal, what is left is refused without a word, or resumed, or overwritten: never mixed."""
    _trainer(data, tmp_path / "new", **FEW).run()
    options = FEW | {"seed": 5, "keep_checkpoints": 5}
    _trainer(data, tmp_path / "old", **options).run()
    for moment in range(100):
        run, left = tmp_path / str(moment), [moment]
        shutil.copytree(tmp_path / "old", run)

        def counted(real, left=left):
            def call(*args, **kwargs):
                if left[0] == 0:
                    raise StoppedError
                left[0] -= 1
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patched:
            for name in ("unlink", "rename", "rmdir"):
                patched.setattr(Path, name, counted(getattr(Path, name)))
            for name in ("unlink", "rmdir"):  # What rmtree calls.
                patched.setattr(checkpoints.shutil.os, name, counted(getattr(checkpoints.shutil.os, name)))
            try:
                _trainer(data, run, overwrite=True, **FEW)
            except StoppedError:
                pass
            else:
                break
        if (run / "run.yaml").exists() and b'"seed": 5' in (run / "run.yaml").read_bytes():
            _trainer(data, run, **options, resume=True).run()
            assert _contents(run) == _contents(tmp_path / "old")
        _trainer(data, run, overwrite=True, **FEW).run()
        assert _contents(run) == _contents(tmp_path / "new")
    assert 10 < moment < 99


def test_damaged_checkpoints_are_named(data: Stopping, tmp_path) -> None:
    _stopped(data, tmp_path / "run", 7)
    newest = tmp_path / "run/checkpoints/step-6"
    tensors, state = newest / "tensors.safetensors", newest / "state.json"
    good = tensors.read_bytes(), state.read_bytes()
    about = json.loads(good[1])
    for path, content in (
        (tensors, good[0][:-10]),
        (tensors, b""),
        (state, b"{"),
        (state, json.dumps(about | {"version": 9}).encode()),
        (state, json.dumps(about | {"jobs": {}}).encode()),
        (state, json.dumps(about | {"jobs": {"a": {"nonsense": 1}}}).encode()),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"step-6 cannot be resumed from \(.*\): remove it to resume from an older"
        ):
            _trainer(data, tmp_path / "run", resume=True)
        tensors.write_bytes(good[0])
        state.write_bytes(good[1])
    checkpoints.remove(newest)
    assert _trainer(data, tmp_path / "run", resume=True).steps == 3


def test_metrics_that_were_cut_are_noticed(data: Stopping, tmp_path) -> None:
    _stopped(data, tmp_path / "run", 7)
    (tmp_path / "run/metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="the file was cut; start anew with overwrite"):
        _trainer(data, tmp_path / "run", resume=True)


# Failing disks ----------------------------------------------------------------------------------------------------


def _readable(run: Path) -> None:
    """Everything that stands under its own name is whole."""
    for path in run.rglob("*"):
        if path.suffix in (".json", ".yaml"):
            json.loads(path.read_text())
        elif path.parent.name == "saes":
            saes.load(path)
    assert not list(run.rglob(f"*{durability.TEMPORARY}"))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_fails_anywhere_costs_nothing(call: str, failing_disk, data, tmp_path) -> None:
    with failing_disk(call, 10**9, errno.EIO) as disk:
        _trainer(data, tmp_path / "whole", **FEW).run()
    expected = _contents(tmp_path / "whole")
    assert disk.calls >= 9
    for index in range(disk.calls):
        run, code = tmp_path / str(index), (errno.ENOSPC, errno.EIO)[index % 2]
        with (
            pytest.raises(
                OSError, match=r"could not write .* make room or choose another folder, .* to go on"
            ) as caught,
            failing_disk(call, index, code),
        ):
            _trainer(data, run, **FEW).run()
        assert caught.value.errno == code
        _readable(run)
        _trainer(data, run, **FEW, resume=True).run()
        assert _contents(run) == expected


def test_a_run_goes_on_from_one_failure_to_the_next(failing_disk, data, tmp_path) -> None:
    """A disk that takes three more renames each time: in the end the run is done, and the same."""
    _trainer(data, tmp_path / "whole", **FEW).run()
    for _ in range(20):
        try:
            with failing_disk("replace", 3, errno.ENOSPC):
                _trainer(data, tmp_path / "run", **FEW, resume=True).run()
        except OSError:
            _readable(tmp_path / "run")
        else:
            break
    assert _contents(tmp_path / "run") == _contents(tmp_path / "whole")


def test_metrics_are_on_the_disk_before_the_checkpoint_that_counts_them(data: Stopping, tmp_path, monkeypatch) -> None:
    order: list[str] = []

    def noted(name: str, real):
        return lambda *args, **kwargs: (order.append(name), real(*args, **kwargs))[1]

    monkeypatch.setattr(durability.AppendedFile, "sync", noted("metrics", durability.AppendedFile.sync))
    monkeypatch.setattr(checkpoints, "save", noted("checkpoint", checkpoints.save))
    _trainer(data, tmp_path / "run", **FEW).run()
    assert order == ["metrics", "checkpoint"] * 2
