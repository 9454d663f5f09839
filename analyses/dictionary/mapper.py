"""Where firings come from: each firing its own score, many of many features in one batch."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from analyses.attributing import NoGradient, attribute
from analyses.dictionary.contents import Contents
from analyses.dictionary.firings import STEPS, Firings
from analyses.maps import Maps
from analyses.methods import Method
from analyses.passes import Examples, Scorer
from analyses.scores.latent import Latent
from interp.models.base import Model
from interp.progress import Progress
from interp.types import JSON, Directions, Geometry, Inputs, Site

# Rows in bfloat16 change activations by under a hundredth; of half of the firings no more is asked.
_OFF = 0.1


class Mapper:
    """Maps of firings by one method at one site.

    Args:
        model: The model.
        directions: The features.
        read: Where they are read.
        contents: What the model is given.
        method: The method.
        site: Where maps are made.
        side: Most cells a side of a grid.
        batch_size: Firings that run at once.
    """

    def __init__(
        self,
        model: Model,
        directions: Directions,
        read: Site,
        contents: Contents,
        method: Method,
        site: Site,
        *,
        side: int,
        batch_size: int,
    ) -> None:
        self.model, self.directions, self.contents, self.method = model, directions, contents, method
        self.read, self.site, self.side, self.batch_size = model.site(read), site, side, batch_size
        self.mapped = self.silent = 0
        self._geometry: Geometry | None = None

    def about(self) -> JSON:
        """What a manifest says of the maps."""
        return {
            "geometry": None if self._geometry is None else self._geometry.to_json(),
            "mapped": self.mapped,
            "silent": self.silent,
            "zero": STEPS + 1,
            "rule": f"map = (step - zero) * scale, in the method's units; one scale a feature, its largest / {STEPS}; "
            "without prefix tokens, row by row",
        }

    def maps(self, firings: Firings, bar: Progress) -> tuple[Firings, NDArray[np.float64], list[NDArray[np.float32]]]:
        """The firings that come again, the activation of each now, and their maps.

        Args:
            firings: What to map.
            bar: Told of each batch.

        Raises:
            ValueError: If half of the firings come back as others, a map is not finite, or all are 0.
        """
        again, found = np.zeros(len(firings)), [np.empty(0, np.float32)] * len(firings)
        lengths = self.contents.lengths(firings.item)
        # Texts of like length together: padding costs as much as tokens.
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            again[rows], drawn = self._batch(firings[rows])
            for row, one in zip(rows, drawn, strict=True):
                found[row] = one
            bar.update(len(rows))
        self._check(firings, again, found)
        fired = np.flatnonzero(again)
        self.mapped, self.silent = self.mapped + len(fired), self.silent + len(firings) - len(fired)
        return firings[fired], again[fired], [found[row] for row in fired]

    def _batch(self, firings: Firings) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
        """The activations now, and the maps."""
        feature, position = torch.from_numpy(firings.feature), torch.from_numpy(firings.position)
        score = Latent(self.directions, feature, over=position, site=self.read)
        inputs = self.contents.inputs(firings.item.tolist())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NoGradient)  # of what is silent now
                maps = attribute(
                    self.model, inputs, self.site, score=score, methods=[self.method], batch_size=self.batch_size
                )
        except ValueError:
            scores = Scorer(self.model, score).run(Examples.all(inputs), grads=False).scores
            if scores is None or scores.any():
                raise
            return np.zeros(len(firings)), [np.empty(0, np.float32)] * len(firings)
        assert maps.scores is not None
        return maps.scores.double().cpu().numpy(), self._laid(maps, inputs)

    def _laid(self, maps: Maps, inputs: Inputs) -> list[NDArray[np.float32]]:
        """The maps on a grid of the size asked for, or without padding."""
        ((values,), geometry) = maps.values.values(), maps.geometries[str(self.site)]
        own = self.model.geometry(self.read, inputs)
        if geometry.kind != own.kind or (geometry.kind == "sequence" and geometry.stride != own.stride):
            raise ValueError(
                f"maps at {self.site} are of other positions than the features at {self.read}: choose a site with "
                "the same tokens, or on a grid where the features are on one."
            )
        values, self._geometry = pooled(values.detach().float().cpu(), geometry, self.side)
        if maps.mask is None or geometry.kind == "grid":
            return list(values.numpy())
        lengths = maps.mask.sum(dim=1).cpu() - geometry.prefix
        return [one[:length].numpy() for one, length in zip(values, lengths.tolist(), strict=True)]

    def _check(self, firings: Firings, again: NDArray[np.float64], maps: list[NDArray[np.float32]]) -> None:
        if not len(firings):
            return
        off = float(np.median(np.abs(again - firings.value) / np.abs(firings.value)))
        if off > _OFF:
            raise ValueError(
                f"half of the firings of features {firings.feature[0]} to {firings.feature[-1]} differ by {off:.0%} or "
                "more when the model runs again: give the model, the store and the dataset that the bundle was made "
                "from."
            )
        largest = max((float(np.abs(one).max(initial=0)) for one in maps), default=0.0)
        if not np.isfinite(largest):
            raise ValueError(f"a map at {self.site} is NaN or infinite: choose another method or site.")
        if not largest and again.any():
            raise ValueError(
                f"all maps at {self.site} are 0, but features are read at {self.read}: choose a site before that."
            )


def pooled(
    maps: Float[Tensor, " b *grid"], geometry: Geometry, side: int
) -> tuple[Float[Tensor, " b *cells"], Geometry]:
    """Maps on grids of at most `side` cells a side, each the sum of what it covers; sequences as they are.

    Args:
        maps: The maps.
        geometry: How their positions are laid out.
        side: Most cells a side.
    """
    if geometry.kind != "grid" or max(maps.shape[1:]) <= side:
        return maps, geometry
    factors = [-(-size // side) for size in maps.shape[1:]]
    for axis, factor in enumerate(factors, start=1):
        short = -maps.shape[axis] % factor
        maps = F.pad(maps.movedim(axis, -1), (0, short)).unflatten(-1, (-1, factor)).sum(dim=-1).movedim(-1, axis)
    times: dict[str, Any] = {
        name: tuple(size * factor for size, factor in zip(getattr(geometry, name), factors, strict=True))
        for name in ("stride", "patch")
        if getattr(geometry, name)
    }
    return maps, replace(geometry, grid=tuple(maps.shape[1:]), **times)
