"""Text continued by a causal language model, with a direction added on the way (Turner et al. 2023).

Every step runs the whole sequence: no keys and values are kept, so that edits hold at every position of every step.
Sequences are padded on the right, which a causal model cannot see: each goes on as it would alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.capturing import edited, left_as_found
from interp.editing import add
from interp.edits import Edit, Rows
from interp.stores.shuffling import counter_key
from interp.types import Directions, Inputs, Model, Site

if TYPE_CHECKING:

    class CausalModel(Model, Protocol):
        """A model of tokens that predicts the next one."""

        is_causal: bool
        longest: int
        special_ids: dict[str, set[int]]

        def collate(self, token_ids: Sequence[Tensor]) -> Inputs:
            """Pad examples to one batch, on the right."""
            ...
else:
    # Checking the protocol while running would read each of its members, and reading a fingerprint hashes the weights.
    CausalModel = Any

_SAMPLE = 1  # purpose of the counter-based generator


def generate(
    model: CausalModel,
    prompts: Sequence[Int[Tensor, " _"]],
    *,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Int[Tensor, " _"]]:
    """Continue sequences of tokens, in eval mode; inside `edited`, the edits hold at every step.

    Args:
        model: A causal language model.
        prompts: Token ids, of any lengths.
        max_new_tokens: Tokens added at most. A sequence ends at the end-of-text token, which is left out.
        temperature: 0 takes the likeliest token; above, tokens are drawn from the softmax of `logits / temperature`.
        seed: Names the draws: a function of it, of the sequence's place among the prompts, and of the step.

    Returns:
        The new tokens of each sequence.

    Raises:
        ValueError: If the model does not predict the next token, a prompt is empty or too long, or a number is none.
    """
    _check(model, prompts, max_new_tokens, temperature)
    sequences = [prompt.cpu().long() for prompt in prompts]
    running, ends = set(range(len(prompts))), model.special_ids.get("eos", set())
    with left_as_found(model, frozen=False), torch.no_grad():
        for step in range(max_new_tokens):
            output = model.forward(model.collate(sequences))
            # Sequences that ended stay in the batch, so that an edit of one example meets the same one at every step.
            for i in sorted(running):
                token = _next(output.logits[i, len(sequences[i]) - 1].double().cpu(), temperature, (seed, i, step))
                if token in ends:
                    running.remove(i)
                else:
                    sequences[i] = torch.cat([sequences[i], torch.tensor([token])])
            if not running:
                break
    return [sequence[len(prompt) :] for sequence, prompt in zip(sequences, prompts, strict=True)]


def steer(
    model: CausalModel,
    prompts: Sequence[Int[Tensor, " _"]],
    site: str | Site,
    direction: Float[Tensor, "*shape"] | tuple[Directions, int],
    strength: float | Float[Tensor, " b"] = 1.0,
    *,
    at: Literal["all", "prompt", "new"] = "all",
    **sampling: Any,
) -> list[Int[Tensor, " _"]]:
    """Continue sequences of tokens with a direction added at a site.

    Args:
        model: A causal language model.
        prompts: Token ids, of any lengths.
        site: Where.
        direction: `[d]`, `[b, d]` for one a prompt, or a dictionary and the feature whose direction is meant.
        strength: What the direction, as long as it is, is multiplied by; one for all, or one a prompt.
        at: Positions that are steered: those of the prompt, of the new tokens, or all.
        sampling: As in `generate`.

    Returns:
        The new tokens of each sequence.

    Raises:
        ValueError: As `generate` and `interp.editing.add`; if the site is unknown, or `at` is.
    """
    if at not in ("all", "prompt", "new"):
        raise ValueError(f"at is {at!r}, but positions are steered at 'all', 'prompt' or 'new': choose one of these.")
    starts = torch.tensor([len(prompt) for prompt in prompts])
    steered = add(direction, strength)

    def change(rows: Rows) -> Tensor:
        new = rows.position >= starts.to(rows.position.device)[rows.example]
        return torch.where((new == (at == "new"))[:, None], steered.change(rows), rows.values)

    with edited(model, {site: steered if at == "all" else Edit(change)}):
        return generate(model, prompts, **sampling)


def _next(logits: Float[Tensor, " v"], temperature: float, counters: tuple[int, int, int]) -> int:
    if temperature == 0:
        return int(logits.argmax())
    seed, sequence, step = counters
    generator = torch.Generator().manual_seed(int(counter_key(seed, _SAMPLE, sequence, step)) >> 1)
    # The largest of logits with Gumbel noise is a draw from their softmax.
    noise = -torch.rand(len(logits), dtype=logits.dtype, generator=generator).log().neg().log()
    return int((logits / temperature + noise).argmax())


def _check(model: CausalModel, prompts: Sequence[Tensor], max_new_tokens: int, temperature: float) -> None:
    if not model.is_causal:
        raise ValueError(
            f"{model.name} does not predict the next token, so it continues no text: use a causal language model, "
            "or read what an edit does to an encoder's embedding inside `edited`."
        )
    if max_new_tokens < 0 or not 0 <= temperature < float("inf"):
        raise ValueError(
            f"max_new_tokens is {max_new_tokens} and temperature is {temperature}, but neither is negative or "
            "infinite: temperature=0 takes the likeliest token."
        )
    room = model.longest - max_new_tokens
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or not all(1 <= length <= room for length in lengths):
        raise ValueError(
            f"prompts have {lengths} tokens, but with max_new_tokens={max_new_tokens} each has 1 to {room}, since "
            f"{model.name} takes {model.longest}: cut them, or ask for fewer new tokens."
        )
