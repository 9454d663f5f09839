"""What pretraining gave, on glyphs whose code points it never saw, beside raw pixels and random weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from interp.data.glyphs import Glyphs
from interp.effective_rank import rank_me, singular_values
from interp.models.glyph_encoders import Encoded, GlyphEncoder
from interp.pretrain.barlow_twins import cross_correlation
from interp.pretrain.base import Objective
from interp.pretrain.measures import Share, nearest, ridge_probe, share
from interp.pretrain.views import GlyphViews, as_input, moved, seeded
from interp.types import JSON

Encode = Callable[[Float[Tensor, "b 1 s s"]], Encoded]

_MOVES, _PATCHES = 0x51, 0x52
_INKED = 0.2  # of full ink
_BATCH = 512


@dataclass(frozen=True)
class Judgement:
    """How good embeddings are.

    Args:
        widths: Of the pooled embedding and of one vector of the map.
        ranks: RankMe of the two.
        hits: For each measure, right (1) or wrong (0) a row, and the code point of the row.
        seed: Names the draws of the bootstrap.
    """

    widths: tuple[int, int]
    ranks: tuple[float, float]
    hits: dict[str, tuple[Float[Tensor, " n"], Int[Tensor, " n"]]]
    seed: int

    def share(self, measure: str) -> Share:
        """`probe`: held-out glyphs whose Unicode category a linear probe tells from the pooled embedding.
        `patch`: the same from one vector of the map where there is ink. `retrieval`: moved glyphs whose nearest
        neighbour among the centred ones of another font is the same character, over all ordered pairs of fonts."""
        hits, points = self.hits[measure]
        return share(hits, points, seed=self.seed)

    def above(self, other: "Judgement", measure: str) -> Share:
        """Difference to another encoder, with a paired interval."""
        hits, points = self.hits[measure]
        return share(hits - other.hits[measure][0], points, seed=self.seed)


class Judge:
    """Judges encoders on the same glyphs, probes and queries.

    A held-out image that equals one of the training glyphs (A and Alpha) is left out of everything.

    Args:
        train: Glyphs that the probes are fitted on.
        held_out: Glyphs of other code points.
        degrees: Largest rotation of a query to either side.
        scale: Largest factor by which a query grows or shrinks.
        shift: Largest shift of a query along each axis, in pixels.
        seed: Names the moves of the queries, the patches, and the draws of the bootstrap.
    """

    def __init__(
        self,
        train: Glyphs,
        held_out: Glyphs,
        *,
        degrees: float = 20.0,
        scale: float = 1.3,
        shift: float = 4.0,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        seen = {image.numpy().tobytes() for image in train.images}
        new = torch.tensor([image.numpy().tobytes() not in seen for image in held_out.images])
        self._images = [as_input(train.images), as_input(held_out.images[new])]
        self._queries = moved(self._images[1], degrees, scale, shift, seeded(seed, _MOVES))
        categories = _numbers([*train.labels("category"), *held_out.labels("category")])
        self._categories = [categories[: len(train)], categories[len(train) :][new]]
        self._validation = _numbers(train.labels("codepoint")) % 5 == 0
        self._points, self._fonts = (_numbers(held_out.labels(name))[new] for name in ("codepoint", "font"))

    @torch.no_grad()
    def judge(self, encode: Encode) -> Judgement:
        """Embed all glyphs and measure."""
        (train, train_patch), (test, test_patch) = (self._embedded(encode, images) for images in self._images)
        queries, _ = self._embedded(encode, self._queries)
        hits = {
            "probe": (self._probed(train, test), self._points),
            "patch": (self._probed(train_patch, test_patch), self._points),
            "retrieval": self._retrieved(queries, test),
        }
        ranks = _rank(test), _rank(test_patch)
        return Judgement((test.shape[1], test_patch.shape[1]), ranks, hits, self.seed)

    @torch.no_grad()
    def settled(self, encoder: GlyphEncoder) -> GlyphEncoder:
        """Give a random encoder's batch norms the statistics of the training glyphs, and put it in eval mode."""
        for norm in encoder.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None  # The mean over all batches.
        encoder.train()
        for batch in self._images[0].split(_BATCH):
            encoder(batch)
        return encoder.eval()

    def _embedded(
        self, encode: Encode, images: Float[Tensor, "n 1 s s"]
    ) -> tuple[Float[Tensor, "n d_pooled"], Float[Tensor, "n d_map"]]:
        """Pooled embeddings, and one vector of each map, where there is ink."""
        pooled, patches = [], []
        for step, batch in enumerate(images.split(_BATCH)):
            encoded = encode(batch)
            pooled.append(encoded.pooled)
            inked = F.max_pool2d(batch, batch.shape[-1] // encoded.map.shape[-1]).flatten(1) > _INKED
            draws = torch.rand(inked.shape, generator=seeded(self.seed, _PATCHES, step))
            chosen = (draws + inked).argmax(dim=1)
            patches.append(encoded.map.flatten(2)[torch.arange(len(batch)), :, chosen])
        return torch.cat(pooled), torch.cat(patches)

    def _probed(self, train: Float[Tensor, "n d"], test: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
        labels, answers = self._categories
        return (ridge_probe(train, labels, self._validation, test) == answers).float()

    def _retrieved(
        self, queries: Float[Tensor, "m d"], gallery: Float[Tensor, "m d"]
    ) -> tuple[Float[Tensor, " q"], Int[Tensor, " q"]]:
        """For each ordered pair of fonts, whether a glyph of one is found among those of the other."""
        hits, points = [], []
        fonts = [(self._fonts == font).nonzero()[:, 0] for font in range(int(self._fonts.max()) + 1)]
        for stored in fonts:
            for asked in fonts:
                if asked is not stored:
                    asked = asked[torch.isin(self._points[asked], self._points[stored])]
                    found = stored[nearest(queries[asked], gallery[stored])]
                    # Two characters may look alike to the pixel (A and Alpha): either is right.
                    same = (self._images[1][found] == self._images[1][self._twin(asked, stored)]).flatten(1).all(dim=1)
                    hits.append(same.float())
                    points.append(self._points[asked])
        return torch.cat(hits), torch.cat(points)

    def _twin(self, asked: Int[Tensor, " q"], stored: Int[Tensor, " g"]) -> Int[Tensor, " q"]:
        """The row of the same code point in another font."""
        place = torch.full((int(self._points.max()) + 1,), -1)
        place[self._points[stored]] = stored
        return place[self._points[asked]]


def raw_pixels(images: Float[Tensor, "b 1 s s"]) -> Encoded:
    """Pixels as they are: all of them pooled, windows of 8 x 8 as a map."""
    return Encoded(images.flatten(1), F.pixel_unshuffle(images, 8))


@torch.no_grad()
def diagnosis(
    encoder: GlyphEncoder, objective: Objective, views: GlyphViews, *, size: int = 512, steps: int = 8
) -> list[JSON]:
    """How far embeddings have collapsed: RankMe at the encoder and at each layer of the head, and how near the
    cross-correlation of two views is to the identity, at the encoder and behind the head.

    Args:
        encoder: Put in eval mode.
        objective: Put in eval mode.
        views: Of held-out glyphs.
        size: Pairs of a batch.
        steps: Batches.
    """
    encoder.eval()
    objective.eval()
    batches = [views.batch(step, size, 2) for step in range(steps)]
    pooled = [torch.cat([encoder(batch[view]).pooled for batch in batches]) for view in (0, 1)]
    layers = zip(*([rows, *objective.projected(rows)] for rows in pooled), strict=True)
    found = []
    for first, second in layers:
        correlation = cross_correlation(first, second)
        on, d = correlation.diagonal(), len(correlation)
        off = ((correlation.square().sum() - on.square().sum()) / (d * (d - 1))).sqrt()
        found.append(
            {"width": d, "rankme": _rank(first), "mean_diagonal": float(on.mean()), "rms_off_diagonal": float(off)}
        )
    return found


def _rank(rows: Float[Tensor, "n d"]) -> float:
    """RankMe of rows as they are, not centred."""
    return rank_me(singular_values(rows.double().T @ rows.double()))


def _numbers(labels: list[str]) -> Int[Tensor, " n"]:
    """The place of each label in their sorted set."""
    places = {label: place for place, label in enumerate(sorted(set(labels)))}
    return torch.tensor([places[label] for label in labels])
