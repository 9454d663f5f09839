"""The parts of a transformer block under TransformerLens' names, whatever the model calls them."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from interp.types import Place, Site

SIDES: tuple[tuple[str, Literal["out", "in"]], ...] = (("@in", "in"), ("", "out"))
# Sites whose last axis holds the heads, one after the other.
_OF_HEADS = {".attn.q", ".attn.k", ".attn.v", ".attn.o@in"}
_ALIASES = {
    "hook_resid_pre": "@in",
    "hook_resid_mid": ".ln2@in",
    "hook_resid_post": "",
    "hook_attn_out": ".attn",
    "hook_mlp_in": ".mlp.in@in",
    "hook_mlp_out": ".mlp.out",
    "attn.hook_q": ".attn.q",
    "attn.hook_k": ".attn.k",
    "attn.hook_v": ".attn.v",
    "attn.hook_z": ".attn.o@in",
    "mlp.hook_post": ".mlp.out@in",
}


def block_parts(name: str, modules: Mapping[str, nn.Module], heads: int) -> tuple[dict[str, Place], dict[str, str]]:
    """Name both sides of every part of a pre-norm block, and its attention pattern.

    Args:
        name: Of the block, `blocks.3`.
        modules: Its parts, by the end of their names: `""` for itself, `.ln1`, `.attn`, `.attn.q`, `.attn.k`,
            `.attn.v`, `.attn.o`, `.ln2`, `.mlp.in`, `.mlp.out`, and where it has them `.mlp` and `.mlp.gate`.
        heads: Attention heads.

    Returns:
        The places by canonical site, and TransformerLens' other names of these sites.
    """
    sites = {part + side: Place(module, io) for part, module in modules.items() for side, io in SIDES}
    canonical = {part: f"{name}{part}{f'#{heads}' if part in _OF_HEADS else ''}" for part in sites}
    parts = {canonical[part]: place for part, place in sites.items()}
    parts[f"{name}.attn.hook_pattern"] = _handed_out(modules[".attn"])
    aliases = {f"{name}.{alias}": canonical[part] for alias, part in _ALIASES.items()}
    gated = ".mlp.gate" in modules
    aliases[f"{name}.mlp.hook_pre"] = canonical[".mlp.gate" if gated else ".mlp.in"]
    if gated:
        aliases[f"{name}.mlp.hook_pre_linear"] = canonical[".mlp.in"]
    return parts, aliases | hook_names(canonical.values())


def hook_names(sites: Iterable[str]) -> dict[str, str]:
    """`x.hook_in` and `x.hook_out` for the two sides of x."""
    names = {site.partition("#")[0]: site for site in sites}
    return {
        f"{name.removesuffix('@in')}.hook_{'in' if name.endswith('@in') else 'out'}": site
        for name, site in names.items()
    }


def pattern_afterwards(bridge: nn.Module, site: Site) -> Place | None:
    """Where an attention pattern is read that a bridge shows once the model's own attention has used it; None for any
    other place.

    Args:
        bridge: A `TransformerBridge`.
        site: One of its sites.
    """
    owner, _, last = site.module.rpartition(".")
    if last != "hook_pattern":
        return None
    attention: Any = bridge.get_submodule(owner)
    # Components that make the pattern themselves have a `forward` of their own, or hand their hook point on.
    delegates = getattr(type(attention).forward, "__qualname__", "") == "AttentionBridge.forward"
    inside = getattr(getattr(attention, "original_component", None), "accepts_pattern_fn", False)
    if not delegates or inside or getattr(attention, "requires_relative_position_bias", False):
        return None
    return _handed_out(attention)


def _handed_out(attention: nn.Module) -> Place:
    """The pattern beside what attention gives: it can be read, but by then it was used."""
    return Place(attention, index=1, read=_alone)


def _alone(pattern: Tensor) -> Tensor:
    return pattern
