"""Grounds for scenes: procedural textures, each a function of its random numbers."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


def textured(shape: tuple[int, int], rng: np.random.Generator) -> Float[NDArray, "h w"]:
    """One of five textures (plain, gradient, stripes, checks, clouds) with a little grain.

    Args:
        shape: Height and width.
        rng: What it is a function of.

    Returns:
        Brightness, 0 to 1.
    """
    make = (_plain, _gradient, _stripes, _checks, _clouds)[rng.integers(5)]
    low, high = np.sort(rng.random(2))
    grain = rng.normal(0, 0.03, shape)
    return np.clip(low + (high - low) * make(shape, rng) + grain, 0, 1)


def _plain(shape: tuple[int, int], rng: np.random.Generator) -> Float[NDArray, "h w"]:
    return np.full(shape, rng.random())


def _gradient(shape: tuple[int, int], rng: np.random.Generator) -> Float[NDArray, "h w"]:
    slope = _along(shape, rng)
    return (slope - slope.min()) / (slope.max() - slope.min())


def _stripes(shape: tuple[int, int], rng: np.random.Generator) -> Float[NDArray, "h w"]:
    period = rng.uniform(4, 16)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (_along(shape, rng) / period + rng.random()))


def _checks(shape: tuple[int, int], rng: np.random.Generator) -> Float[NDArray, "h w"]:
    side, (y, x) = rng.integers(3, 10), np.indices(shape)
    return ((y // side + x // side) % 2).astype(float)


def _clouds(shape: tuple[int, int], rng: np.random.Generator) -> Float[NDArray, "h w"]:
    """Noise of three scales, smooth between its knots."""
    sums = np.zeros(shape)
    for knots in (3, 6, 12):
        sums += _resized(rng.random((knots, knots)), shape) / knots
    return (sums - sums.min()) / (sums.max() - sums.min())


def _along(shape: tuple[int, int], rng: np.random.Generator) -> Float[NDArray, "h w"]:
    """Distance along a direction, in pixels."""
    angle, (y, x) = rng.uniform(0, np.pi), np.indices(shape)
    return x * np.cos(angle) + y * np.sin(angle)


def _resized(knots: Float[NDArray, "k k"], shape: tuple[int, int]) -> Float[NDArray, "h w"]:
    """Bilinear."""
    places = [np.linspace(0, len(knots) - 1, side) for side in shape]
    rows = np.stack([np.interp(places[1], np.arange(len(knots)), row) for row in knots])
    return np.stack([np.interp(places[0], np.arange(len(knots)), column) for column in rows.T]).T
