"""What the measurements of a store mean: a rule each for what goes wrong, its limits, and the way out."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.diagnosis_sums import Measurements
from interp.effective_rank import rank_me
from interp.findings import Finding, above, below, listed
from interp.types import Geometry

OUTLIER = 5.0
"""A dimension is an outlier from this many median standard deviations on."""
EXTREME = 10.0
"""A row is extreme from this many median norms on."""
_LONG, _SINK = 2.0, 5.0  # Times the median norm of all rows.
_ENOUGH = 8  # Rows a position needs to be judged.


def findings(measured: Measurements, geometry: Geometry) -> tuple[Finding, ...]:
    """Every rule's finding."""
    return tuple(rule(measured, geometry) for rule in _RULES)


def outliers(measured: Measurements) -> Int[Tensor, " o"]:
    """Dimensions that vary over `OUTLIER` times as much as the median one, the largest first."""
    std = measured.std
    varying = std[std > 0]
    limit = OUTLIER * float(varying.median()) if len(varying) else 0.0
    order = std.argsort(descending=True, stable=True)
    return order[std[order] > limit]


def _rows(s: Measurements, geometry: Geometry) -> Finding:
    return below(
        "rows",
        s.rows / s.d_in,
        note=10.0,
        warning=1.0,
        says=f"{s.rows:,} rows of width {s.d_in:,}",
        advice="the effective rank is that of so few rows, not of the site: read or harvest more",
    )


def _nonfinite(s: Measurements, geometry: Geometry) -> Finding:
    return above(
        "nonfinite",
        float(s.nonfinite_rows),
        warning=0.0,
        says=f"{s.nonfinite_rows:,} rows with NaN or infinity, left out here",
        advice="they stop a training run: look for the examples, run the model in a wider precision, harvest again",
    )


def _mean(s: Measurements, geometry: Geometry) -> Finding:
    squares = s.mean.square()
    size = float(squares.sum().sqrt())
    ratio = size / s.spread if s.spread else float("inf") if size else 0.0
    top = squares.argsort(descending=True)[:3]
    share = float(squares[top].sum() / squares.sum().clamp_min(1e-300))
    advice = "nothing to do for an SAE, whose b_dec starts at the mean; a PCA or a probe should take it off"
    if 30 < ratio < float("inf"):
        advice += f". bfloat16 rounds by some {2**-9 * ratio / 3**0.5:.1%} of the spread: harvest with dtype='float32'"
    says = f"the mean is {ratio:.2g} times as long as a row is far from it"
    says += f"; dimensions {listed(top)} hold {share:.0%} of it" if ratio > 1 else ""
    return above("mean", ratio, note=1.0, warning=30.0, says=says, advice=advice)


def _dimensions(s: Measurements, geometry: Geometry) -> Finding:
    found = outliers(s)
    share = float(s.std[found].square().sum()) / s.spread**2 if s.spread else 0.0
    return above(
        "dimensions",
        share,
        note=0.0,
        warning=0.3,
        says=f"{len(found)} of {s.d_in:,} dimensions vary over {OUTLIER:g} times as much as the median one"
        + (f" ({listed(found)}): {share:.0%} of the variance" if len(found) else ""),
        advice="FVU is largely theirs: judge by what the model loses too, or read a site after a layer norm",
    )


def _constant_dimensions(s: Measurements, geometry: Geometry) -> Finding:
    n = len(s.constant)
    return above(
        "constant dimensions",
        n / s.d_in,
        note=0.0,
        warning=0.5,
        says=f"{n:,} of {s.d_in:,} dimensions never change" + (f" ({listed(s.constant)})" if n else ""),
        advice="nothing can be learned there, and nothing is lost; if they should vary, look at the model and the site",
    )


def _positions(s: Measurements, geometry: Geometry) -> Finding:
    judged = s.norms.rows >= _ENOUGH if s.norms.median else torch.zeros_like(s.norms.rows, dtype=torch.bool)
    ratios = torch.where(judged, s.norms.quantile(0.5) / s.norms.median, 0.0)
    value = float(ratios.max())
    sinks = (ratios > (_SINK if value > _SINK else _LONG)).nonzero().flatten()
    says = "no position has much longer rows than the others"
    if len(sinks):
        says = (
            f"rows at position{'s' if len(sinks) > 1 else ''} {listed(sinks)} are up to {value:.3g} times as long as "
        )
        says += f"the median one, and weigh up to {value**2:.3g} times as much in the loss"
    return above("positions", value, note=_LONG, warning=_SINK, says=says, advice=_way_out_of(sinks, value, geometry))


def _way_out_of(sinks: Int[Tensor, " p"], value: float, geometry: Geometry) -> str:
    if len(sinks) and int(sinks.max()) < geometry.prefix:
        return "class and register tokens: harvest with exclude=('prefix',)"
    if value <= _SINK:
        return "nothing to do, but read their features apart from the others'"
    if sinks.tolist() == [0]:
        return "an attention sink: harvest with first='drop'"
    return "attention sinks, or places that hold no content: harvest with max_norm_ratio=5"


def _prefix(s: Measurements, geometry: Geometry) -> Finding:
    counts = s.norms.rows
    share = float(counts[: geometry.prefix].sum() / counts.sum())
    return above(
        "prefix",
        share,
        note=0.0,
        says=f"{share:.1%} of the rows are class or register tokens",
        advice="they stand for no place: harvest with exclude=('prefix',), unless you want their features",
    )


def _norms(s: Measurements, geometry: Geometry) -> Finding:
    median = s.norms.median
    n, share = s.norms.above(EXTREME * median)
    squares = float(s.mean.square().sum()) + s.spread**2
    value = min(1.0, share * squares / s.spread**2) if s.spread else 0.0
    says = f"{n:,} rows are over {EXTREME:g} times as long as the median one"
    if n:
        at = f"example {int(s.norms.example[0])}, position {int(s.norms.position[0])}"
        longest = float(s.norms.largest[0]) / median
        says += f" and carry some {value:.0%} of the squared deviation; the longest, {longest:.3g} times: {at}"
    advice = "the loss is about these few rows: look at them, or harvest with max_norm_ratio=10"
    return above("norms", value, note=0.0, warning=0.1, says=says, advice=advice)


def _rank(s: Measurements, geometry: Geometry) -> Finding:
    raw, rank = rank_me(s.spectrum), rank_me(s.centred_spectrum)
    return below(
        "rank",
        rank / s.d_in,
        note=0.25,
        warning=0.05,
        says=f"RankMe {rank:.4g} of {s.d_in:,} less the mean, {raw:.4g} as stored",
        advice=f"rows lie near few directions: keep k well below {rank:.0f}, take fewer latents, or read another site",
    )


def _copies(s: Measurements, geometry: Geometry) -> Finding:
    return above(
        "copies",
        s.copies,
        note=0.01,
        warning=0.1,
        says=f"{s.copies:.1%} of the rows repeat an earlier one bit by bit"
        + (f", the commonest {s.most_copied:,} times" if s.copies else ""),
        advice="deduplicate the dataset: they count as often in the loss, and leak into held-out rows "
        "(at an embedding, equal tokens are equal rows: read a later site)",
    )


def _constant_rows(s: Measurements, geometry: Geometry) -> Finding:
    return above(
        "constant rows",
        s.constant_rows / s.rows,
        note=0.0,
        warning=0.01,
        says=f"{s.constant_rows:,} rows have one value in all dimensions, {s.zero_rows:,} of them 0",
        advice="padding, or masked: harvest with exclude=('pad',) and look at the examples",
    )


def _zeros(s: Measurements, geometry: Geometry) -> Finding:
    return above(
        "zeros",
        s.zeros,
        note=0.1,
        says=f"{s.zeros:.1%} of the values are exactly 0",
        advice="a site after a ReLU: sparse already; its input keeps what was cut off",
    )


_RULES: Sequence[Callable[[Measurements, Geometry], Finding]] = (
    _rows,
    _nonfinite,
    _mean,
    _dimensions,
    _constant_dimensions,
    _positions,
    _prefix,
    _norms,
    _rank,
    _copies,
    _constant_rows,
    _zeros,
)
