"""Text models through TransformerLens 4: named places in every block, and a plain fast path for block outputs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp import steering
from interp.models.base import Fingerprint, hooks_of, unknown_site
from interp.models.layouts.blocks import pattern_afterwards
from interp.models.text_output import TextOutput, mean_hidden, next_token_losses
from interp.models.tokenizing import Tokenizing
from interp.types import Directions, Geometry, Inputs, Place, Site


def bridged(model: Any, *, name: str, tokenizer: Any = None) -> Any:
    """Build a `TransformerBridge` on a Hugging Face model, in place.

    Raises:
        ValueError: If TransformerLens has no adapter for the model's class.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    return build_bridge_from_module(
        model, type(model).__name__, hf_config=model.config, tokenizer=tokenizer, model_name=name
    )


class BridgeModel:
    """A text encoder or causal language model whose sites are TransformerLens paths.

    `blocks.3` is the output of that block and `blocks.3@in` its input; `blocks.3.hook_resid_post`,
    `blocks.3.attn.hook_z` and the other TransformerLens names are aliases.

    Where `plain` is given, forward passes go through it as long as nothing is hooked inside the bridge: the bridge's
    own components and eager attention cost 10-25 % of a forward pass (32 x 128 tokens, 6 layers, CPU). Values of
    the two agree to float32 rounding.

    Args:
        bridge: A `TransformerBridge`.
        name: What manifests call it.
        tokenizer: A Hugging Face tokenizer; by default the bridge's.
        plain: The same model before it was bridged, sharing its weights.
        untrained: Names of weights that no checkpoint gave: left out of the fingerprint, and their head never run.
    """

    def __init__(
        self, bridge: Any, *, name: str, tokenizer: Any = None, plain: Any = None, untrained: Sequence[str] = ()
    ) -> None:
        self.module, self.name, self._plain, self._untrained = bridge, name, plain, frozenset(untrained)
        self.is_causal = bridge.cfg.attention_dir == "causal"
        self._tokenizing = Tokenizing(
            tokenizer if tokenizer is not None else bridge.tokenizer,
            name=name,
            longest=bridge.cfg.n_ctx,
            prepend_bos=self.is_causal and bool(getattr(bridge.cfg, "default_prepend_bos", False)),
        )
        self._weights = Fingerprint()
        self._inside = tuple(bridge.modules())
        # TransformerLens wires some of its components by hooks of its own; what comes later is someone else's.
        self._wiring = frozenset(h for module in self._inside for h in hooks_of(module))
        self._points = bridge.hook_dict
        self._sites = {alias: self._canonical(point.name) for alias, point in self._points.items()}
        self._sites |= {str(site): site for site in self._sites.values()}
        self._twins = self._plain_blocks()
        self.special_ids, self.longest = self._tokenizing.special_ids, self._tokenizing.longest
        self.tokenize, self.pieces_of = self._tokenizing.tokenize, self._tokenizing.pieces_of
        self.collate = self._tokenizing.collate

    def _canonical(self, point: str) -> Site:
        """`x.hook_out` is the output of x and `x.hook_in` its input; other hook points stand for themselves."""
        owner, _, last = point.rpartition(".")
        if last not in ("hook_in", "hook_out") or not owner:
            return Site(point)
        io, cfg = "in" if last == "hook_in" else "out", self.module.cfg
        n_heads = {("o", "in"): cfg.n_heads, ("q", "out"): cfg.n_heads}
        n_kv = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
        n_heads |= {("k", "out"): n_kv, ("v", "out"): n_kv}
        *_, parent, part = ("", *owner.split("."))
        heads = n_heads.get((part, io)) if parent == "attn" else None
        return replace(Site.parse(f"{owner}@{io}"), heads=heads)

    def _plain_blocks(self) -> dict[Site, Place]:
        """Input and output of each block, in the plain model."""
        if self._plain is None:
            return {}
        paths = {id(module): path for path, module in self.module.original_model.named_modules()}
        blocks = {f"blocks.{i}": paths.get(id(block)) for i, block in enumerate(getattr(self.module, "blocks", ()))}
        found = {name: self._plain.get_submodule(path) for name, path in blocks.items() if path}
        sides = [Site.parse(f"{name}{io}") for name in found for io in ("", "@in")]
        return {site: Place(found[site.module], site.io) for site in sides}

    @property
    def fingerprint(self) -> str:
        """Hash of the weights as they are now."""
        state = (self.module if self._plain is None else self._plain).state_dict()
        return self._weights.of({name: value for name, value in state.items() if name not in self._untrained})

    def site(self, name: str | Site) -> Site:
        """The canonical site of a TransformerLens name, alias or path.

        Raises:
            ValueError: If the model has no such place, or the site asks for an element or heads it has not.
        """
        asked = Site.parse(name)
        text = f"{asked.module}@in" if asked.io == "in" else asked.module
        # Inputs and outputs of hook points are one value, so hook_z@in is hook_z.
        site = self._sites.get(text) or self._sites.get(asked.module if asked.module in self._points else "")
        if site is None:
            site = next((s for s in self._sites.values() if (s.module, s.io) == (asked.module, asked.io)), None)
        if site is None:
            raise unknown_site(text, self.sites(), self.name)
        if asked.index or asked.heads not in (None, site.heads):
            raise ValueError(f"site is {asked}, but {self.name} has one tensor there, {site}: ask for that.")
        return site

    def sites(self) -> list[str]:
        """Every name that `site` takes: canonical sites first, then aliases."""
        canonical = dict.fromkeys(str(site) for site in self._sites.values())
        return [*canonical, *(name for name in self._sites if name not in canonical)]

    def place(self, site: Site) -> Place:
        """The bridge's hook point at a site; a forward pass goes through it while it is hooked."""
        site = self.site(site)
        for point in (f"{site.module}.hook_{site.io}", site.module):
            if point in self._points:  # the output and the input of a hook point are one value
                return pattern_afterwards(self.module, site) or Place(self._points[point], site.io)
        raise unknown_site(str(site), self.sites(), self.name)

    def reading(self, sites: Sequence[Site]) -> dict[Site, Place]:
        """The places to hook to read these sites in one pass, on the fastest path that has all of them."""
        if self._runs_plain() and all(site in self._twins for site in sites):
            return {site: self._twins[site] for site in sites}
        return {site: self.place(site) for site in sites}

    def _runs_plain(self) -> bool:
        # Weight processing (folded norms) changes the bridge's numbers, not the plain model's.
        processed = getattr(self.module, "compatibility_mode", False) or getattr(
            self.module, "_weights_processed", False
        )
        return self._plain is not None and not processed and not any(map(self._is_hooked, self._inside))

    def _is_hooked(self, module: nn.Module) -> bool:
        # Blocks wire themselves at their first run: those hooks are known by where they are defined.
        return any(
            h not in self._wiring and not getattr(h, "__module__", "").startswith("transformer_lens.model_bridge")
            for h in hooks_of(module)
        )

    def modules(self) -> Iterator[nn.Module]:
        """Every module that a forward pass may run."""
        roots = [root for root in (self._plain, self.module.original_model, self.module) if root is not None]
        seen = {id(module): module for root in roots for module in root.modules()}
        return iter(seen.values())

    def geometry(self, site: Site, inputs: Inputs | None = None) -> Geometry:
        """Positions are tokens; special tokens are ordinary positions."""
        return Geometry()

    def forward(self, inputs: Inputs) -> TextOutput:
        """Run the model; padded positions are attended to by none."""
        runner = self._plain if self._runs_plain() else self.module.original_model
        body = getattr(runner, "base_model", None)
        has_head = not self._untrained and body is not runner
        device = next(runner.parameters()).device
        tensors = {key: value.to(device) for key, value in inputs.tensors.items()}
        caught: list[Any] = []
        if body is None:  # TransformerLens' own small models: what goes into the unembedding
            handle = self.module.unembed.register_forward_pre_hook(lambda _m, args: caught.append(args[0]))
        else:
            handle = body.register_forward_hook(lambda _m, _args, output: caught.append(output[0]))
        try:
            output = (runner if has_head or body is None else body)(**tensors, **self._options())
        finally:
            handle.remove()
        logits = getattr(output, "logits", output if isinstance(output, Tensor) else None)
        return TextOutput(caught[0], logits if has_head else None)

    def _options(self) -> dict[str, Any]:
        # No cache of keys and values is kept: nothing is generated.
        return {"use_cache": False} if self.is_causal else {}

    def embedding(self, output: TextOutput, inputs: Inputs) -> Float[Tensor, "b d"]:
        """One vector a text: the mean of the last hidden state over the positions that hold tokens."""
        return mean_hidden(output, inputs)

    def token_losses(self, output: TextOutput, inputs: Inputs) -> Float[Tensor, "b p_minus_1"]:
        """Cross-entropy of each next token in nats; zero where it is padding.

        Raises:
            ValueError: If the model does not predict the next token.
        """
        if not self.is_causal or output.logits is None:
            raise ValueError(
                f"{self.name} does not predict the next token, so it has no token losses: use a causal language model, "
                "or compare `embedding` for an encoder."
            )
        return next_token_losses(output, inputs)

    def generate(self, prompts: str | Sequence[str], **sampling: Any) -> list[str]:
        """Continue texts; inside `edited`, the edits hold at every step.

        Args:
            prompts: One text or several.
            sampling: `max_new_tokens`, `temperature` and `seed` of `interp.steering.generate`.

        Returns:
            What follows each text.

        Raises:
            ValueError: As `interp.steering.generate`; if the model has no tokenizer.
        """
        return self._continued(prompts, steering.generate, **sampling)

    def steer(
        self,
        prompts: str | Sequence[str],
        site: str | Site,
        direction: Float[Tensor, "*shape"] | tuple[Directions, int],
        strength: float | Float[Tensor, " b"] = 1.0,
        **options: Any,
    ) -> list[str]:
        """Continue texts with a direction added at a site.

        Args:
            prompts: One text or several.
            site: Where.
            direction: `[d]`, `[b, d]` for one a text, or a dictionary and the feature whose direction is meant.
            strength: What the direction is multiplied by; one for all, or one a text.
            options: `at` of `interp.steering.steer`, and what `generate` takes.

        Returns:
            What follows each text.

        Raises:
            ValueError: As `interp.steering.steer`; if the model has no tokenizer.
        """
        return self._continued(prompts, steering.steer, site, direction, strength, **options)

    def _continued(
        self, prompts: str | Sequence[str], go_on: Callable[..., list[Tensor]], *args: Any, **options: Any
    ) -> list[str]:
        encoded = self.tokenize([prompts] if isinstance(prompts, str) else prompts)
        starts = [part.tokens for part in encoded]
        ends = go_on(self, starts, *args, **options)
        pieces = [self.pieces_of(torch.cat(pair)) for pair in zip(starts, ends, strict=True)]
        return ["".join(shown[len(start) :]) for shown, start in zip(pieces, starts, strict=True)]
