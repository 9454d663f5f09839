"""Sparse distributed codes (Rinkus and Leveille 2017, https://arxiv.org/abs/1710.07829)."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.stores.shuffling import counter_key
from interp.types import ActivationStore, Latents
from saes.baselines.base import Fitted
from saes.baselines.reading import batches
from saes.engine.choices import top_rows
from saes.engine.sparse import weighted_sums

_DRAW = 1


class SparseDistributed(Fitted):
    """A memory whose code of a row is one winner in each of several modules; rows that are alike share winners.

    Every unit has a binary weight from every channel, and a row is reduced to the set of its channels that are on. The
    support V of a unit is the share of that set from which its weight is 1. The familiarity G of a row is the largest V
    of each module, averaged over modules. To learn a row, each module draws a winner in proportion to

        mu = 1 + gain * G^power / (1 + exp(-slope * (V - centre)))

    so that a new row (G near 0) gets a random code, and one like a stored row most of that row's winners; then all
    weights from the row's channels to its winners become 1, for good. To encode without learning, the largest V wins.
    As directions, a unit is the set that it has learned: the code of a stored row decodes to the row's set.

    The paper's text was not at hand: V, G and mu are a reconstruction from descriptions of its algorithm and from code
    of others for Rinkus 2010 (https://doi.org/10.3389/fnana.2010.00017), without time, levels and decay. Our own are
    the default numbers, the reduction of real rows to sets, and that at G = 1 the largest V wins without a draw: there
    mu alone makes the right winner likely, not certain.

    Args:
        d_in: Width of the activations.
        winners: Modules, and so units in a code; the paper's Q.
        units: Units a module; the paper's K.
        active: Channels that are on at most, the largest positive ones; None for all positive ones. Sets of one size
            make familiarities comparable; the smaller they are, the more rows the memory holds.
        gain: How much mu rises at full familiarity.
        power: How late familiarity takes effect.
        slope: Steepness of mu in V.
        centre: V in the middle of mu's rise.
        seed: Names the draws. The draw for the i-th learned row is a function of (seed, i).

    Attributes:
        weights: What each unit has learned.
        learned: Rows learned.

    Raises:
        ValueError: If a size is not positive, or `active` exceeds `d_in`.
    """

    signed = False
    winners: int
    units: int
    active: int | None
    gain: float
    power: float
    slope: float
    centre: float
    seed: int
    weights: Bool[Tensor, "d_sae d_in"]
    learned: Int[Tensor, ""]

    def __init__(
        self,
        *,
        d_in: int,
        winners: int = 64,
        units: int = 16,
        active: int | None = None,
        gain: float = 1000.0,
        power: float = 3.0,
        slope: float = 12.0,
        centre: float = 0.9,
        seed: int = 0,
    ) -> None:
        for name, size, most in (("winners", winners, None), ("units", units, None), ("active", active, d_in)):
            if size is not None and not 1 <= size <= (most or size):
                raise ValueError(f"{name} is {size}, but a size is at least 1, and active at most d_in = {d_in}.")
        own = {"winners": winners, "units": units, "active": active, "seed": seed}
        curve = {"gain": gain, "power": power, "slope": slope, "centre": centre}
        super().__init__(d_in=d_in, d_sae=winners * units, **own, **curve)
        del self.arguments["d_sae"]
        self.b_dec = torch.zeros(d_in)
        self.register_buffer("weights", torch.zeros(self.d_sae, d_in, dtype=torch.bool))
        self.register_buffer("learned", torch.zeros((), dtype=torch.long))

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_in"]:  # type: ignore[override]
        """Weights over the number of winners: a code decodes to the share of its units that know each channel."""
        return self.weights.to(self.b_dec.dtype) / self.winners

    def sets(self, x: Float[Tensor, "n d_in"]) -> Bool[Tensor, "n d_in"]:
        """The channels that are on in each row."""
        on = x > 0
        if self.active is None:
            return on
        kept = torch.zeros_like(on).scatter_(1, top_rows(x, self.active)[1], True)
        return on & kept

    def familiarity(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, " n"]:
        """G of each row, in 0..1: 1 where every module has a unit that knows the whole set."""
        return self._support(self.sets(self._checked(x))).amax(dim=2).mean(dim=1)

    def codes(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """The units of largest support, the first of equal ones; rows with no channel on have no code."""
        on = self.sets(x)
        return self._latents(self._support(on).argmax(dim=2), on)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """Store rows, one after the other, and give the code of each; rows with no channel on are passed over.

        Raises:
            ValueError: If the width is another one.
        """
        on = self.sets(self._checked(x))
        winners = torch.zeros(len(x), self.winners, dtype=torch.long, device=x.device)
        for row, winner in zip(on, winners, strict=True):
            if row.any():
                winner.copy_(self._draw(self._support(row[None])[0]))
                self.weights[self._units(winner)] |= row
                self.learned += 1
        return self._latents(winners, on).without_zeros()

    @classmethod
    def fit(cls, store: ActivationStore, *, rows: int | None = 1000, seed: int = 0, **own: Any) -> "SparseDistributed":
        """Learn some rows.

        Args:
            store: Activations.
            rows: How many shuffled rows to learn; None for all, in stored order.
            seed: Names the shuffle and the draws.
            own: Further arguments of the constructor.

        Raises:
            ValueError: If a number is out of its range.
        """
        found = cls(d_in=store.d_in, seed=seed, **own)
        for x in batches(store, rows, seed=seed):
            found.learn(x)
        return found._from(store, rows=int(found.learned), seed=seed)

    def _support(self, on: Bool[Tensor, "n d_in"]) -> Float[Tensor, "n winners units"]:
        known = on.to(self.b_dec.dtype) @ self.weights.to(self.b_dec.dtype).T
        return (known / on.sum(dim=1, keepdim=True).clamp(min=1)).view(len(on), self.winners, self.units)

    def _draw(self, support: Float[Tensor, "winners units"]) -> Int[Tensor, " winners"]:
        familiarity = support.amax(dim=1).mean()
        if familiarity == 1:
            return support.argmax(dim=1)
        rise = self.gain * familiarity**self.power * torch.sigmoid(self.slope * (support - self.centre))
        generator = torch.Generator().manual_seed(int(counter_key(self.seed, _DRAW, int(self.learned))) >> 1)
        # Gumbel noise: the largest sum is a draw in proportion to mu.
        noise = -torch.empty(support.shape).exponential_(generator=generator).log()
        return (torch.log1p(rise) + noise.to(rise)).argmax(dim=1)

    def _units(self, winners: Int[Tensor, "*n winners"]) -> Int[Tensor, "*n winners"]:
        return winners + torch.arange(self.winners, device=winners.device) * self.units

    def _latents(self, winners: Int[Tensor, "n winners"], on: Bool[Tensor, "n d_in"]) -> Latents:
        values = on.any(dim=1, keepdim=True).to(self.b_dec.dtype).expand(-1, self.winners)
        return Latents(values.flatten(), self._units(winners).flatten(), None, self.d_sae, k=self.winners)


def overlap(codes: Latents, others: Latents) -> Float[Tensor, "n m"]:
    """How alike the codes of all pairs of rows are: features in both over those of the larger code, |A & B| / Q.

    Only which features fire counts, so that it serves any sparse code; rows without a code overlap with nothing.

    Args:
        codes: One row a code.
        others: Codes by the same dictionary; a dense table of theirs is held.
    """
    codes, others = codes.without_zeros(), others.without_zeros()
    table = (others.dense() != 0).float().T.contiguous()
    both = weighted_sums(table, codes.indices, codes.offsets, torch.ones_like(codes.values, dtype=torch.float32))
    return both / torch.maximum(codes.offsets.diff()[:, None], others.offsets.diff()).clamp(min=1)
