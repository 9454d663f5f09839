"""Text to tokens and the pieces of text they show, and padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.types import Inputs

_LONGEST_CHARACTER = 4  # bytes of one character in UTF-8, the most tokens it can be cut into
_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Encoded:
    """One text as tokens.

    Args:
        tokens: Token ids, special tokens included.
        pieces: What each token shows, white space kept: without the special tokens they join to the text.
    """

    tokens: Int[Tensor, " p"]
    pieces: tuple[str, ...]


class Tokenizing:
    """A Hugging Face tokenizer, as the house reads it.

    Args:
        tokenizer: The tokenizer; None for a model that is only given ids.
        name: The model's name, for messages.
        longest: Most tokens the model takes.
        prepend_bos: Start every text with the beginning-of-text token, where the tokenizer does not.
    """

    def __init__(self, tokenizer: Any, *, name: str, longest: int, prepend_bos: bool) -> None:
        self._tokenizer, self._name = tokenizer, name
        self.longest = longest if tokenizer is None else min(longest, tokenizer.model_max_length)
        bos = tokenizer.bos_token_id if tokenizer is not None and prepend_bos else None
        adds = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
        self._start = [] if bos is None or adds else [bos]

    @property
    def special_ids(self) -> dict[str, set[int]]:
        """Ids of the tokens that stand for no text, by kind. Models of one kind of name have both: `[CLS]` is also
        the bos, `[SEP]` the eos."""
        kinds = ("bos", "eos", "sep", "pad", "cls", "mask")
        ids = {kind: getattr(self._tokenizer, f"{kind}_token_id", None) for kind in kinds}
        ids["bos"] = ids["cls"] if ids["bos"] is None else ids["bos"]
        ids["eos"] = ids["sep"] if ids["eos"] is None else ids["eos"]
        return {kind: {token} for kind, token in ids.items() if token is not None}

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> list[Encoded]:
        """Cut each text into tokens.

        Args:
            texts: The texts.
            max_length: Tokens kept of each, special ones included; by default as many as the model takes.

        Raises:
            ValueError: If the model has no tokenizer, or `max_length` is more than it takes.
        """
        tokenizer, limit = self._needed(), self.longest if max_length is None else max_length
        if not 1 <= limit <= self.longest:
            raise ValueError(
                f"max_length is {limit}, but {self._name} takes 1 to {self.longest} tokens: choose one of these."
            )
        if not texts:
            return []
        if not tokenizer.is_fast:
            cut = [[*self._start, *ids][:limit] for ids in tokenizer(list(texts))["input_ids"]]
            return [Encoded(torch.tensor(ids, dtype=torch.long), self.pieces_of(ids)) for ids in cut]
        batch = tokenizer(list(texts), truncation=True, max_length=max(limit - len(self._start), 1))
        return [self._encoded(text, encoding, limit) for text, encoding in zip(texts, batch.encodings, strict=True)]

    def _encoded(self, text: str, encoding: Any, limit: int) -> Encoded:
        pieces, end, last = [], 0, None
        for token, special, (_, stop) in zip(
            encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        ):
            if special:
                pieces.append(token)
                continue
            last, stop = len(pieces), max(stop, end)
            pieces.append(text[end:stop])
            end = stop
        if last is not None and not encoding.overflowing:
            pieces[last] += text[end:]  # white space that no token stands for
        ids = [*self._start, *encoding.ids][:limit]
        pieces = [*self._needed().convert_ids_to_tokens(self._start), *pieces][:limit]
        return Encoded(torch.tensor(ids, dtype=torch.long), tuple(pieces))

    def pieces_of(self, ids: Sequence[int] | Int[Tensor, " p"]) -> tuple[str, ...]:
        """What each token shows, for data that has only ids; a character cut into tokens shows at its last one.
        Without a tokenizer the ids themselves are shown."""
        ids = [int(token) for token in ids]
        if self._tokenizer is None:
            return tuple(f"<{token}>" for token in ids)
        tokenizer = self._tokenizer
        special = set(tokenizer.all_special_ids)
        anchor = tokenizer.encode("a", add_special_tokens=False)[:1]
        prefix, pieces = tokenizer.decode(anchor, clean_up_tokenization_spaces=False), []
        held: list[int] = []
        for i, token in enumerate(ids):
            if token in special:
                pieces.append(tokenizer.convert_ids_to_tokens(token))
                held = []
                continue
            held.append(token)
            # Decoded after another token, so that white space and joined word pieces show.
            started = any(t not in special for t in ids[: i + 1 - len(held)])
            shown = tokenizer.decode([*(anchor if started else []), *held], clean_up_tokenization_spaces=False)
            shown = shown.removeprefix(prefix) if started else shown
            follows = i + 1 < len(ids) and ids[i + 1] not in special
            waits = shown.endswith(_BROKEN) and follows and len(held) < _LONGEST_CHARACTER
            pieces.append("" if waits else shown)
            held = held if waits else []
        return tuple(pieces)

    def collate(self, token_ids: Sequence[Int[Tensor, " _"]]) -> Inputs:
        """Pad to the longest, on the right; the mask says which positions hold tokens.

        Raises:
            ValueError: If there is nothing to collate, or an example is longer than the model takes.
        """
        lengths = torch.tensor([len(ids) for ids in token_ids])
        if len(lengths) == 0 or not 1 <= int(lengths.max()) <= self.longest:
            raise ValueError(
                f"token_ids has {len(lengths)} examples, the longest of {int(lengths.max()) if len(lengths) else 0} "
                f"tokens, but {self._name} takes one example or more of 1 to {self.longest} tokens: cut them."
            )
        pad = next(iter(self.special_ids.get("pad", {0})))
        ids = torch.nn.utils.rnn.pad_sequence([t.long() for t in token_ids], batch_first=True, padding_value=pad)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return Inputs({"input_ids": ids, "attention_mask": mask.long()}, mask.to(ids.device))

    def _needed(self) -> Any:
        if self._tokenizer is None:
            raise ValueError(
                f"{self._name} was loaded without a tokenizer, so texts cannot be cut into tokens: "
                "give load_model(..., tokenizer=...)."
            )
        return self._tokenizer
