"""Steps as graphs on a CPU: a step's operations are recorded with the tensors they were given, and run again on those.

So what a graph has for good is as it is on a GPU: addresses, numbers from the host, which operations there are.
"""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saes import states
from saes.abs_topk import AbsTopK
from saes.batch_topk import BatchTopK
from saes.engine import graphs, products, selection
from saes.penalties.aux_k import AuxK
from saes.penalties.base import Step, reconstruction
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

aten = torch.ops.aten
# What asks the host, or brings what it knows as a tensor: neither can be captured.
HOST = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.lift_fresh, aten._unique2}
# What launches nothing: memory asked for, and shapes changed in place.
NOTHING = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided}
NOTHING |= {aten.squeeze_, aten.unsqueeze_, aten.t_, aten.transpose_}
STEPS, ROWS, SKIPPED = 40, 8, (0, 13, 37, 38, 39)  # The first is a warm-up, the last is logged.
# Learning rates that float32 holds: steps with graphs and without are given the same.
CONFIG = {
    "tokens": 64 * ROWS,
    "batch_size": ROWS,
    "warmup": 8 / 64,
    "decay": 0.5,
    "log_every": 10,
    "precision": "float32",
}
CONFIG |= {"path": "sparse", "dead_tokens": 5 * ROWS, "normalise": "none"}


class Recorder(TorchDispatchMode):
    """The operations of one run of a function, which leaves all as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.made: set[int] = set()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in HOST or any(_is_mask(part) for part in args[1:2] if func is aten.index.Tensor):
            raise RuntimeError(f"{func} while capturing")
        for tensor in _tensors((args, kwargs)):
            if (place := tensor.untyped_storage().data_ptr()) not in self.made | self.before.keys():
                self.before[place] = tensor, tensor.clone()
        out = func(*args, **(kwargs or {}))
        self.made |= {t.untyped_storage().data_ptr() for t in _tensors(out)} - self.before.keys()
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            if func.overloadpacket in NOTHING:
                continue
            for old, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():  # Else a view, or written in place.
                    old.copy_(new.view_as(old))


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _is_mask(indices: list[Tensor | None]) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """A CPU that takes the ways of a GPU and has graphs: how many were captured, and replayed."""
    found: Counter[str] = Counter()

    def capture(work: Callable[[], object]) -> Callable[[], None]:
        with Recorder() as recorder:
            work()
        with torch.no_grad():
            for tensor, kept in recorder.before.values():
                tensor.copy_(kept)
        found["captured"] += 1

        def replay() -> None:
            found["replayed"] += 1
            recorder.replay()

        return replay

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "aside", lambda work: work())
    monkeypatch.setattr(graphs, "available", lambda device: True)
    monkeypatch.setitem(states.REVIEW, "cpu", 4)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    for module in (products, selection):
        monkeypatch.setattr(module, "by_row", lambda device, by_feature: not by_feature)
    return found


def _topk(seed: int = 0, **arguments) -> TopK:
    return TopK(d_in=6, d_sae=24, k=2, seed=seed, **arguments)


RUNS: dict[str, Callable[[], list[Job]]] = {
    "one": lambda: [Job(_topk(), lr=2**-7, penalties=())],
    "several": lambda: [
        Job(_topk(), lr=2**-5, name="dying"),
        Job(BatchTopK(d_in=6, d_sae=24, k=2), lr=2**-6),
        Job(AbsTopK(d_in=6, d_sae=24, k=3), lr=2**-6, penalties=()),
    ],
    "stack": lambda: [Job(_topk(s), lr=2**-5, name=str(s)) for s in range(2)],
}


def _everything(trainer: Trainer) -> list[Tensor]:
    found: list[Tensor] = []
    for job, state, optimizer in zip(trainer.jobs, trainer.states, trainer.optimizers, strict=True):
        found += [*job.sae.state_dict().values(), *(s[n] for s in optimizer.state.values() for n in sorted(s))]
        found += [value for value in vars(state).values() if isinstance(value, Tensor)] + [torch.tensor(state.steps)]
    return found


def _trained(kind: str, store, steps: int = STEPS, *, on: bool, **run) -> Trainer:
    config = TrainConfig(**CONFIG, stack=kind == "stack", graphs=on)
    trainer = Trainer(RUNS[kind](), config, store, progress=False, **run)
    for batch in store.batches(ROWS, seed=0, start_step=trainer.steps):
        if trainer.steps in SKIPPED:
            batch.values[3, 1] = torch.nan
        trainer.step(batch, log=(trainer.steps + 1) % config.log_every == 0)
        if trainer.run_folder is not None and trainer.steps == 17:
            trainer.run_folder.checkpoint(trainer)
        if trainer.steps == steps:
            return trainer
    raise AssertionError


@pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")
@pytest.mark.parametrize("kind", RUNS)
def test_steps_as_graphs_are_the_steps_to_the_bit(kind: str, store, counted) -> None:
    plain = _trained(kind, store, on=False)
    assert not counted
    found = _trained(kind, store, on=True)
    for one, other in zip(_everything(plain), _everything(found), strict=True):
        assert torch.equal(one, other)
    assert all(int(state.skipped) == len(SKIPPED) for state in found.states)
    all_but_the_first_and_those_logged = STEPS - 4 - 1
    if kind == "one":
        assert counted == {"captured": 1, "replayed": all_but_the_first_and_those_logged}
    else:  # Dead features changed.
        others = 1 if kind == "several" else 0
        assert counted["captured"] - others > 2
        assert counted["replayed"] - others * all_but_the_first_and_those_logged > STEPS / 3


@pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")
def test_a_run_of_graphs_resumes_to_the_bit(store, tmp_path) -> None:
    """Graphs are captured at other steps then."""
    whole = _trained("stack", store, 26, on=True)
    stopped = _trained("stack", store, 19, on=True, run=tmp_path / "run")
    stopped.run_folder.close()
    resumed = _trained("stack", store, 26, on=True, run=tmp_path / "run", resume=True)
    for one, other in zip(_everything(whole), _everything(resumed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")
def test_a_graph_is_dropped_and_others_taken_eagerly(store, counted) -> None:
    config = TrainConfig(**CONFIG | {"path": "auto", "dead_tokens": 10**6}, graphs=True)
    trainer = Trainer([Job(_topk(), lr=2**-7)], config, store, progress=False)
    batches = store.batches(ROWS, seed=0)

    def taken(count: int, **size: int) -> dict[str, int]:
        counted.clear()
        for _ in range(count):
            batch = next(batches)
            trainer.step(batch[: size.get("rows", ROWS)], log=False)
        return dict(counted)

    assert taken(4) == {"captured": 1, "replayed": 3}
    assert taken(1, rows=5) == {}, "another shape"
    assert taken(3) == {"replayed": 3}, "and back"
    trainer.states[0].silent[:3] = 10**7
    assert taken(4) == {"captured": 1, "replayed": 3}, "a review saw dead features"
    trainer.states[0].silent[:3] = 10**7
    assert taken(4) == {"replayed": 4}, "the same ones"
    trainer.states[0].kept.fill_(20.0)
    assert taken(4) == {}, "dense"
    trainer.states[0].kept.fill_(2.0)
    assert taken(4)["replayed"] >= 3, "sparse again"


def _signal(step: Step) -> Tensor:
    return reconstruction(step)


@pytest.mark.parametrize(
    ("job", "fixed"),
    [
        (lambda: Job(_topk()), True),
        (lambda: Job(AbsTopK(d_in=6, d_sae=24, k=3)), True),
        (lambda: Job(_topk(), penalties=(L1(),)), False),
        (lambda: Job(_topk(), signal=_signal), False),
        (lambda: Job(_topk(prefixes=[4, 24])), False),
        (lambda: Job(BatchTopK(d_in=6, d_sae=24, k=2), penalties=(AuxK(),)), False),
        (lambda: Job(ReLU(d_in=6, d_sae=24), penalties=()), False),
    ],
)
def test_only_steps_of_one_shape_that_ask_no_host_are_graphs(job, fixed: bool, store) -> None:
    assert graphs.is_fixed(job(), next(store.batches(ROWS, seed=0))) == fixed


@pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")
def test_a_step_that_cannot_be_captured_says_so(store, monkeypatch) -> None:
    class Asking(TopK):
        def activate(self, pre_acts, support):
            return pre_acts * (float(pre_acts.detach().amax()) > 0), {}

    trainer = Trainer([Job(Asking(d_in=6, d_sae=24, k=2), name="mine")], TrainConfig(**CONFIG, graphs=True), store)
    batches = store.batches(ROWS, seed=0)
    trainer.step(next(batches), log=False)
    with pytest.raises(RuntimeError, match=r"the step of 'mine' cannot be a graph \(.*\): leave graphs out"):
        trainer.step(next(batches), log=False)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_graphs_where_there_are_none_are_refused(device: str, store, monkeypatch) -> None:
    monkeypatch.undo()
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("they can")
    with pytest.raises(ValueError, match=f"graphs is True, but they need .* device is '{device}': leave graphs out"):
        Trainer([Job(_topk())], TrainConfig(graphs=True, device=device), store)
