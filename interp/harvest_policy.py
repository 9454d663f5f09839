"""What a harvest keeps, as plain values: written to the manifest, compared on a resume."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from interp.stores.manifest import VALUE_DTYPES
from interp.types import JSON, Inputs

Loss = str | Callable[[Any], Tensor] | None
_SPECIAL = ("pad", "bos", "eos", "cls", "sep", "unk", "mask")
PREFIX = "prefix"
_LOSSES = {"next_token": "token_losses", "embedding_norm": "embedding"}


@dataclass(frozen=True)
class Policy:
    """Everything that decides which rows a harvest makes, and their bits."""

    text: str
    labels: tuple[str, ...]
    max_length: int
    max_tokens: int | None
    exclude: tuple[str, ...]
    first: Literal["keep", "drop"]
    max_norm_ratio: float | None
    loss: str | None
    collate: str | None
    dtype: str
    chunk_examples: int
    batch_tokens: int
    rows_per_shard: int | None
    images: JSON | None = None  # column, thumbnails and preprocessing, where pictures are read

    def to_json(self) -> JSON:
        """Plain values; what is of pictures only where there are some."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if key != "images" or value is not None}

    def check(self, special_ids: Sequence[str]) -> None:
        """Refuse values outside their range.

        Raises:
            ValueError: If one is.
        """
        for name in ("max_length", "max_tokens", "chunk_examples", "batch_tokens", "rows_per_shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but at least 1 is needed: give a positive number.")
        if self.max_norm_ratio is not None and self.max_norm_ratio <= 1:
            raise ValueError(
                f"max_norm_ratio is {self.max_norm_ratio}, but a row of median norm has ratio 1: give more (10, say)."
            )
        if self.first not in ("keep", "drop"):
            raise ValueError(f"first is {self.first!r}, but the first position is kept or dropped: 'keep' or 'drop'.")
        if self.dtype not in VALUE_DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, but rows are stored as one of {', '.join(VALUE_DTYPES)}.")
        if self.images is not None and self.images["thumbnails"] < 0:
            raise ValueError(f"thumbnails is {self.images['thumbnails']}, but it is pixels a side: give 0 for none.")
        names = (*special_ids, *_SPECIAL, PREFIX)
        unknown = sorted({*self.exclude} - {*names})
        if unknown:
            known = ", ".join(dict.fromkeys(names))
            raise ValueError(f"exclude has {unknown}, but special tokens are called {known}: use these.")


@dataclass
class Tally:
    """How far a harvest has come, and what it left out; everything a resume starts from.

    Args:
        items: Items read, empty ones included.
        tokens: Tokens given to the model.
        rows: Rows kept.
        empty: Items without text, which have no rows.
        at_max_length: Items of the greatest length, which may have been cut.
        excluded: Positions left out because their token is in `exclude`.
        prefix: Positions before the grid (class token, registers) left out.
        first: First positions left out.
        outliers: Rows left out by `max_norm_ratio`, by the site where their norm was too great.
        medians: Median norm of each site in the first chunk, where `max_norm_ratio` needs it.
        chain: Running hash of the items read.
        skipped: Items that could not be read and have no rows: number, file and reason.
    """

    items: int = 0
    tokens: int = 0
    rows: int = 0
    empty: int = 0
    at_max_length: int = 0
    excluded: int = 0
    prefix: int = 0
    first: int = 0
    outliers: dict[str, int] = field(default_factory=dict)
    medians: dict[str, float] = field(default_factory=dict)
    chain: str = ""
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> JSON:
        """Plain values."""
        return asdict(self)


def named(part: Any, *, argument: str) -> str | None:
    """What a manifest calls a function.

    Raises:
        ValueError: If it is a lambda or a partial, which have no name of their own.
    """
    if part is None or isinstance(part, str):
        return part
    name = getattr(part, "__qualname__", "<lambda>")
    if "<lambda>" in name:
        raise ValueError(f"{argument} is {part!r}, but the manifest needs its name: define it with def.")
    return f"{part.__module__}.{name}"


def checked_loss(loss: Loss, model: Any) -> None:
    """Refuse a loss that the model does not have.

    Raises:
        ValueError: If the name is unknown, or the model cannot compute it.
    """
    if not isinstance(loss, str):
        return
    if loss not in _LOSSES:
        raise ValueError(f"loss is {loss!r}, but the named ones are {', '.join(_LOSSES)}: use one, or give a function.")
    able = hasattr(model, _LOSSES[loss]) and (loss != "next_token" or getattr(model, "is_causal", True))
    if not able:
        raise ValueError(
            f"loss is {loss!r}, which {model.name} cannot compute: give a function of what its forward returns."
        )


def score_of(loss: Loss, model: Any, inputs: Inputs) -> Callable[[Any], Tensor] | None:
    """The score to differentiate: a sum over examples, so that gradients do not depend on the batch."""
    if loss is None or not isinstance(loss, str):
        return loss
    if loss == "next_token":
        return lambda output: model.token_losses(output, inputs).sum()
    return lambda output: model.embedding(output, inputs).norm(dim=-1).sum()


def environment(model: Any) -> JSON:
    """What may change the last bits of a forward pass."""
    parameter = next(iter(model.module.parameters()), None)
    device = "cpu" if parameter is None else parameter.device.type
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
