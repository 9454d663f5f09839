"""A layer seen through a dictionary: codes for activations, and what a score owes to each code."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import LocalMethod
from interp.types import Activations, Directions, Site


class Lens:
    """Some features of a dictionary at a site.

    A feature's gradient is, by the chain rule, that of the activations along its decoder row, where the feature is
    active; elsewhere it is 0. What the reconstruction lacks is held fixed.

    Args:
        directions: The dictionary.
        site: Where.
        features: Which features; a number leaves the choice to `choose`.

    Raises:
        ValueError: If there is no such feature.
    """

    def __init__(self, directions: Directions, site: Site, features: Sequence[int] | int) -> None:
        self.directions, self.site = directions, site
        self.count = features if isinstance(features, int) else len(features)
        self.features = None if isinstance(features, int) else tuple(features)
        wrong = [f for f in self.features or () if not 0 <= f < directions.d_sae]
        if wrong or not 1 <= self.count <= directions.d_sae:
            raise ValueError(
                f"features is {features}, but the dictionary has {directions.d_sae}: choose from "
                f"0..{directions.d_sae - 1}, or give a number of at least 1."
            )

    def check(self, methods: Sequence[LocalMethod | ModelMethod]) -> None:
        """Refuse methods that run the model, and those that say nothing about a single channel.

        Raises:
            ValueError: If there is one.
        """
        for method in methods:
            if isinstance(method, ModelMethod):
                raise ValueError(
                    f"{type(method).__name__} runs the model with other activations, which have no features of their "
                    "own: explain a feature with it by score=Latent(...), or choose a map of one layer."
                )
            if not method.one_channel:
                raise ValueError(
                    f"{type(method).__name__} compares channels, so that of a single feature it gives back the feature "
                    "itself: leave through= out, or choose GradCAM, HiResCAM or NormGrad."
                )

    def choose(self, rows: Iterable[Activations]) -> None:
        """Take the features that a score owes most to: the largest sums of |gradient times code| over all rows."""
        owed = torch.zeros(self.directions.d_sae, dtype=torch.float64)
        for part in rows:
            assert part.grads is not None
            latents = self.directions.encode(self._fitting(part.values)).detach()
            along = (part.grads.to(latents.values)[latents.rows] * self._W_dec[latents.indices]).sum(dim=1)
            owed += latents.feature_sums((latents.values * along).abs()).double().cpu()
        self.features = tuple(owed.topk(self.count).indices.tolist())

    def __call__(
        self, acts: Float[Tensor, "b *grid d"], grads: Float[Tensor, "b *grid d"]
    ) -> tuple[Float[Tensor, "f b *grid 1"], Float[Tensor, "f b *grid 1"]]:
        """Codes of each feature and their gradients, each a layer of one channel."""
        chosen = torch.tensor(self.features, device=acts.device)
        flat = self._fitting(acts.flatten(0, -2))
        codes = self.directions.encode(flat).detach().columns(chosen)
        along = (grads.flatten(0, -2).to(codes) @ self._W_dec[chosen].T) * (codes != 0)
        shape = (*acts.shape[:-1], len(chosen))
        return tuple(part.view(shape).movedim(-1, 0).unsqueeze(-1) for part in (codes, along))  # type: ignore[return-value]

    @property
    def _W_dec(self) -> Float[Tensor, "d_sae d_in"]:
        return self.directions.W_dec.detach()

    def _fitting(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        fits(self.directions, self.site, rows.shape[1])
        return rows.to(self._W_dec)


def fits(directions: Directions, site: Site, width: int) -> None:
    """Compare directions with the site that they are read and written at.

    Args:
        directions: A dictionary.
        site: What messages call the place.
        width: Width of its vectors.

    Raises:
        ValueError: If the directions have another width, or write elsewhere than they read.
    """
    if getattr(directions, "b_in", None) is not getattr(directions, "b_dec", None) and hasattr(directions, "b_in"):
        raise ValueError(
            f"the directions are a transcoder's, which reads {site} and writes elsewhere: give a dictionary that "
            "reconstructs what it reads."
        )
    for own in (directions.d_in, directions.W_dec.shape[1]):
        if width != own:
            raise ValueError(
                f"{site} holds vectors of width {width}, but the directions have {own}: give the site that they read "
                "and write."
            )
