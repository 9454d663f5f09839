"""NMF (Lee and Seung 1999, https://doi.org/10.1038/44565) of the positive and the negative part of activations."""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import ActivationStore, Latents
from saes.arguments import check_k
from saes.baselines.base import Fitted, largest, unset
from saes.baselines.reading import sampled

# Fitted parts overlap little: 10 sweeps reach rounding. Dense random ones leave 1e-4 of a row's square after 30.
_SWEEPS = 30


class NMF(Fitted):
    """Non-negative codes of non-negative parts: `[x+, x-] = codes @ parts`, a direction is the difference of its parts.

    NMF takes no negative numbers, and most sites have them. Each channel is split into its positive and its negative
    part, so that nothing is refused and nothing shifted (a shift would have to be explained by the codes), and what a
    part adds is never taken back by another of the same sign. Activations after a ReLU have no negative part: for them
    this is NMF itself. Codes are those of least squared error on the split row, by coordinate descent; they have no
    gradient with respect to `x`.

    Args:
        d_in: Width of the activations.
        d_sae: Number of parts.
        k: Codes kept a row, the largest; None for all.

    Raises:
        ValueError: If `k` is not in `1..d_sae`.
    """

    signed = False
    parts: Float[Tensor, "d_sae two_d_in"]

    def __init__(self, *, d_in: int, d_sae: int, k: int | None = None) -> None:
        if k is not None:
            check_k("k", k, d_sae)
        super().__init__(d_in=d_in, d_sae=d_sae, k=k)
        self.k: int | None
        self.b_dec = torch.zeros(d_in)
        self.register_buffer("parts", unset(d_sae, 2 * d_in))

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_in"]:  # type: ignore[override]
        """Positive less negative part: of unit norm, or shorter where a channel has both."""
        return self.parts[:, : self.d_in] - self.parts[:, self.d_in :]

    @torch.no_grad()
    def codes(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """The `k` largest codes of a non-negative least-squares fit."""
        return largest(_non_negative(_split(x), self.parts), self.k)

    @classmethod
    def fit(
        cls,
        store: ActivationStore,
        *,
        d_sae: int,
        k: int | None = None,
        rows: int | None = 16384,
        iterations: int = 200,
        seed: int = 0,
    ) -> "NMF":
        """Run scikit-learn's NMF (coordinate descent) on sampled rows; it warns where it does not converge.

        Args:
            store: Activations.
            d_sae: Number of parts.
            k: Codes kept a row.
            rows: How many shuffled rows are held and looked at; None for all.
            iterations: Most iterations.
            seed: Names the shuffle and the start.

        Raises:
            ValueError: If a number is out of its range, or there are fewer rows than parts.
        """
        from sklearn import decomposition

        found = cls(d_in=store.d_in, d_sae=d_sae, k=k)
        x = sampled(store, rows, seed=seed, at_least=d_sae, reason=f"NMF with {d_sae} parts")
        start = "nndsvda" if d_sae <= min(len(x), 2 * found.d_in) else "random"
        model = decomposition.NMF(d_sae, init=start, max_iter=iterations, random_state=seed % 2**32)
        model.fit(_split(x).numpy())
        parts = torch.from_numpy(model.components_)
        found.parts = torch.nn.functional.normalize(parts, dim=1).float()
        return found._from(store, rows=len(x), seed=seed, iterations=int(model.n_iter_))


def _split(x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n two_d_in"]:
    return torch.cat([x.clamp(min=0), (-x).clamp(min=0)], dim=1)


def _non_negative(x: Float[Tensor, "n d"], parts: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Minimise `|x - codes @ parts|^2` over codes that are not negative, one code of all rows after the other."""
    gram = parts @ parts.T
    codes = x.new_zeros(len(parts), len(x))  # Features first: a step reads and writes what lies together.
    gradient = -(parts @ x.T)
    for _ in range(_SWEEPS):
        for j, curvature in enumerate(gram.diagonal().tolist()):
            if curvature > 0:
                moved = (codes[j] - gradient[j] / curvature).clamp(min=0)
                gradient.addr_(gram[j], moved - codes[j])
                codes[j] = moved
    return codes.T
