"""One chunk of a dataset -> its rows at every site, in the dataset's order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.capturing import capture
from interp.finite import rows_not_finite
from interp.harvest_dataset import Raw
from interp.harvest_inputs import Ready, inputs_of
from interp.harvest_policy import PREFIX, Loss, Policy, Tally, score_of
from interp.models.base import Model
from interp.stores.manifest import VALUE_DTYPES
from interp.types import Activations, Inputs, Item, Site


@dataclass(frozen=True)
class Block:
    """Rows of a run of items, by site; all sites share the addresses."""

    items: Sequence[Item]
    rows: dict[Site, Activations]

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()))) if self.rows else 0


class RowReader:
    """Runs a model over chunks of items.

    Args:
        model: The model.
        sites: Where rows are read.
        policy: What is kept.
        loss: What is differentiated, if anything.
        collate: Makes the inputs from items that are neither texts nor pictures.
        on_error: Whether a picture that cannot be read ends the harvest.

    Raises:
        ValueError: If `on_error` is neither.
    """

    def __init__(
        self,
        model: Model,
        sites: Sequence[Site],
        policy: Policy,
        loss: Loss,
        collate: Callable[[list], Inputs] | None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}, but a picture that cannot be read is 'raise' or 'skip'.")
        self._model: Any = model
        self._sites, self._policy, self._loss, self._on_error = sites, policy, loss, on_error
        self._dtype = VALUE_DTYPES[policy.dtype]
        special = {} if collate else getattr(model, "special_ids", {})
        self._excluded = _excluded_ids(special, policy.exclude)
        self._inputs = inputs_of(model, policy, collate, max(model.geometry(site).positions or 1 for site in sites))

    def prepare(self, raws: Sequence[Raw]) -> list[Ready]:
        """Tokens or pixels of each item."""
        return self._inputs.prepare(raws)

    def items(self, raws: Sequence[Raw]) -> list[Item]:
        """What a store keeps of each item."""
        return [one.item for one in self.prepare(raws)]

    def read(self, chunk: Sequence[Ready], tally: Tally) -> Block:
        """The rows of a chunk; what was read and left out is added to the tally.

        Raises:
            ValueError: If a row that would be kept is not finite, or sites have no common positions; or an item cannot
                be read and `on_error` is `raise`.
        """
        first, items = tally.items, [one.item for one in chunk]
        self._count(chunk, tally)
        parts = [
            self._forward([chunk[i] for i in batch], torch.tensor(batch) + first, tally)
            for batch in batches_of([one.cost for one in chunk], self._policy.batch_tokens)
        ]
        if not parts:
            return Block(items, {})
        rows = {site: Activations.concatenate([part[site] for part in parts]) for site in self._sites}
        examples = rows[self._sites[0]].example
        if (examples.diff() < 0).any():  # batches by length are not in the dataset's order
            order = torch.argsort(examples, stable=True)
            rows = {site: part[order] for site, part in rows.items()}
        block = Block(items, rows)
        block = self._without_outliers(block, tally)
        tally.rows += len(block)
        return block

    def _count(self, chunk: Sequence[Ready], tally: Tally) -> None:
        for number, one in enumerate(chunk, tally.items):
            tokens = one.item.tokens
            tally.tokens += one.length
            tally.at_max_length += tokens is not None and len(tokens) == self._policy.max_length
            tally.empty += one.length == 0 and one.skipped is None
            if one.skipped is not None:
                file, reason = one.skipped
                if self._on_error == "raise":
                    raise ValueError(
                        f"item {number}{f' ({file})' if file else ''} cannot be read as a picture: {reason}. Mend it, "
                        "or pass on_error='skip' to go on without rows for such items. Finished shards are kept."
                    )
                tally.skipped.append({"item": number, "file": file, "reason": reason})
        tally.items += len(chunk)

    def _forward(self, chunk: Sequence[Ready], numbers: Int[Tensor, " b"], tally: Tally) -> dict[Site, Activations]:
        inputs = self._inputs.collate([one.content for one in chunk])
        found = capture(self._model, inputs, self._sites, score=score_of(self._loss, self._model, inputs))
        rows = {site: found.rows(site, numbers).to("cpu") for site in self._sites}
        shared = rows[self._sites[0]]
        for site, part in rows.items():
            if not torch.equal(part.example, shared.example) or not torch.equal(part.position, shared.position):
                raise ValueError(
                    f"{site} has other positions than {self._sites[0]}, but sites of one harvest share their "
                    "addresses: harvest them into two folders."
                )
        keep = torch.ones(len(shared), dtype=torch.bool)
        if found.values[self._sites[0]].ndim > 2:  # else one vector an example, which has no position
            keep &= self._without_special(shared, numbers, [one.item.tokens for one in chunk], tally)
            if PREFIX in self._policy.exclude:
                before = keep & (shared.position < found.geometries[self._sites[0]].prefix)
                tally.prefix += int(before.sum())
                keep &= ~before
        if self._policy.first == "drop":
            start = keep & (shared.position == 0)
            tally.first += int(start.sum())
            keep &= ~start
        kept = {site: part.to(dtype=self._dtype) for site, part in rows.items()}
        if not keep.all():
            kept = {site: part[keep] for site, part in kept.items()}
        for site, part in kept.items():
            self._check_finite(site, part)
        return kept

    def _without_special(
        self, rows: Activations, numbers: Int[Tensor, " b"], tokens: list[Tensor | None], tally: Tally
    ) -> Bool[Tensor, " n"]:
        if not len(self._excluded) or tokens[0] is None:
            return torch.ones(len(rows), dtype=torch.bool)
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)  # type: ignore[arg-type]
        place = torch.empty(int(numbers.max() - numbers.min()) + 1, dtype=torch.long)
        place[numbers - numbers.min()] = torch.arange(len(numbers))
        special = torch.isin(padded[place[rows.example - numbers.min()], rows.position], self._excluded)
        tally.excluded += int(special.sum())
        return ~special

    def _check_finite(self, site: Site, rows: Activations) -> None:
        for name, part in (("values", rows.values), ("gradients", rows.grads)):
            bad = None if part is None else rows_not_finite(part)
            if bad is not None and len(bad):
                row = int(bad[0])
                raise ValueError(
                    f"{site} has {len(bad)} rows of {name} with NaN or infinity as {self._policy.dtype}, the first at "
                    f"example {int(rows.example[row])}, position {int(rows.position[row])}: look at that item, choose "
                    "a wider dtype, or leave the item out. Finished shards are kept."
                )

    def _without_outliers(self, block: Block, tally: Tally) -> Block:
        ratio = self._policy.max_norm_ratio
        if ratio is None or not len(block):
            return block
        keep = torch.ones(len(block), dtype=torch.bool)
        for site, rows in block.rows.items():
            norms = rows.values.float().norm(dim=1)
            median = tally.medians.setdefault(str(site), float(norms.median()))
            outside = norms > ratio * median
            tally.outliers[str(site)] = tally.outliers.get(str(site), 0) + int(outside.sum())
            keep &= ~outside
        return Block(block.items, {site: rows[keep] for site, rows in block.rows.items()})


def batches_of(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Items of like length together, so that padding is short and a padded batch stays within the budget.

    A function of the chunk alone: where a harvest was cut short cannot move a border.
    """
    batches: list[list[int]] = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: (lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[i] <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _excluded_ids(special: dict[str, set[int]], exclude: Sequence[str]) -> Int[Tensor, " s"]:
    """Token ids to leave out. Where the pad token is also another one (GPT-2's is its eos), that one's name decides:
    padding itself is masked anyway."""
    others = {token for name, ids in special.items() if name != "pad" and name not in exclude for token in ids}
    ids = {t for name in exclude for t in special.get(name, ()) if name != "pad" or t not in others}
    return torch.tensor(sorted(ids), dtype=torch.long)
