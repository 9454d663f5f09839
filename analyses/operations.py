"""Operations that torch does in one step, written out in plain ones; arguments after the first have torch's names."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """`torch.layer_norm`."""
    return _affine(_normalised(x, len(normalized_shape), eps), weight, bias)


def rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """`torch.rms_norm`."""
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(_normalised(x, len(normalized_shape), eps, centre=False), weight, None)


def group_norm(
    x: Float[Tensor, "b c *grid"],
    num_groups: int,
    weight: Float[Tensor, " c"] | None = None,
    bias: Float[Tensor, " c"] | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Float[Tensor, "b c *grid"]:
    """`torch.group_norm`."""
    x = _normalised(x.reshape(len(x), num_groups, -1), 1, eps).view(x.shape)
    return _affine(x, _of_channels(weight, x), _of_channels(bias, x))


def instance_norm(
    x: Float[Tensor, "b c *grid"],
    weight: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    running_mean: Float[Tensor, " c"] | None,
    running_var: Float[Tensor, " c"] | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Float[Tensor, "b c *grid"]:
    """`torch.instance_norm`; running statistics are not moved."""
    if use_input_stats or running_mean is None or running_var is None:
        return group_norm(x, x.shape[1], weight, bias, eps)
    x = (x - _of_channels(running_mean, x)) / (_of_channels(running_var, x) + eps).sqrt()
    return _affine(x, _of_channels(weight, x), _of_channels(bias, x))


def attention(
    query: Float[Tensor, "*b q d"],
    key: Float[Tensor, "*c p d"],
    value: Float[Tensor, "*c p e"],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Float[Tensor, "*b q e"]:
    """`torch.nn.functional.scaled_dot_product_attention`; what attends to nothing is given 0."""
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    looks = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(looks.shape[-2:], dtype=torch.bool, device=looks.device).tril()
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        looks = looks.masked_fill(~attn_mask, -math.inf) if allowed else looks + attn_mask
    alone = (looks == -math.inf).all(dim=-1, keepdim=True)
    pattern = looks.masked_fill(alone, 0).softmax(dim=-1).masked_fill(alone, 0)
    return (nn.functional.dropout(pattern, dropout_p) if dropout_p else pattern) @ value


def gated(x: Tensor, dim: int = -1) -> Tensor:
    """`torch.nn.functional.glu`."""
    values, gates = x.chunk(2, dim)
    return values * gates.sigmoid()


def cosine(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """`torch.cosine_similarity`."""
    first, second = (part.norm(dim=dim).clamp(min=eps) for part in (x1, x2))
    return (x1 * x2).sum(dim) / (first * second)


WRITTEN_OUT: dict[str, Callable[..., Tensor]] = {
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "scaled_dot_product_attention": attention,
    "glu": gated,
    "cosine_similarity": cosine,
}


def _normalised(x: Tensor, last: int, eps: float, *, centre: bool = True) -> Tensor:
    """Over so many axes at the end: mean 0 where it is centred, and mean square 1."""
    axes = tuple(range(-last, 0))
    x = x - x.mean(axes, keepdim=True) if centre else x
    return x / ((x * x).mean(axes, keepdim=True) + eps).sqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _of_channels(values: Any, like: Tensor) -> Any:
    """One number a channel, as it is multiplied with maps."""
    return values if values is None else values.view(-1, *[1] * (like.ndim - 2))
