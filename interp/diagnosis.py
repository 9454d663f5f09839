"""What a store holds, and what will go wrong with it, before training."""

import contextlib
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from interp.diagnosis_rules import findings
from interp.diagnosis_sums import Measurements, Sums
from interp.effective_rank import rank_me
from interp.findings import Finding
from interp.progress import Progress
from interp.types import JSON, ActivationStore, Geometry


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `diagnosis["norms"]` is a `Finding`, `print(diagnosis)` a table.

    Args:
        findings: What was looked at, in a fixed order.
        measured: The numbers behind it.
        site: Where the rows were read.
        geometry: How positions are laid out.
        store: Fingerprint of the store.
        sampled: Whether the rows are a shuffled sample of the store's.
    """

    findings: tuple[Finding, ...]
    measured: Measurements
    site: str
    geometry: Geometry
    store: str
    sampled: bool

    def __getitem__(self, name: str) -> Finding:
        return {finding.name: finding for finding in self.findings}[name]

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What training will suffer from."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def to_json(self) -> JSON:
        """Plain values, to six digits: findings, and what was measured by dimension and by position."""
        s = self.measured
        places = s.norms.rows.nonzero().flatten()
        positions = {f"norm_q{q}": s.norms.quantile(q / 100)[places] for q in (10, 50, 90)}
        longest = zip(s.norms.largest, s.norms.example, s.norms.position, strict=True)
        return {
            "site": self.site,
            "store": self.store,
            "rows": s.rows,
            "sampled": self.sampled,
            "d_in": s.d_in,
            "findings": [asdict(f) | {"value": _plain(f.value), "limit": _plain(f.limit)} for f in self.findings],
            "rank_me": {"centred": _plain(rank_me(s.centred_spectrum)), "raw": _plain(rank_me(s.spectrum))},
            "dimensions": {name: _column(getattr(s, name)) for name in ("mean", "std", "low", "high")},
            "spectrum": {"centred": _column(s.centred_spectrum), "raw": _column(s.spectrum)},
            "positions": {"position": places.tolist(), "rows": s.norms.rows[places].tolist()}
            | {name: _column(column) for name, column in positions.items()},
            "longest": [{"norm": _plain(float(x)), "example": int(e), "position": int(p)} for x, e, p in longest],
        }

    def __str__(self) -> str:
        rows = [("", "", "value", "limit", "")]
        for f in self.findings:
            rows.append((f.severity, f.name, f"{f.value:.3g}", f"{f.limit:g}", f.says))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = []
        for row, advice in zip(rows, ["", *(f.advice for f in self.findings)], strict=True):
            cells = [cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)]
            lines.append("  ".join(cells).rstrip())
            if advice:
                lines.append(f"{'':{sum(widths) + 8}}-> {advice}")
        read = f"{self.measured.rows:,} rows{', a shuffled sample,' if self.sampled else ''} at {self.site}"
        return "\n".join([*lines, read])


def diagnose(
    store: ActivationStore, *, rows: int | None = None, batch_size: int = 2048, progress: bool = True
) -> Diagnosis:
    """Look at a store before training on it, in one pass.

    Memory holds a few matrices of the store's width, a histogram a position and at most 16 MB of hashes, however many
    rows there are. Sums are in float64.

    Args:
        store: The activations.
        rows: Read a shuffled sample of at most this many rows; None for all, in stored order.
        batch_size: Rows at a time; it changes no value beyond rounding.
        progress: Show a bar on a terminal.

    Raises:
        ValueError: If a number is not positive, or the store holds no finite row.
    """
    for name, number in (("rows", rows), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, but at least one row is read: give a positive number.")
    left = len(store) if rows is None else rows
    with contextlib.suppress(ValueError):  # a stream knows its length only once it was read
        left = min(left, len(store))
    sums = Sums(store.d_in, left)
    with Progress("diagnosing", total=left, unit="row", shown=progress) as bar, torch.no_grad():
        for batch in store.batches(batch_size, seed=None if rows is None else 0, epochs=1):
            sums.add(batch[:left])
            bar.update(min(len(batch), left))
            left -= len(batch)
            if left <= 0:
                break
    measured = sums.measured()
    found = findings(measured, store.geometry)
    return Diagnosis(found, measured, str(store.site), store.geometry, store.fingerprint, rows is not None)


def _column(values: Tensor) -> list[float | None]:
    return [_plain(value) for value in values.tolist()]


def _plain(value: float) -> float | None:
    """Six digits; what is not finite is None, as JSON has no name for it."""
    return float(f"{value:.6g}") if value - value == 0 else None
