import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from interp import diagnosis_sums
from interp.diagnosis import diagnose
from interp.diagnosis_rules import outliers
from interp.effective_rank import rank_me
from interp.harvesting import harvest
from interp.stores.disk import DiskStore
from interp.stores.memory import MemoryStore
from interp.types import Activations, Geometry, Site

EXAMPLES, POSITIONS, D = 250, 12, 24
N = EXAMPLES * POSITIONS
GRID = Geometry("grid", (2, 5), prefix=2)


def clean(seed: int = 0) -> Tensor:
    """Rows of a healthy site: all directions used, unequally, with a mean."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=draw) * torch.linspace(0.5, 2, D) + 0.2


def addresses() -> tuple[Tensor, Tensor]:
    return torch.arange(N) // POSITIONS, torch.arange(N) % POSITIONS


def store_of(x: Tensor, geometry: Geometry | None = None) -> MemoryStore:
    return MemoryStore(Activations(x, *addresses()), site="blocks.1", geometry=geometry)


class Planted(MemoryStore):
    """A store that gives rows a `MemoryStore` refuses."""

    def span(self, start: int, stop: int) -> Activations:
        found = super().span(start, stop)
        values = found.values.clone()
        values[found.example == 3] = float("nan")
        return Activations(values, found.example, found.position)


def _first(x: Tensor, factor: float) -> None:
    x[addresses()[1] == 0] *= factor


DEFECTS: dict[str, tuple[str, str, Callable[[Tensor], object]]] = {
    "a mean": ("mean", "note", lambda x: x.add_(3)),
    "a far mean": ("mean", "warning", lambda x: x.add_(100)),
    "a large dimension": ("dimensions", "warning", lambda x: x[:, 5].mul_(40)),
    "constant dimensions": ("constant dimensions", "note", lambda x: x[:, 3:5].fill_(0.3)),
    "mostly constant": ("constant dimensions", "warning", lambda x: x[:, :13].fill_(0.3)),
    "a long position": ("positions", "note", lambda x: _first(x, 3)),
    "a sink": ("positions", "warning", lambda x: _first(x, 50)),
    "long rows": ("norms", "warning", lambda x: x[100:110].mul_(100)),
    "one long row": ("norms", "note", lambda x: x[100].mul_(15)),
    "few directions": ("rank", "note", lambda x: x.copy_(x[:, :3] @ x[:3] + 0.01 * x)),
    "one direction": ("rank", "warning", lambda x: x.copy_(x[:, :1] @ x[:1])),
    "some copies": ("copies", "note", lambda x: x[:100].copy_(x[100:200])),
    "many copies": ("copies", "warning", lambda x: x[:1000].copy_(x[1000:2000])),
    "a zero row": ("constant rows", "note", lambda x: x[7].zero_()),
    "constant rows": ("constant rows", "warning", lambda x: x[:100].copy_(x[:100, :1].expand(-1, D))),
    "a ReLU": ("zeros", "note", lambda x: x.relu_()),
}


def test_a_clean_store_is_clean() -> None:
    found = diagnose(store_of(clean()))
    assert {finding.severity for finding in found.findings} == {"ok"}
    assert not found.warnings
    assert all(not finding.advice for finding in found.findings)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: str) -> None:
    name, severity, plant = DEFECTS[defect]
    x = clean()
    plant(x)
    finding = diagnose(store_of(x))[name]
    assert finding.severity == severity
    assert finding.advice
    worse = finding.value < finding.limit if name == "rank" else finding.value > finding.limit
    assert worse


def test_rows_that_are_not_finite_are_counted_and_left_out() -> None:
    found = diagnose(Planted(Activations(clean(), *addresses())))
    assert (found["nonfinite"].severity, found["nonfinite"].value) == ("warning", POSITIONS)
    assert found.measured.rows == N - POSITIONS
    kept = addresses()[0] != 3
    torch.testing.assert_close(found.measured.mean, clean()[kept].double().mean(0))


@pytest.mark.parametrize(("rows", "severity"), [(10, "warning"), (200, "note"), (300, "ok")])
def test_few_rows_say_little(rows: int, severity: str) -> None:
    assert diagnose(store_of(clean()), rows=rows)["rows"].severity == severity


def test_prefix_tokens_are_named() -> None:
    assert diagnose(store_of(clean()))["prefix"].severity == "ok"
    found = diagnose(store_of(clean(), GRID))["prefix"]
    assert (found.severity, found.value) == ("note", pytest.approx(2 / POSITIONS))


@pytest.mark.parametrize(
    ("sinks", "geometry", "advice"),
    [([0], None, "first='drop'"), ([0, 1], GRID, "exclude=('prefix',)"), ([0, 7], GRID, "max_norm_ratio=5")],
)
def test_the_way_out_of_a_sink_depends_on_where_it_is(sinks: list[int], geometry: Geometry | None, advice: str) -> None:
    x = clean()
    x[torch.isin(addresses()[1], torch.tensor(sinks))] *= 50
    found = diagnose(store_of(x, geometry))["positions"]
    assert f"rows at position{'s' if len(sinks) > 1 else ''} {', '.join(map(str, sinks))} are up to" in found.says
    assert advice in found.advice
    assert found.value == pytest.approx(50, rel=0.1)


def test_a_sink_is_told_apart_from_what_is_merely_long() -> None:
    x, position = clean(), addresses()[1]
    x[position == 0] *= 50
    x[position == 1] *= 3
    found = diagnose(store_of(x))["positions"]
    assert found.says.startswith("rows at position 0 are up to")
    assert "first='drop'" in found.advice


def test_a_position_of_few_rows_is_not_judged() -> None:
    (example, position), x = addresses(), clean()
    position[-3:] += 10
    x[-3:] *= 6
    found = diagnose(MemoryStore(Activations(x, example, position)))
    assert (found["positions"].severity, found["norms"].severity) == ("ok", "ok")


def test_rows_of_zero_do_not_make_the_others_long() -> None:
    x = clean()
    x[torch.arange(N) % 3 > 0] = 0
    found = diagnose(store_of(x))
    assert (found["positions"].severity, found["norms"].severity) == ("ok", "ok")
    assert found["constant rows"].severity == "warning"


def test_measurements_are_those_of_the_rows() -> None:
    """Against all rows at once."""
    x = clean()
    x[:, 2], x[40], x[77, :3] = 0, 0, -0.0
    x[100:150] = x[200]
    found = diagnose(store_of(x), batch_size=97).measured
    wide = x.double()
    torch.testing.assert_close(found.mean, wide.mean(0))
    torch.testing.assert_close(found.std, wide.std(0, correction=0))
    assert torch.equal(found.low, wide.amin(0))
    assert torch.equal(found.high, wide.amax(0))
    assert found.spread == pytest.approx(float((wide - wide.mean(0)).square().sum(1).mean().sqrt()))
    assert found.constant.tolist() == [2]
    torch.testing.assert_close(found.spectrum, torch.linalg.svdvals(wide) / N**0.5, rtol=1e-6, atol=1e-7)
    centred = torch.linalg.svdvals(wide - wide.mean(0)) / N**0.5
    torch.testing.assert_close(found.centred_spectrum, centred, rtol=1e-6, atol=1e-7)
    assert found.zeros == pytest.approx(float((x == 0).double().mean()))
    assert (found.zero_rows, found.constant_rows) == (1, 1)
    times = Counter(row.numpy().tobytes() for row in x)
    assert found.copies == pytest.approx(sum(t - 1 for t in times.values()) / N)
    assert found.most_copied == max(times.values()) == 51


def test_norms_are_those_of_the_rows() -> None:
    x = clean() * torch.linspace(1, 4, N)[:, None]
    norms, (example, position) = x.double().norm(dim=1), addresses()
    found = diagnose(store_of(x), batch_size=97).measured.norms
    width = 2 ** (1 / 16)
    assert found.median == pytest.approx(float(norms.median()), rel=width - 1)
    for q in (0.1, 0.5, 0.9):
        exact = torch.stack([norms[position == p].quantile(q, interpolation="lower") for p in range(POSITIONS)])
        assert (found.quantile(q) / exact).log().abs().max() < torch.tensor(width).log()
    assert found.rows.tolist() == [EXAMPLES] * POSITIONS
    n, share = found.above(20.0)
    assert n <= int((norms > 20).sum()) <= n + int(((norms > 20) & (norms < 20 * width)).sum())
    assert share == pytest.approx(float(norms[norms > 20 * width].square().sum() / norms.square().sum()), abs=0.03)
    top = norms.argsort(descending=True)[:8]
    assert torch.equal(found.largest, norms[top])
    assert torch.equal(found.example, example[top])
    assert torch.equal(found.position, position[top])


def test_outlier_dimensions_are_named_largest_first() -> None:
    x = clean()
    x[:, 9] *= 10
    x[:, 5] *= 40
    found = diagnose(store_of(x))
    assert outliers(found.measured).tolist() == [5, 9]
    assert "2 of 24 dimensions vary over 5 times as much as the median one (5, 9)" in found["dimensions"].says
    variance = x.double().var(0, correction=0)
    assert found["dimensions"].value == pytest.approx(float(variance[[5, 9]].sum() / variance.sum()))


def test_memory_disk_and_batch_size_say_the_same(tiny_text, sentences, tmp_path: Path) -> None:
    options = {"dtype": "float32", "rows_per_shard": 150}
    disk = harvest(tiny_text, sentences(60), "blocks.1", tmp_path / "store", **options)[Site("blocks.1")]
    assert isinstance(disk, DiskStore)
    memory = MemoryStore(disk.span(0, len(disk)), site="blocks.1")
    expected = diagnose(memory).to_json() | {"store": disk.fingerprint}
    assert diagnose(disk).to_json() == expected
    assert diagnose(disk, batch_size=13).to_json() == expected
    everything = diagnose(disk, rows=10 * len(disk)).to_json()  # In another order.
    assert everything | {"longest": expected["longest"], "sampled": False} == expected


class Endless:
    """A stream: rows made while they are read, of no known length."""

    site, d_in, geometry, items, fingerprint, provenance = Site("stream"), D, Geometry(), (), "f", {}

    def __init__(self) -> None:
        self.given = 0

    def __len__(self) -> int:
        raise ValueError("a stream has no length")

    def batches(self, size: int, *, seed: int | None, start_step: int = 0, epochs: int | None = None) -> Iterator:
        assert seed is not None
        while True:
            draw = torch.Generator().manual_seed(self.given)
            self.given += size
            yield Activations(torch.randn(size, D, generator=draw), torch.arange(size), torch.arange(size) % 32)

    def example(self, index: int) -> Activations:
        raise NotImplementedError


def test_a_sample_is_the_first_shuffled_rows_of_any_store() -> None:
    found, store = diagnose(store_of(clean()), rows=700, batch_size=300), store_of(clean())
    first = torch.cat([batch.values for _, batch in zip(range(3), store.batches(300, seed=0), strict=False)])[:700]
    torch.testing.assert_close(found.measured.mean, first.double().mean(0))
    assert str(found).endswith("700 rows, a shuffled sample, at blocks.1")
    stream = Endless()
    assert diagnose(stream, rows=5000).measured.rows == 5000
    assert stream.given == 3 * 2048  # No more than needed.
    with pytest.raises(ValueError, match="a stream has no length"):
        diagnose(stream)


def _held(rows: int) -> int:
    """Bytes that a pass holds on to."""
    sums, source = diagnosis_sums.Sums(D, rows), Endless().batches(1000, seed=0)
    for _ in range(rows // 1000):
        sums.add(next(source))
    parts = [*vars(sums).values(), *vars(sums._norms).values(), *sums._hashes]
    return sum(part.nbytes for part in parts if hasattr(part, "nbytes"))


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis_sums, "MOST_HASHES", 1000)
    few, many = _held(4000), _held(40_000)
    assert many == pytest.approx(few, rel=0.01)


def test_where_not_all_hashes_are_kept_copies_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clean()
    x[: N // 2] = x[N // 2 :]
    monkeypatch.setattr(diagnosis_sums, "MOST_HASHES", 800)
    found = diagnose(store_of(x)).measured
    assert found.copies == pytest.approx(0.5)  # A row and its copy are both kept, or neither.
    assert found.most_copied == 2
    assert diagnose(store_of(x), rows=10**15).measured.copies == pytest.approx(0.5)  # more than there are


def test_what_was_found_is_plain_and_printed(tmp_path: Path) -> None:
    x = clean()
    _first(x, 50)
    found = diagnose(store_of(x))
    plain = found.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["rank_me"]["centred"] == pytest.approx(rank_me(found.measured.centred_spectrum), rel=1e-5)
    assert plain["positions"]["position"] == list(range(POSITIONS))
    assert plain["positions"]["norm_q50"][0] > 20 * plain["positions"]["norm_q50"][1]
    assert plain["longest"][0]["position"] == 0
    lines = str(found).splitlines()
    assert [finding.name for finding in found.warnings] == ["positions", "norms"]
    (line,) = (i for i, text in enumerate(lines) if text.startswith("warning") and "positions" in text)
    assert lines[line + 1].strip() == f"-> {found['positions'].advice}"
    assert sum("->" not in text for text in lines) == 2 + len(found.findings)


def test_rows_that_are_all_zero_are_survived() -> None:
    found = diagnose(store_of(torch.zeros(N, D)))
    json.dumps(found.to_json(), allow_nan=False)
    assert {"constant dimensions", "rank", "copies", "constant rows"} <= {f.name for f in found.warnings}
    assert {found[name].severity for name in ("positions", "norms", "mean")} == {"ok"}
    assert "inf" not in diagnose(store_of(torch.ones(N, D)))["mean"].advice


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="rows is 0, but at least one row is read"):
        diagnose(store_of(clean()), rows=0)
    with pytest.raises(ValueError, match="batch_size is 0, but at least one row is read"):
        diagnose(store_of(clean()), batch_size=0)
    nothing = Planted(Activations(clean()[:5], torch.full((5,), 3), torch.arange(5)))
    with pytest.raises(ValueError, match=r"holds no finite row \(5 with NaN or infinity\)"):
        diagnose(nothing)
