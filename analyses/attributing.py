"""Maps of a model's layers, or of a dictionary's features: one forward and one backward for all of them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details, LocalMethod
from analyses.layers import Layer, layers
from analyses.maps import Key, Maps
from analyses.methods import Method, chosen
from analyses.passes import Examples, Passes, Scorer
from analyses.running import Runner
from analyses.scores.base import Score
from analyses.scores.class_logit import ClassLogit
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
    methods: Sequence[str | Method] = ("GradCAM",),
    through: Directions | None = None,
    features: Sequence[int] | int = 8,
    batch_size: int = 32,
) -> Maps:
    """Map where a score comes from.

    All maps of one layer (`analyses.cam`), at all sites and of all features, come from one forward and one backward
    pass; those of `analyses.attribution` run the model more often. The model is left as it was found.

    Args:
        model: The model.
        inputs: What it runs on, of any number of examples.
        sites: Where maps are made, `input` for what the model is given; by default where `through` was made.
        score: What is explained: one of `analyses.scores`, or a function from what the model's forward returns to one
            number an example; by default each example's highest logit. Encoders have none: name a score for them.
        methods: By name, or made with arguments.
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
    made = chosen(methods)
    local = {name: method for name, method in made.items() if isinstance(method, LocalMethod)}
    whole = {name: method for name, method in made.items() if isinstance(method, ModelMethod)}
    where = _sites(model, sites, through)
    lens = None if through is None else Lens(through, where[0], features)
    if lens is not None:
        lens.check(list(made.values()))
    asked, every = Scorer(model, score or ClassLogit()), Examples.all(inputs)
    canvas = _Canvas(inputs, lens)
    if local:
        needed = lens is not None or any(method.gradient for method in local.values())
        passes = Passes(asked if needed else Scorer(model, None), every, where, batch_size)
        if lens is not None and lens.features is None:
            lens.choose(found.rows(lens.site) for _, found in passes)
        for chunk, found in passes:
            canvas.begin(chunk, found)
            for site in where:
                for layer in layers(found, site):
                    canvas.draw(chunk, layer, local)
        canvas.check_gradients()
    if whole:
        for chunk in every.chunks(batch_size):
            for group in chunk.alike():
                for site in where:
                    canvas.draw_whole(Runner(asked, group, site, batch_size=batch_size), whole)
    return canvas.maps(made, where)


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

    def __init__(self, inputs: Inputs, lens: Lens | None) -> None:
        self.inputs, self.lens = inputs, lens
        self.examples = len(inputs)
        self.values: dict[Key, Tensor] = {}
        self.details: dict[Key, dict[str, Tensor]] = {}
        self.without: dict[Site, int] = {}
        self.scores: Tensor | None = None
        self.geometries: dict[str, Geometry] = {}

    def begin(self, chunk: Examples, found: Capture) -> None:
        """Keep what the maps of a chunk have in common."""
        self.geometries |= {str(site): geometry for site, geometry in found.geometries.items()}
        if found.scores is not None:
            self._keep_scores(chunk.numbers, found.scores)

    def _keep_scores(self, examples: Int[Tensor, " n"], scores: Float[Tensor, " n"]) -> None:
        if self.scores is None:
            self.scores = scores.new_full((self.examples,), torch.nan)
        self.scores[examples.to(scores.device)] = scores

    def draw(self, chunk: Examples, layer: Layer, methods: Mapping[str, LocalMethod]) -> None:
        """Draw the maps of one group of examples of a chunk."""
        numbers = chunk.numbers[layer.examples]
        if layer.grads is not None:
            none = int((layer.grads.flatten(1) == 0).all(dim=1).sum())
            self.without[layer.site] = self.without.get(layer.site, 0) + none
        for name, method in methods.items():
            maps, details = self._made(method, layer)
            key = (str(layer.site), name)
            self._room(key, maps, layer.shape, details)
            layer.spread(maps, self.values[key], numbers)
            for part, found in details.items():
                self.details[key][part][numbers.to(maps.device)] = found.to(maps)

    def draw_whole(self, runner: Runner, methods: Mapping[str, ModelMethod]) -> None:
        """Draw the maps of some examples at a site that are made by running the model."""
        examples = runner.examples.numbers
        self.geometries[str(runner.site)] = runner.geometry
        known = self.scores is not None and not bool(self.scores[examples.to(self.scores.device)].isnan().any())
        if not known and any(method.scored for method in methods.values()):
            self._keep_scores(examples, runner.scores())
        for name, method in methods.items():
            maps, details = method.measured(runner)
            key, kept, shape = (str(runner.site), name), runner.kept, tuple(maps.shape[1:])
            if kept is not None and self.inputs.mask is not None:  # the others may be longer
                maps, shape = maps.where(kept, 0), (self.inputs.mask.shape[1] - runner.geometry.prefix,)
            self._room(key, maps, shape, details)
            self.values[key][examples.to(maps.device), ..., : maps.shape[-1]] = maps
            for part, numbers in details.items():
                self.details[key][part][examples.to(maps.device)] = numbers

    def _room(self, key: Key, maps: Tensor, shape: tuple[int, ...], details: Details) -> None:
        if key not in self.values:
            self.values[key] = maps.new_zeros(self.examples, *maps.shape[1 : maps.ndim - len(shape)], *shape)
            self.details[key] = {part: maps.new_zeros(self.examples) for part in details}

    def _made(self, method: LocalMethod, layer: Layer) -> tuple[Float[Tensor, "g ..."], Details]:
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

    def maps(self, methods: Mapping[str, Method], sites: Sequence[Site]) -> Maps:
        """What was drawn, by site and method in the order asked."""
        keys = [(str(site), name) for site in sites for name in methods]
        values, details = {key: self.values[key] for key in keys}, {key: self.details[key] for key in keys}
        features = None if self.lens is None else self.lens.features
        return Maps(values, self.scores, self.geometries, self.inputs.mask, features, details)
