"""Values of texts' tokens with the colours that they are drawn in: a row for each site, method and feature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import seaborn as sns
from matplotlib.colors import Colormap, Normalize
from numpy.typing import NDArray

from analyses.maps import Maps


@dataclass(frozen=True)
class TokenRow:
    """The maps of a site, a method and a feature.

    Args:
        label: What they are called.
        values: Of each example that is shown, one number a token.
    """

    label: str
    values: list[NDArray[np.float32]]

    @property
    def most(self) -> float:
        """The largest size of a value; 1 where all are 0."""
        return max(float(np.abs(part).max(initial=0)) for part in self.values) or 1.0

    @property
    def least(self) -> float:
        """The other end of the scale: minus the largest size where a value is negative by more than rounding."""
        return -self.most if min(float(part.min(initial=0)) for part in self.values) < -1e-6 * self.most else 0.0

    @property
    def palette(self) -> Colormap:
        """From the least to the most; what is 0 has the colour of paper, so `rocket` begins with its light end."""
        return sns.color_palette("vlag" if self.least else "rocket_r", as_cmap=True)

    def colours(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """The ground of each token."""
        return self.palette(Normalize(self.least, self.most)(values))


def chosen_examples(maps: Maps, tokens: Sequence[Sequence[str]], examples: Sequence[int]) -> list[int]:
    """Which examples are shown; of a range those that there are.

    Args:
        maps: Maps of texts.
        tokens: What each token of each example shows.
        examples: Which were asked for.

    Raises:
        ValueError: If there is no such example, or tokens are of another number of examples.
    """
    shown = [number for number in examples if number < len(maps)] if isinstance(examples, range) else list(examples)
    if not shown or not all(0 <= number < len(maps) for number in shown):
        raise ValueError(f"examples are {shown}, but maps are of 0 to {len(maps) - 1}: choose of these.")
    if len(tokens) != len(maps):
        raise ValueError(f"tokens are of {len(tokens)} examples, but maps of {len(maps)}: give a list for each.")
    return shown


def token_rows(maps: Maps, tokens: Sequence[Sequence[str]], shown: Sequence[int]) -> list[TokenRow]:
    """One row for each site, method and feature, in this order.

    Args:
        maps: Maps of texts.
        tokens: What each token of each example shows.
        shown: Which examples.

    Raises:
        ValueError: If a map has two axes, or tokens are not those of the positions.
    """
    rows, lead = [], 1 if maps.features is None else 2
    for (site, method), values in maps.values.items():
        if values.ndim != lead + 1:
            raise ValueError(
                f"maps of {site} have {values.ndim - lead} axes, but a text has one: draw those of pictures with "
                "analyses.plots.map_matrix."
            )
        found = values.detach().cpu().float().numpy()
        kept = [_kept(maps, site, found[number], len(tokens[number]), number) for number in shown]
        if maps.features is None:
            rows.append(TokenRow(f"{site}  {method}", kept))
        else:
            named = [f"{site}  {method}  feature {feature}" for feature in maps.features]
            rows += [TokenRow(label, [part[place] for part in kept]) for place, label in enumerate(named)]
    return rows


def _kept(maps: Maps, site: str, values: NDArray[np.float32], tokens: int, number: int) -> NDArray[np.float32]:
    """The values of positions that hold data, one for each token."""
    if maps.mask is not None and values.shape[-1] <= maps.mask.shape[1]:
        values = values[..., maps.mask[number, maps.mask.shape[1] - values.shape[-1] :].cpu().numpy()]
    if values.shape[-1] != tokens:
        raise ValueError(
            f"tokens[{number}] has {tokens} entries, but maps of {site} have {values.shape[-1]} positions that hold "
            "data there: give what each token shows that the model was given, special ones among them."
        )
    return values


def ink(ground: NDArray[np.float64]) -> str:
    """The colour of text on a ground: black or white, whichever is read more easily."""
    return "white" if float(ground[:3] @ (0.299, 0.587, 0.114)) < 0.5 else "black"
