"""Memory that one chunk leaves to the next: what is written anew each time need not be asked for each time."""

import torch
from torch import Tensor


class Scratch:
    """Buffers by name, grown to the largest shape asked for.

    What is handed out under a name is valid until that name is asked for again.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of this shape, of `like`'s device and type unless said otherwise; what it holds is undefined."""
        key = (name, dtype or like.dtype, like.device)
        numel = torch.Size(shape).numel()
        found = self._buffers.get(key)
        if found is None or found.numel() < numel:
            found = self._buffers[key] = torch.empty(numel, dtype=key[1], device=key[2])
        return found[:numel].view(shape)
