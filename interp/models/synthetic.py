"""A world whose features are known: sparse sums of unit directions, the ground truth that dictionaries are judged on.

The defaults are the world of our quality numbers; firing by Zipf's law and |N(1, s)| magnitudes as in the synthetic
benchmarks of the field.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.stores.memory import MemoryStore
from interp.stores.shuffling import counter_key
from interp.types import JSON, Activations, Latents

_BLOCK = 4096  # Rows made by one generator; changing it changes every row.
_FEATURES, _ROWS, _ORIGIN, _TOPICS = 0, 1, 2, 3
_TOPIC = 16  # Features that share a topic.


class SyntheticWorld:
    """Rows that are sums of firing features, plus noise; the features fire independently unless told otherwise.

    Row i is a function of (seed, i): any span can be made again, on its own, bit for bit. Whatever makes features
    depend on each other, each fires as often as `probabilities` says.

    Args:
        n_features: Number of true features.
        d_in: Width of the rows.
        zipf: The feature of rank r fires in proportion to `r ** -zipf`; 0 for all alike.
        mean_l0: Features that fire in a row, on average.
        magnitude_std: Spread of the magnitudes |N(1, s)| of a firing feature.
        noise: Standard deviation of the Gaussian noise on each coordinate.
        children_of: Children of some features. A child fires only where its parent does, has a higher number than it,
            and no second parent. Its magnitude is its own.
        correlation: Correlation, in [0, 1), of the Gaussians behind the firing of two features of one topic (a Gaussian
            copula). Topics are 16 features that share a remainder, so each has frequent and rare ones; children belong
            to none.
        offset: Length of a constant vector, of random direction, that is added to every row.
        seed: Names the world, its directions and its rows.

    Raises:
        ValueError: If `mean_l0` is not between 0 and `n_features`, a size is not positive, or `children_of`,
            `correlation` or `offset` is out of its range.
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
        children_of: Mapping[int, Sequence[int]] | None = None,
        correlation: float = 0.0,
        offset: float = 0.0,
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
        if not 0 <= correlation < 1 or not 0 <= offset < float("inf"):
            raise ValueError(
                f"correlation is {correlation} and offset {offset}, but they are in [0, 1) and not negative: give such."
            )
        self.n_features, self.d_in, self.seed = n_features, d_in, seed
        self.zipf, self.mean_l0, self.magnitude_std, self.noise = zipf, mean_l0, magnitude_std, noise
        self.correlation, self.offset = correlation, offset
        self.children_of = {parent: list(children) for parent, children in (children_of or {}).items()}
        self.parents: Int[Tensor, " n_features"] = _parents(n_features, self.children_of)
        directions = torch.randn(n_features, d_in, generator=_generator(seed, _FEATURES, 0))
        self.features: Float[Tensor, "n_features d_in"] = directions / directions.norm(dim=1, keepdim=True)
        self.probabilities: Float[Tensor, " n_features"] = _firing(n_features, zipf, mean_l0)
        origin = torch.randn(d_in, generator=_generator(seed, _ORIGIN, 0))
        self.origin: Float[Tensor, " d_in"] = origin * (offset / origin.norm())

    @property
    def provenance(self) -> JSON:
        """What the rows are a function of."""
        names = ("n_features", "d_in", "zipf", "mean_l0", "magnitude_std", "noise", "correlation", "offset", "seed")
        made = {name: getattr(self, name) for name in names}
        made["children_of"] = {str(parent): children for parent, children in self.children_of.items()}
        return {"source": "interp.models.synthetic.SyntheticWorld", **made}

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
        fires = self._fires(torch.rand(_BLOCK, self.n_features, generator=generator), block)
        codes = torch.zeros(_BLOCK, self.n_features)
        magnitudes = torch.randn(int(fires.sum()), generator=generator)
        codes[fires] = magnitudes.mul_(self.magnitude_std).add_(1).abs_()
        noise = torch.randn(_BLOCK, self.d_in, generator=generator)
        values = torch.addmm(noise.mul_(self.noise), codes, self.features)
        return (values + self.origin if self.offset else values), codes

    def _fires(self, draws: Float[Tensor, "c n_features"], block: int) -> Bool[Tensor, "c n_features"]:
        """Which features fire, from a uniform number for each."""
        if self.correlation:
            topics = -(-self.n_features // _TOPIC)
            shared = torch.randn(len(draws), topics, generator=_generator(self.seed, _TOPICS, block)).double()
            topic = torch.arange(self.n_features) % topics
            own = torch.special.ndtri(draws.double())
            mixed = self.correlation**0.5 * shared[:, topic] + (1 - self.correlation) ** 0.5 * own
            draws = torch.where(self.parents < 0, torch.special.ndtr(mixed), draws.double())
        fires = draws < self.probabilities
        for child in (self.parents >= 0).nonzero().flatten().tolist():  # Parents come first: their numbers are lower.
            parent = int(self.parents[child])
            # A child that fires with p_child / p_parent where its parent does fires with p_child overall.
            often = self.probabilities[child] / self.probabilities[parent]
            fires[:, child] = fires[:, parent] & (draws[:, child] < often)
        return fires


def _parents(n_features: int, children_of: Mapping[int, Sequence[int]]) -> Int[Tensor, " n_features"]:
    """The parent of each feature, -1 where it has none."""
    parents = torch.full((n_features,), -1)
    for parent, children in children_of.items():
        for child in children:
            if not 0 <= parent < child < n_features or parents[child] >= 0:
                raise ValueError(
                    f"children_of gives {parent} the child {child}, but a child's number is above its parent's, below "
                    f"n_features={n_features}, and given once: frequent features come first, so parents do too."
                )
            parents[child] = parent
    return parents


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
