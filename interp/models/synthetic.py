"""A world whose features are known: sparse sums of unit directions, the ground truth that dictionaries are judged on.

The defaults are the world of our quality numbers; firing by Zipf's law and |N(1, s)| magnitudes as in the synthetic
benchmarks of the field.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from interp.stores.memory import MemoryStore
from interp.stores.shuffling import counter_key
from interp.types import JSON, Activations, Latents

_BLOCK = 4096  # Rows made by one generator; changing it changes every row.
_FEATURES, _ROWS = 0, 1


class SyntheticWorld:
    """Rows that are sums of independently firing features, plus noise.

    Row i is a function of (seed, i): any span can be made again, on its own, bit for bit.

    Args:
        n_features: Number of true features.
        d_in: Width of the rows.
        zipf: The feature of rank r fires in proportion to `r ** -zipf`; 0 for all alike.
        mean_l0: Features that fire in a row, on average.
        magnitude_std: Spread of the magnitudes |N(1, s)| of a firing feature.
        noise: Standard deviation of the Gaussian noise on each coordinate.
        seed: Names the world, its directions and its rows.

    Raises:
        ValueError: If `mean_l0` is not between 0 and `n_features`, or a size is not positive.
    """

    def __init__(
        self,
        *,
        n_features: int = 256,
        d_in: int = 64,
        zipf: float = 0.8,
        mean_l0: float = 5.0,
        magnitude_std: float = 0.25,
        noise: float = 0.02,
        seed: int = 0,
    ) -> None:
        for name, size in (("n_features", n_features), ("d_in", d_in)):
            if size < 1:
                raise ValueError(f"{name} is {size}, but a world needs at least one: give a positive size.")
        if not 0 < mean_l0 <= n_features:
            raise ValueError(
                f"mean_l0 is {mean_l0}, but of {n_features} features more than 0 and at most {n_features} can fire: "
                "lower it or raise n_features."
            )
        self.n_features, self.d_in, self.seed = n_features, d_in, seed
        self.zipf, self.mean_l0, self.magnitude_std, self.noise = zipf, mean_l0, magnitude_std, noise
        directions = torch.randn(n_features, d_in, generator=_generator(seed, _FEATURES, 0))
        self.features: Float[Tensor, "n_features d_in"] = directions / directions.norm(dim=1, keepdim=True)
        self.probabilities: Float[Tensor, " n_features"] = _firing(n_features, zipf, mean_l0)

    @property
    def provenance(self) -> JSON:
        """What the rows are a function of."""
        names = ("n_features", "d_in", "zipf", "mean_l0", "magnitude_std", "noise", "seed")
        return {"source": "interp.models.synthetic.SyntheticWorld", **{name: getattr(self, name) for name in names}}

    def sample(self, n: int, *, offset: int = 0) -> tuple[Activations, Latents]:
        """Make rows and the true codes behind them.

        Args:
            n: Number of rows, each an example of its own.
            offset: First row.

        Raises:
            ValueError: If `n` is not positive or `offset` is negative.
        """
        parts = [(values, Latents.from_dense(codes)) for values, codes in self._blocks(n, offset)]
        values = torch.cat([values for values, _ in parts])
        rows = Activations(values, torch.arange(offset, offset + n), torch.zeros(n, dtype=torch.long))
        counts = torch.cat([codes.offsets.diff() for _, codes in parts])
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
        magnitudes = torch.cat([codes.values for _, codes in parts])
        indices = torch.cat([codes.indices for _, codes in parts])
        return rows, Latents(magnitudes, indices, offsets, self.n_features)

    def store(self, n: int, *, offset: int = 0) -> MemoryStore:
        """Hold rows in memory, without their codes; examples are numbered from 0.

        Args:
            n: Number of rows.
            offset: First row; spans that do not overlap are independent, so held-out rows start after the last one.

        Raises:
            ValueError: If `n` is not positive or `offset` is negative.
        """
        values = torch.empty(max(n, 0), self.d_in)
        start = 0
        for part, _ in self._blocks(n, offset):
            values[start : start + len(part)] = part
            start += len(part)
        return MemoryStore.from_values(
            values, site="synthetic", provenance={**self.provenance, "rows": [offset, offset + n]}
        )

    def _blocks(self, n: int, offset: int) -> Iterator[tuple[Float[Tensor, "c d_in"], Float[Tensor, "c n_features"]]]:
        """Values and dense codes of the rows asked for, a block of the counter at a time."""
        if n < 1 or offset < 0:
            raise ValueError(f"n is {n} and offset {offset}, but a span has at least one row and starts at 0 or later.")
        for block in range(offset // _BLOCK, (offset + n - 1) // _BLOCK + 1):
            rows = slice(max(offset - block * _BLOCK, 0), min(offset + n - block * _BLOCK, _BLOCK))
            # The whole block is made and then cut: a shorter product could round differently.
            values, codes = self._block(block)
            yield values[rows], codes[rows]

    def _block(self, block: int) -> tuple[Float[Tensor, "c d_in"], Float[Tensor, "c n_features"]]:
        generator = _generator(self.seed, _ROWS, block)
        fires = torch.rand(_BLOCK, self.n_features, generator=generator) < self.probabilities
        codes = torch.zeros(_BLOCK, self.n_features)
        magnitudes = torch.randn(int(fires.sum()), generator=generator)
        codes[fires] = magnitudes.mul_(self.magnitude_std).add_(1).abs_()
        noise = torch.randn(_BLOCK, self.d_in, generator=generator)
        return torch.addmm(noise.mul_(self.noise), codes, self.features), codes


def _firing(n_features: int, zipf: float, mean_l0: float) -> Float[Tensor, " n_features"]:
    """Probabilities in proportion to `rank ** -zipf`, none above 1, that sum to `mean_l0`."""
    weights = torch.arange(1, n_features + 1, dtype=torch.float64) ** -zipf
    certain = 0  # The first ranks reach 1 first; what they cannot take is shared by the rest.
    while certain < n_features and weights[certain] * (mean_l0 - certain) > weights[certain:].sum():
        certain += 1
    rest = weights * ((mean_l0 - certain) / weights[certain:].sum())
    rest[:certain] = 1
    return rest.float()


def _generator(seed: int, purpose: int, block: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(counter_key(seed, purpose, block)) >> 1)
