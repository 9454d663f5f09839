"""Matching pursuit SAEs (Costa et al. 2025, https://arxiv.org/abs/2506.03093)."""

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.types import ActivationStore, Directions, Latents
from saes import normalising
from saes.arguments import check_k
from saes.axes import Axes
from saes.base import SAE
from saes.engine.dense import DenseLatents
from saes.engine.passes import Encoded
from saes.engine.products import is_low
from saes.penalties.aux_k import AuxK

CHUNK_ENTRIES = 1 << 23
"""Entries of the correlations of a chunk of rows with all latents."""

_NOTHING = 1e-8
"""Part of a row's squared norm that counts as nothing: picks beyond it would fit what rounding and the ridge leave."""


class MatchingPursuit(SAE):
    """Pick latents one at a time, each the one closest to what the latents before it have left.

    There is no encoder: a row is compared with the decoder, and with every pick anew. With `refit` the codes of all
    picks are fitted together after each (orthogonal matching pursuit: Pati et al. 1993,
    https://doi.org/10.1109/ACSSC.1993.342465); without it a pick keeps the code that it was given, as in the paper.
    A row stops at `k` picks, or as soon as what is left is small. Codes are positive: of a fit that would make one
    negative that pick is taken back.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        k: Picks at most.
        tolerance: Squared norm of what may be left of a row, as a part of the mean squared norm of rows less `b_dec`;
            0 stops no row before it is fitted but for rounding. A job's `target_l0` moves it.
        refit: Whether all codes are fitted again after each pick.
        seed: Names the random initial directions.
        axes: See `saes.axes.Axes`; only the defaults are possible.

    Raises:
        ValueError: If `k` is not in `1..d_sae`, or `tolerance` not in [0, 1).
    """

    left: Tensor
    unit: Tensor
    latent_units = ("unit",)
    refuses = {
        "prefixes": "fits each latent to what all those picked before it left, so a part of them is no code of its own",
        "d_out": "encodes by its decoder, which has to be of the input",
        "parametrization": "needs decoder rows of norm 1",
    }

    def __init__(
        self,
        *,
        d_in: int,
        d_sae: int,
        k: int = 32,
        tolerance: float = 0.0,
        refit: bool = True,
        seed: int = 0,
        **axes: Unpack[Axes],
    ) -> None:
        check_k("k", k, d_sae)
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance is {tolerance}, but it is a part of a row in [0, 1): 0.05 leaves a twentieth.")
        self.k: int
        self.refit: bool
        super().__init__(d_in=d_in, d_sae=d_sae, seed=seed, k=k, tolerance=tolerance, refit=refit, **axes)
        for name in ("W_enc", "b_enc"):
            self.register_parameter(name, None)
        self.register_buffer("left", torch.tensor(float(tolerance)))
        # Root mean square of a coordinate: 1 in training, where activations have unit variance.
        self.register_buffer("unit", torch.ones(()))

    @classmethod
    def of(
        cls, directions: Directions, store: ActivationStore, *, k: int = 32, tolerance: float = 0.0, refit: bool = True
    ) -> "MatchingPursuit":
        """Matching pursuit on the decoder of other directions, which reads them better than their own encoder.

        It can be used as it is, or trained on. Pursuit alone finds fewer features from a random start than a linear
        encoder does (it fits any row with mixtures of them), so this is also how to begin: train a BatchTopK for the
        first part of the run, and its pursuit for the rest.

        Args:
            directions: Whose decoder, with its bias.
            store: The activations they are of, which tell what `tolerance` is a part of.
            k: Picks at most.
            tolerance: Where a row stops: see the class.
            refit: Whether all codes are fitted again after each pick.

        Raises:
            ValueError: If the widths of store and directions differ.
        """
        W_dec = directions.W_dec.detach().float()
        if W_dec.shape[1] != store.d_in:
            raise ValueError(
                f"store has width {store.d_in} at {store.site}, but the decoder has {W_dec.shape[1]}: give the store "
                "of the site that it gives back."
            )
        found = cls(d_in=W_dec.shape[1], d_sae=len(W_dec), k=k, tolerance=tolerance, refit=refit)
        bias = getattr(directions, "b_dec", None)
        with torch.no_grad():
            found.W_dec.copy_(F.normalize(W_dec, dim=1))
            if bias is not None:
                found.b_dec.copy_(bias)
            found.unit.fill_(1 / normalising.estimate(store, "scale", seed=0).scale)
        found.site, found.labels = directions.site, dict(directions.labels)
        return found.eval()

    def encoded(
        self,
        x: Float[Tensor, "n d_in"],
        grads: Float[Tensor, "n d_in"] | None = None,
        *,
        watch: Int[Tensor, " f"] | None = None,
        as_dense: bool = False,
    ) -> Encoded:
        """The picks and their codes, differentiable in the decoder, its bias and the rows."""
        del grads
        with torch.no_grad():
            size = max(1, CHUNK_ENTRIES // self.d_sae)
            parts = [self._picked(rows - self.b_dec) for rows in x.split(size)] if len(x) else []
            picks, taken = (torch.cat(part) for part in zip(*parts, strict=True)) if parts else self._none(x)
        system = _system(F.embedding(picks, self.W_dec), x - self.b_dec)
        codes = torch.relu(self._fitted(*system, taken)).to(x.dtype)
        latents = _as_latents(codes, picks, taken, self.d_sae, repeats=not self.refit)
        watched = None if watch is None else self.pre_acts(x, watch)
        return Encoded(DenseLatents(latents.dense()) if as_dense else latents, {}, watched)

    @torch.no_grad()
    def _picked(self, x: Float[Tensor, "n d_in"]) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"]]:
        """Picks of each row in order, and which of them count: a row that stops early is padded."""
        n, W = len(x), self.W_dec
        exact = torch.promote_types(x.dtype, torch.float32)
        picks = torch.zeros(n, self.k, dtype=torch.long, device=x.device)
        taken = torch.zeros(n, self.k, dtype=torch.bool, device=x.device)
        codes = torch.zeros(n, self.k, dtype=exact, device=x.device)
        # Of the system of all picks a pick adds one row.
        overlaps = torch.zeros(n, self.k, self.k, dtype=exact, device=x.device)
        projections = torch.zeros(n, self.k, dtype=exact, device=x.device)
        choosing = W.to(torch.bfloat16) if is_low() else W
        sizes = x.square().sum(dim=1)
        enough = (self.left * self.unit.square() * self.d_in).maximum(_NOTHING * sizes)
        residual, going = x, sizes > enough
        for step in range(self.k):
            if not bool(going.any()):
                break
            closeness = residual.to(choosing.dtype) @ choosing.T
            if self.refit and step:  # A latent that is fitted has nothing left to give.
                fitted = torch.where(taken[:, :step], picks[:, :step], self.d_sae)
                closeness = F.pad(closeness, (0, 1)).scatter_(1, fitted, -torch.inf)[:, :-1]
            best, picks[:, step] = closeness.max(dim=1)
            taken[:, step] = going & (best > 0)
            so_far = slice(0, step + 1)
            chosen = F.embedding(picks[:, so_far], W)
            newest = chosen[:, step].to(exact)
            projections[:, step] = (newest * x).sum(dim=1)
            overlaps[:, step, so_far] = overlaps[:, so_far, step] = (chosen.to(exact) @ newest.unsqueeze(2)).squeeze(2)
            system = overlaps[:, so_far, so_far], projections[:, so_far]
            codes[:, so_far], taken[:, so_far] = self._positive(*system, taken[:, so_far], codes[:, so_far])
            residual = x - (codes[:, None, so_far].to(x.dtype) @ chosen).squeeze(1)
            going = taken[:, step] & (residual.square().sum(dim=1) > enough)
        return picks, taken

    def _positive(
        self,
        overlaps: Float[Tensor, "n k k"],
        projections: Float[Tensor, "n k"],
        taken: Bool[Tensor, "n k"],
        codes: Float[Tensor, "n k"],
    ) -> tuple[Float[Tensor, "n k"], Bool[Tensor, "n k"]]:
        """Fitted codes, and the picks that count once none is negative.

        A fit that would make a code negative is followed as far as that code's zero, and without that pick from there
        on, so that what is left never grows (Lawson and Hanson 1974, https://doi.org/10.1137/1.9781611971217).
        """
        while True:
            fit = self._fitted(overlaps, projections, taken) * taken
            negative = taken & (fit <= 0)
            if not bool(negative.any()):
                return fit, taken
            fall = (codes - fit).clamp(min=torch.finfo(fit.dtype).tiny)  # Nothing that falls to nothing is 0 / 0.
            parts = torch.where(negative, codes / fall, 1.0)
            least = parts.amin(dim=1, keepdim=True)
            taken = taken & ~(negative & (parts <= least))  # By which comes first, not by its rounded zero: it ends.
            codes = (codes + least * (fit - codes)) * taken

    def _fitted(
        self, overlaps: Float[Tensor, "n k k"], projections: Float[Tensor, "n k"], taken: Bool[Tensor, "n k"]
    ) -> Float[Tensor, "n k"]:
        """Codes of the picks: least squares of all, or each of what those before it left."""
        both = taken.unsqueeze(1) & taken.unsqueeze(2)
        right, left = (projections * taken).unsqueeze(2), overlaps * both
        one = torch.eye(taken.shape[1], dtype=left.dtype, device=left.device)
        if not self.refit:
            # f_t = d_t . (x - sum over s < t of f_s d_s): a triangular system, its diagonal the squared norms, 1.
            return torch.linalg.solve_triangular(left.tril(-1) + one, right, upper=False).squeeze(2)
        # The ridge keeps two latents that have become one from being given opposite, endless codes.
        filled = left + torch.where(both, 1e-6 * one, one)
        return torch.cholesky_solve(right, torch.linalg.cholesky(filled)).squeeze(2)

    def _none(self, x: Tensor) -> tuple[Tensor, Tensor]:
        none = torch.zeros(0, self.k, dtype=torch.long, device=x.device)
        return none, none.bool()

    def pre_acts(self, x: Float[Tensor, "n d_in"], features: Tensor) -> Float[Tensor, "n f"]:
        """What some latents would be given if they were picked first, with autograd."""
        return (x - self.b_dec) @ self.W_dec[features].T

    def press(self, excess: Float[Tensor, ""]) -> None:
        """More is left of every row while too many latents are picked."""
        self.left.mul_(torch.exp(0.1 * excess)).clamp_(1e-6, 0.9)

    def default_penalties(self) -> tuple[Any, ...]:
        """AuxK revives dead latents."""
        return (AuxK(),)


def _system(
    chosen: Float[Tensor, "n k d_in"], x: Float[Tensor, "n d_in"]
) -> tuple[Float[Tensor, "n k k"], Float[Tensor, "n k"]]:
    """What picks have in common with each other, and with their rows."""
    # Systems are solved in float32 at least: there are no solvers for fewer bits.
    x, chosen = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (x, chosen))
    return chosen @ chosen.mT, (chosen @ x.unsqueeze(2)).squeeze(2)


def _as_latents(
    codes: Float[Tensor, "n k"], picks: Int[Tensor, "n k"], taken: Bool[Tensor, "n k"], d_sae: int, *, repeats: bool
) -> Latents:
    """Codes as sparse rows; of a latent that a row picked more than once the codes add up."""
    if repeats:
        first = (picks.unsqueeze(1) == picks.unsqueeze(2)).to(torch.uint8).argmax(dim=2)  # Where each was picked first.
        codes = torch.zeros_like(codes).scatter_add(1, first, codes * taken)
        taken = taken & (first == torch.arange(codes.shape[1], device=codes.device))
    rows, place = taken.nonzero(as_tuple=True)
    return Latents.from_pairs(codes[rows, place], rows, picks[rows, place], len(codes), d_sae)
