"""A text model and texts that need no download; also run by the processes that the kill tests start."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from interp.models.torch_module import TorchModel
from interp.types import Inputs


@dataclass(frozen=True)
class _Encoded:
    tokens: torch.Tensor
    pieces: tuple[str, ...]


class _Network(nn.Module):
    """Token embeddings, then two residual blocks that see the mean of the positions before."""

    def __init__(self, d: int, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.blocks = nn.ModuleList(nn.Linear(d, d) for _ in range(2))
        self.head = nn.Linear(d, vocabulary)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        steps = torch.arange(1, x.shape[1] + 1)[:, None]
        for block in self.blocks:
            x = x + block(x.cumsum(1) / steps).tanh()
        return self.head(x)


class TinyText(TorchModel):
    """A causal text model of two blocks, seeded, with words as tokens: [CLS] = 1, [SEP] = 2, padding = 0."""

    special_ids = {"pad": {0}, "cls": {1}, "bos": {1}, "sep": {2}, "eos": {2}}
    longest = 64

    def __init__(self, *, d: int = 8, vocabulary: int = 50, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _Network(d, vocabulary)
        super().__init__(network, name="tiny-text")
        self._vocabulary = vocabulary

    def tokenize(self, texts: Sequence[str], max_length: int) -> list[_Encoded]:
        return [self._encode(text, max_length) for text in texts]

    def _encode(self, text: str, max_length: int) -> _Encoded:
        words = re.findall(r"\s*\S+", text)[: max_length - 2]
        ids = [3 + sum(word.strip().encode()) % (self._vocabulary - 3) for word in words]
        return _Encoded(torch.tensor([1, *ids, 2]), ("[CLS]", *words, "[SEP]"))

    def pieces_of(self, ids: torch.Tensor) -> tuple[str, ...]:
        return tuple(f" {int(token)}" for token in ids)

    def collate(self, token_ids: Sequence[torch.Tensor]) -> Inputs:
        ids = nn.utils.rnn.pad_sequence(list(token_ids), batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(part) for part in token_ids])[:, None]
        return Inputs({"input_ids": ids, "attention_mask": mask.long()}, mask)

    def token_losses(self, output: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        target = inputs.tensors["input_ids"][:, 1:]
        losses = nn.functional.cross_entropy(output[:, :-1].transpose(1, 2), target, reduction="none")
        return losses * inputs.mask[:, 1:]

    def embedding(self, output: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        return (output * inputs.mask[:, :, None]).sum(1) / inputs.mask.sum(1, keepdim=True)


WORDS = ("the of residual stream probes find sparse directions that name a feature in layers\u00e9 \u4e2d").split()  # noqa: SIM905  # a sentence reads better


def sentences(n: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Items of 0 to 20 words with labels; a few without text."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 21, (n,), generator=generator).tolist()
    return [
        {
            "text": " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (length,), generator=generator).tolist()),
            "kind": f"kind {number % 3}",
        }
        for number, length in enumerate(lengths)
    ]
