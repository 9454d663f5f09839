"""Maps of a model's layers, or of a dictionary's features: one forward and one backward for all of them."""

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from analyses import cam
from analyses.cam.base import Details, LocalMethod
from analyses.layers import Layer, layers
from analyses.maps import Key, Maps
from analyses.passes import Passes, Scorer
from analyses.scores.base import Score
from analyses.scores.embedding_norm import EmbeddingNorm
from analyses.through import Lens
from interp.captured import Capture
from interp.models.base import Model
from interp.types import Directions, Geometry, Inputs, Site


class NoGradient(UserWarning):
    """Examples whose score does not depend on a site at all, so that their maps are 0."""


def attribute(
    model: Model,
    inputs: Inputs,
    sites: str | Site | Sequence[str | Site] | None = None,
    *,
    score: Score | Callable[[Any], Tensor] | None = None,
    methods: Sequence[str | LocalMethod] = ("GradCAM",),
    through: Directions | None = None,
    features: Sequence[int] | int = 8,
    batch_size: int = 32,
) -> Maps:
    """Map where a score comes from: all sites, methods and features from one forward and one backward pass.

    The model is left as it was found.

    Args:
        model: The model.
        inputs: What it runs on, of any number of examples.
        sites: Where maps are made; by default where `through` was made.
        score: What is explained: one of `analyses.scores`, or a function from what the model's forward returns to one
            number an example; by default the norm of the embedding, which needs no label.
        methods: Maps of `analyses.cam`, by name or made with arguments.
        through: A dictionary at the site: maps are then of its features, not of the layer. What its reconstruction
            lacks is held fixed, and a silent feature has no gradient.
        features: Which features; a number for those that the score owes most to, over all examples and positions.
        batch_size: Examples that run at once.

    Raises:
        ValueError: If a name is unknown, the score is not one number an example, no example's score depends on a site,
            or a method does not apply.
    """
    if batch_size < 1 or not len(inputs):
        raise ValueError(f"batch_size is {batch_size} for {len(inputs)} examples, but both are at least 1: give some.")
    made = {_named(method): method for method in map(local_method, methods)}
    if len(made) < max(len(methods), 1):
        raise ValueError(
            f"methods is {list(methods)}, but at least one is needed, and each once: give other arguments."
        )
    where = _sites(model, sites, through)
    lens = None if through is None else Lens(through, where[0], features)
    if lens is not None:
        lens.check(list(made.values()))
    needed = lens is not None or any(method.gradient for method in made.values())
    passes = Passes(Scorer(model, (score or EmbeddingNorm()) if needed else None), inputs, where, batch_size)
    if lens is not None and lens.features is None:
        lens.choose(found.rows(lens.site) for _, found in passes)
    canvas = _Canvas(len(inputs), lens)
    for start, found in passes:
        canvas.scored(found)
        for site in where:
            for layer in layers(found, site):
                canvas.draw(start, layer, made)
    canvas.check_gradients()
    return canvas.maps(inputs)


def local_method(method: str | LocalMethod) -> LocalMethod:
    """A method by its class's name, with its defaults; one that is made already is given back.

    Raises:
        ValueError: If there is no such method.
    """
    if isinstance(method, LocalMethod):
        return method
    known = local_methods()
    folded = {_folded(name): kind for name, kind in known.items()}
    if _folded(method) not in folded:
        raise ValueError(f"methods names {method!r}, but known are {', '.join(known)}: choose of these.")
    return folded[_folded(method)]()


def local_methods() -> dict[str, type[LocalMethod]]:
    """Name and class of every method of one layer: the files of `analyses.cam`."""
    found = {}
    for info in pkgutil.iter_modules(cam.__path__):
        module = importlib.import_module(f"{cam.__name__}.{info.name}")
        for name, kind in vars(module).items():
            own = inspect.isclass(kind) and kind.__module__ == module.__name__
            if own and issubclass(kind, LocalMethod) and not inspect.isabstract(kind):
                found[name] = kind
    return dict(sorted(found.items()))


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace("++", "plusplus")


def _named(method: LocalMethod) -> str:
    """The class and those of its arguments that are not the default."""
    given = [
        f"{part.name}={getattr(method, part.name)!r}"
        for part in fields(method)  # type: ignore[arg-type]
        if getattr(method, part.name) != part.default
    ]
    return type(method).__name__ + (f"({', '.join(given)})" if given else "")


def _sites(model: Model, sites: str | Site | Sequence[str | Site] | None, through: Directions | None) -> list[Site]:
    if sites is None:
        if through is None or through.site is None:
            raise ValueError("sites is None, but maps are made somewhere: name a site; model.sites() lists them.")
        sites = through.site
    found = list(dict.fromkeys(model.site(site) for site in ([sites] if isinstance(sites, str | Site) else sites)))
    if not found or (through is not None and len(found) > 1):
        raise ValueError(
            f"sites is {[str(site) for site in found]}, but "
            + (
                "a dictionary is of one site: name that."
                if found
                else "at least one is needed: model.sites() lists them."
            )
        )
    return found


class _Canvas:
    """Maps as they come, a group of examples at a time."""

    def __init__(self, examples: int, lens: Lens | None) -> None:
        self.examples, self.lens = examples, lens
        self.values: dict[Key, Tensor] = {}
        self.details: dict[Key, dict[str, Tensor]] = {}
        self.without: dict[Site, int] = {}
        self.scores: list[Tensor] = []
        self.geometries: dict[str, Geometry] = {}

    def scored(self, found: Capture) -> None:
        """Keep what a chunk's maps have in common."""
        self.geometries |= {str(site): geometry for site, geometry in found.geometries.items()}
        if found.scores is not None:
            self.scores.append(found.scores)

    def maps(self, inputs: Inputs) -> Maps:
        """What was drawn."""
        scores = torch.cat(self.scores) if self.scores else None
        features = None if self.lens is None else self.lens.features
        return Maps(self.values, scores, self.geometries, inputs.mask, features, self.details)

    def draw(self, start: int, layer: Layer, methods: Mapping[str, LocalMethod]) -> None:
        """Draw the maps of one group of examples of the chunk that begins at `start`."""
        if layer.grads is not None:
            none = int((layer.grads.flatten(1) == 0).all(dim=1).sum())
            self.without[layer.site] = self.without.get(layer.site, 0) + none
        for name, method in methods.items():
            maps, details = self._made(method, layer)
            key = (str(layer.site), name)
            if key not in self.values:
                self.values[key] = maps.new_zeros(self.examples, *maps.shape[1 : -len(layer.shape)], *layer.shape)
                self.details[key] = {part: maps.new_zeros(self.examples) for part in details}
            layer.spread(maps, self.values[key][start:])
            for part, numbers in details.items():
                self.details[key][part][start:][layer.examples.to(maps.device)] = numbers.to(maps)

    def _made(self, method: LocalMethod, layer: Layer) -> tuple[Tensor, Details]:
        if self.lens is None:
            return method.measured(layer.acts, layer.grads)
        assert layer.grads is not None
        codes, along = self.lens(layer.acts, layer.grads)
        maps = method(codes.flatten(0, 1), along.flatten(0, 1))
        return maps.unflatten(0, codes.shape[:2]).movedim(0, 1), {}

    def check_gradients(self) -> None:
        """Say where scores do not depend on a site's positions.

        Raises:
            ValueError: If at a site no example's score does.
        """
        for site, without in self.without.items():
            if without == self.examples:
                raise ValueError(
                    f"the score has no gradient at {site} in any example: what it reads is not computed from there "
                    "(the patches of a last block of which only the class token is read, say), or it is saturated. "
                    "Choose an earlier site or another score."
                )
            if without:
                warnings.warn(
                    f"the scores of {without} of {self.examples} examples have no gradient at {site}, and their maps "
                    "are 0 where they use it.",
                    NoGradient,
                    stacklevel=3,
                )
