"""What the demo reads: a text encoder over documentation, a vision encoder over glyphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from analyses.commands.demo import Arguments
    from saes.base import SAE

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Subject:
    """One model over one dataset.

    Args:
        name: Names its folders.
        model: What `load_model` takes.
        site: Where it is read.
        unit: What a row is.
        methods: The dictionaries trained on it, by the names they have on the page.
        d_sae: Features of each.
        k: Features that fire on a row.
        labels: Keys of the items' labels that features are matched with.
        options: Arguments of `harvest`.
        maps_top: Strongest firings a feature whose sources are mapped; a pass of the model for each.
        judged_in_model: Whether reconstructions are also judged by what the model makes of them.
    """

    name: str
    model: str
    site: str
    unit: str
    methods: tuple[str, ...]
    d_sae: int
    k: int
    labels: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    maps_top: int = 0
    judged_in_model: bool = False

    def saes(self, d_in: int) -> dict[str, "SAE"]:
        """A fresh SAE for each method."""
        from saes.batch_topk import BatchTopK
        from saes.topk import TopK

        classes = {"topk": TopK, "batch_topk": BatchTopK}
        return {
            name: classes[name.removeprefix("glyph_")](d_in=d_in, d_sae=self.d_sae, k=self.k) for name in self.methods
        }


def subjects(arguments: "Arguments") -> list[Subject]:
    """The parts of the demo that were asked for."""
    text = Subject(
        name="text",
        model=arguments.model,
        site=arguments.site,
        unit="token",
        methods=("topk", "batch_topk"),
        d_sae=arguments.d_sae,
        k=arguments.k,
        labels=("package", "kind"),
        options={"labels": ("package", "module", "kind"), "exclude": ("pad", "cls", "sep")},
        judged_in_model=True,
    )
    images = Subject(
        name="images",
        model=arguments.image_model,
        site=arguments.image_site,
        unit="patch",
        methods=("glyph_batch_topk",),
        d_sae=arguments.image_d_sae,
        k=arguments.image_k,
        labels=("category", "script", "block", "font"),
        options={"labels": ("character", "name", "category", "script", "block", "font")},
        maps_top=4,
    )
    return [part for part in (text, images) if arguments.only in (None, part.name)]


def dataset_of(subject: Subject, split: Split, arguments: "Arguments") -> tuple[Sequence[Any] | Any, dict[str, Any]]:
    """The dataset of one split, and how much of it is harvested."""
    if subject.name == "images":
        from interp.data.glyphs import glyphs

        count = arguments.images if split == "train" else arguments.held_out_images
        return glyphs(split, distinct=True)[:count], {}
    from interp.data.documentation import documentation

    tokens = arguments.tokens if split == "train" else arguments.held_out_tokens
    return documentation(split=split, max_items=max(tokens // 25, 200)), {"max_tokens": tokens}
