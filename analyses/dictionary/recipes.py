"""What a dictionary is built with, and the hash that tells two builds apart."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from interp.types import JSON, ActivationStore, Directions

SCHEMA = 1
DEFAULT_MEMORY = 2 << 30
# Firings of a feature among which its partners are counted, where memory allows.
FIRINGS = 64


@dataclass(frozen=True)
class Recipe:
    """The numbers that decide what a bundle holds.

    Args:
        top: Strongest examples a feature.
        quantiles: Bins of equally many firings, and examples a bin.
        random: Randomly drawn firings a feature.
        window: Positions shown before and after an example.
        neighbours: Neighbours a feature, of each kind.
        firings: Firings of a feature among which its partners are counted.
        seed: Names the random draws.

    Raises:
        ValueError: If a number is out of its range.
    """

    top: int = 20
    quantiles: tuple[int, int] = (5, 4)
    random: int = 10
    window: tuple[int, int] = (24, 24)
    neighbours: int = 8
    firings: int = FIRINGS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("quantiles", "window"):
            pair = getattr(self, name)
            if len(pair) != 2 or min(pair) < 0:
                raise ValueError(f"{name} is {pair!r}, but it takes two numbers from 0 on, such as {(5, 4)}.")
        for name in ("top", "random", "neighbours"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but a number of examples is at least 0.")

    def to_json(self) -> JSON:
        """Plain values."""
        return json.loads(json.dumps(asdict(self)))


def firings_within(max_memory: int, d_sae: int, bins: int) -> int:
    """Firings to sample a feature so that the pass stays within memory.

    Raises:
        ValueError: If the statistics alone do not fit.
    """
    # Histogram and bounds of the binned sample take 16 bytes a bin; a kept record takes 28.
    fixed = d_sae * (16 * bins + 28 * 100)
    if fixed > max_memory:
        raise ValueError(
            f"max_memory is {max_memory} bytes, but the statistics of {d_sae} features take about {fixed}: allow more."
        )
    return int(max(8, min(FIRINGS, (max_memory - fixed) // (d_sae * 1024))))


def directions_fingerprint(directions: Directions) -> str:
    """Hash of the weights, the class and its arguments: equal fingerprints, equal codes."""
    tensors: dict[str, Tensor] = {"W_dec": directions.W_dec}
    if directions.W_enc is not None:
        tensors["W_enc"] = directions.W_enc
    if isinstance(directions, nn.Module):
        tensors |= directions.state_dict()
    about = {"class": class_name(directions), "arguments": getattr(directions, "arguments", {})}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def class_name(directions: Directions) -> str:
    """Module and name of the class."""
    return f"{type(directions).__module__}.{type(directions).__name__}"


def identity_of(
    directions: Directions, source: ActivationStore, recipe: Recipe, tokens: Sequence[Sequence[str]] | None
) -> JSON:
    """What makes two builds the same: equal identities, equal bytes."""
    pieces = None if tokens is None else hashlib.sha256(json.dumps([list(t) for t in tokens]).encode()).hexdigest()
    return {
        "schema": SCHEMA,
        "directions": directions_fingerprint(directions),
        "source": source.fingerprint,
        "recipe": recipe.to_json(),
        "tokens": pieces,
    }
