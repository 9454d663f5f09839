"""Absorption: a class told by a stranger where its own latents are silent (Chanin et al. 2024, arXiv 2409.14507)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.types import Directions, Latents
from saes.metrics.base import Findings, evaluating
from saes.metrics.bootstrap import Interval, bootstrap
from saes.probes.base import Probe, by_example
from saes.probes.samples import Sample
from saes.probes.sparse_linear import fit_sparse

_ALIGNED, _ALIGNED_PART = 0.025, 0.1  # Cosines with the probe from which a latent can absorb: wholly, or in part.
_SHARE = 0.4  # Of the row's projection on the probe that absorbers must explain.
_TOGETHER = 3  # Latents that may absorb in part together.
_ROWS = 512


@dataclass(frozen=True)
class Absorption(Findings):
    """How far a class is absorbed; intervals are over examples.

    Args:
        rate: Share of the rows of the class in which its latents are silent and another explains it.
        fraction: Mean over these rows of the part that others explain in place of the class's own latents.
        main: The class's own latents.
        absorbers: Rows that each latent absorbed, most first.
        rows: Test rows of the class that the probe tells rightly; all else is out of count.
    """

    rate: Interval
    fraction: Interval
    main: tuple[int, ...]
    absorbers: Mapping[int, int]
    rows: int


@torch.no_grad()
def absorption(
    directions: Directions,
    sample: Sample,
    probe: Probe,
    *,
    main: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Absorption:
    """Look, in each test row of a class, for what its reconstruction takes the class from.

    A row x of the class, as the probe says too, is projected on the probe's direction p, and so is what each latent
    writes, f_j W_j. It is absorbed if no main latent fires and the latent that writes most along p writes 0.4 of the
    row's projection, at a cosine of .025 or more. In part: what up to three others, at a cosine of .1 or more, write,
    over this and what the main latents write; 0 where they write less than 0.4 of the projection, or the main latents
    all of it. These are SAEBench's rules, which replace the paper's ablations; ours is that rows are taken about the
    decoder's bias, and that decoder rows may have any length. It means something only where the main latents tell the
    class at all: see the F1 of `splitting`.

    Args:
        directions: The dictionary.
        sample: Raw rows of two classes, the second the one in question (`Sample.versus_rest`).
        probe: A probe of raw rows fitted on it (`fit_linear`).
        main: The class's own latents; by default the one that tells it best by itself, by mean difference. Those of
            `splitting` where a class may have several.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the draws.

    Raises:
        ValueError: If the sample is not of raw rows and two classes, or the probe finds none of the rows.
    """
    if len(sample.classes) != 2 or isinstance(sample.codes, Latents) or probe.inner is not None:
        raise ValueError(
            f"sample has {len(sample.classes)} classes, but absorption is of one, told by a probe of raw rows: gather "
            "without directions=, take sample.versus_rest(name), and fit_linear to it."
        )
    main = fit_sparse(sample.through(directions), 1).features.tolist() if main is None else list(main)
    test = sample.only("test")
    found = (test.labels == 1) & (probe.scores(test).argmax(dim=1) == 1)
    if not found.any():
        raise ValueError(
            "the probe finds no test row of the class, so there is nothing to absorb: is it linear at all?"
        )
    assert isinstance(test.codes, Tensor)
    with evaluating(directions):
        parts = [_absorbed(directions, rows, probe.W_dec[1], main) for rows in test.codes[found].split(_ROWS)]
    by, fraction = (torch.cat(part) for part in zip(*parts, strict=True))
    one = torch.ones(len(by), dtype=torch.float64)

    def over(values: Tensor) -> Interval:
        sums = by_example(torch.stack([values.double(), one], dim=1), test.example[found])
        return bootstrap(sums, lambda totals: totals[..., 0] / totals[..., 1], resamples=resamples, seed=seed)

    counts = torch.bincount(by[by >= 0])
    absorbers = {j: int(counts[j]) for j in counts.argsort(descending=True, stable=True).tolist() if counts[j]}
    return Absorption(over(by >= 0), over(fraction), tuple(main), absorbers, len(by))


def _absorbed(
    directions: Directions, x: Float[Tensor, "n d_in"], probe: Float[Tensor, " d_in"], main: list[int]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The latent that absorbed each row, -1 where none did; and the fraction absorbed."""
    W_dec = directions.W_dec
    x, probe = x.to(W_dec), probe.to(W_dec)
    cosine = F.normalize(W_dec, dim=1) @ probe
    latents = directions.encode(x)
    origin = directions.decode(Latents.from_dense(W_dec.new_zeros(1, directions.d_sae)))
    total = (x - origin) @ probe
    written = latents.dense() * (W_dec @ probe)
    own = latents.columns(torch.tensor(main, device=W_dec.device))
    most, top = written.max(dim=1)
    whole = (own == 0).all(dim=1) & (cosine[top] >= _ALIGNED) & (total > 0) & (most >= _SHARE * total)
    by_main = written[:, main].sum(dim=1)
    others = torch.where(cosine >= _ALIGNED_PART, written.clamp(min=0), 0.0)
    others[:, main] = 0
    by_others = others.topk(min(_TOGETHER, directions.d_sae), dim=1).values.sum(dim=1)
    missing = torch.minimum(by_others, total - by_main)
    fraction = torch.where(by_main <= 0, 1.0, missing / (missing + by_main))
    none = (total <= 0) | (by_main >= total) | (by_others < _SHARE * total)
    return torch.where(whole, top, -1).cpu(), torch.where(none, 0.0, fraction).cpu()
