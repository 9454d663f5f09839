"""What every sparse autoencoder is, and what a method may override."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.types import JSON, ActivationStore, Latents, Site
from saes import axes, weights_file
from saes.axes import Axes
from saes.engine import passes
from saes.engine.choices import above
from saes.engine.dense import DenseLatents
from saes.engine.selection import Candidates, Context


class SAE(nn.Module):
    """A sparse autoencoder: `latents = select((x - b_in) @ W_enc + b_enc)`, `recon = latents @ W_dec + b_dec`.

    `b_in` is `b_dec`, but for a transcoder, which predicts another site: there it is a parameter of its own, and
    `recon` may have `x @ W_skip` besides.

    A method overrides `bound` if it looks at each entry alone; else `candidates` and, where it looks at more than one
    row, `choose`; `activate` where the code is not the positive part of the pre-activation; `encoded` where there is
    no linear encoder at all. The constructor's arguments are the configuration: a subclass passes its own on to
    `super().__init__`, and they are saved with the weights.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        seed: Names the random initial directions.
        own: The method's own arguments, plain JSON values, and the axes (`saes.axes`); each becomes an attribute.

    Raises:
        ValueError: If a width is not positive, or an axis cannot be as it is given.
    """

    signed: bool = False
    trainable: bool = True
    by_feature: ClassVar[bool] = True
    """Whether the hooks are given some features of all rows; False: all features of some rows."""
    refuses: ClassVar[Mapping[str, str]] = {}
    """Axes that the method cannot have, each with the reason."""
    latent_units: ClassVar[tuple[str, ...]] = ("b_enc",)
    """Parameters and buffers in the unit of the latents: they are scaled when a normaliser is folded in."""

    prefixes: list[int] | None
    d_out: int
    W_enc: nn.Parameter
    W_skip: nn.Parameter | None

    def __init__(self, *, d_in: int, d_sae: int, seed: int = 0, **own: Any) -> None:
        super().__init__()
        for name, value in (("d_in", d_in), ("d_sae", d_sae)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} is {value!r}, but a width is a whole number of at least 1: give the site's width."
                )
        found = axes.taken(own, d_sae, type(self))
        self.axes = found
        changed = {name: value for name, value in found.items() if value != axes.DEFAULTS[name]}  # type: ignore[literal-required]
        self.arguments: JSON = {"d_in": d_in, "d_sae": d_sae, "seed": seed, **own, **changed}
        for name, value in own.items():
            setattr(self, name, value)
        self.d_in, self.d_sae, self.d_out, self.prefixes = d_in, d_sae, found["d_out"] or d_in, found["prefixes"]
        self.site: Site | None = None
        self.labels: Mapping[int, str] = {}
        self.provenance: JSON = {}
        self._start(found, seed)

    def _start(self, found: Axes, seed: int) -> None:
        """The parameters as they are before anything is known of the data."""
        draw = torch.Generator().manual_seed(seed)
        directions = torch.randn(self.d_sae, self.d_in, generator=draw)
        directions /= directions.norm(dim=1, keepdim=True)
        # [d_in, d_sae] to users, row-major [d_sae, d_in] in memory: gradients arrive a feature at a time.
        self.W_enc = nn.Parameter(directions.clone().T)
        if found["d_out"] is not None:
            directions = torch.randn(self.d_sae, self.d_out, generator=draw)
            directions /= directions.norm(dim=1, keepdim=True)
        self.parametrization = None
        if found["parametrization"] is None:
            # Past `__setattr__`, which takes no parameter of the name of a property.
            self._parameters["W_dec"] = nn.Parameter(directions)
        else:
            self.parametrization = axes.parametrized(found["parametrization"], directions, seed)
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(self.d_out))
        if found["d_out"] is not None:
            self._parameters["b_in"] = nn.Parameter(torch.zeros(self.d_in))
        self.W_skip = nn.Parameter(torch.zeros(self.d_in, self.d_out)) if found["skip"] else None

    @property
    def W_dec(self) -> Tensor:
        """Decoder, `[d_sae, d_out]`: a parameter, or what the parametrization makes, anew at each call."""
        free = self._parameters.get("W_dec")
        if free is not None:
            return free
        assert self.parametrization is not None
        return self.parametrization()

    @property
    def unit_rows(self) -> nn.Parameter | None:
        """The decoder, where training keeps its rows at norm 1; None where a parametrization makes them."""
        return self._parameters.get("W_dec")

    @property
    def b_in(self) -> Tensor:
        """What is taken off the input, `[d_in]`."""
        own = self._parameters.get("b_in")
        return self.b_dec if own is None else own

    # What a method may override -----------------------------------------------------------------------------------

    def bound(self) -> float | Float[Tensor, " d_sae"] | None:
        """What an entry must exceed to have a code or a gradient, where each is looked at alone; else None."""
        return None

    def candidates(self, pre_acts: Float[Tensor, "features rows"], context: Context) -> Candidates:
        """The pairs of one chunk that may be kept; row-wise methods decide here."""
        bound = self.bound()
        if bound is None:
            raise NotImplementedError(f"{type(self).__name__} defines neither bound nor candidates.")
        return above(pre_acts, bound, context)

    def choose(self, candidates: Candidates, context: Context) -> Candidates | None:
        """The pairs kept, out of all chunks' candidates; None to be given wider ones (`context.attempt` rises)."""
        return candidates

    def activate(
        self, pre_acts: Float[Tensor, "..."], support: Latents | DenseLatents
    ) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
        """Codes of pre-activations, differentiable: their positive part, unless a method says otherwise.

        Returns:
            The codes, and what penalties may ask for by name (`Step.extras`).
        """
        return torch.relu(pre_acts), {}

    def moved_thresholds(self, latents: Latents | DenseLatents) -> dict[str, Tensor]:
        """New values of buffers that follow the training batches (evaluation thresholds); the Trainer writes them."""
        return {}

    def press(self, excess: Float[Tensor, ""]) -> None:
        """Move a threshold of the method's own towards a target L0, in place, without waiting for the device.

        Args:
            excess: `log(L0 / target)` of the last batch, in [-1, 1]; 0 where the step did not count.
        """
        del excess

    def default_penalties(self) -> tuple[Any, ...]:
        """Penalties of a job that names none."""
        return ()

    # What users call ----------------------------------------------------------------------------------------------

    def codes(self, x: Float[Tensor, "n d_in"], grads: Float[Tensor, "n d_in"] | None = None) -> Latents:
        """Latents with autograd, for training: like `encode`, without its checks; zeros that have a gradient stay."""
        latents = self.encoded(x, grads).latents
        assert isinstance(latents, Latents)
        return latents

    def encoded(
        self,
        x: Float[Tensor, "n d_in"],
        grads: Float[Tensor, "n d_in"] | None = None,
        *,
        watch: Int[Tensor, " f"] | None = None,
        as_dense: bool = False,
    ) -> passes.Encoded:
        """Latents with autograd and what they were made of: see `saes.engine.passes.encode`."""
        return passes.encode(self, x, grads, watch=watch, as_dense=as_dense)

    def encode(self, x: Float[Tensor, "n d_in"], grads: Float[Tensor, "n d_in"] | None = None) -> Latents:
        """Sparse codes of activations.

        Args:
            x: Activations, in the model's units; of any precision, since stores may keep fewer bits than the SAE.
            grads: Gradient of a loss at each row, for methods that select by it.

        Raises:
            ValueError: If the width is not this SAE's.
        """
        if x.ndim != 2 or x.shape[1] != self.d_in:
            where = f"harvest {self.site} again" if self.site else "harvest the site it was trained on"
            raise ValueError(f"x has shape {list(x.shape)}, but this SAE takes [n, {self.d_in}]: {where}.")
        dtype = self.b_dec.dtype
        return self.codes(x.to(dtype), None if grads is None else grads.to(dtype)).without_zeros()

    def decode(self, latents: Latents) -> Float[Tensor, "n d_out"]:
        """Activations of sparse codes; what passes them by (`bypassed`) is not in it."""
        return passes.decode(latents, self.W_dec, self.b_dec)[0]

    def bypassed(self, recon: Float[Tensor, "*q n d_out"], x: Float[Tensor, "n d_in"]) -> Float[Tensor, "*q n d_out"]:
        """What latents decode to, with what reaches the output past them: nothing, but for a transcoder that skips."""
        return recon if self.W_skip is None else recon + x @ self.W_skip

    def forward(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """Reconstruct activations, or predict the target site's."""
        return self.bypassed(self.decode(self.encode(x)), x.to(self.b_dec.dtype))

    def pre_acts(self, x: Float[Tensor, "n d_in"], features: Tensor) -> Float[Tensor, "n f"]:
        """Dense pre-activations of some features, with autograd."""
        return torch.addmm(self.b_enc[features], x - self.b_in, self.W_enc[:, features])

    @torch.no_grad()
    def rescale(self, scale: float, target_scale: float | None = None) -> None:
        """Fold a normaliser in: trained on `x * scale`, this SAE now takes `x`; decoder norms stay as they are.

        Args:
            scale: What inputs were multiplied by.
            target_scale: What targets were multiplied by; None for autoencoders, whose targets are inputs.
        """
        out = scale if target_scale is None else target_scale
        self.b_dec.div_(out)
        if self.b_in is not self.b_dec:
            self.b_in.div_(scale)
        for matrix in (self.W_enc, self.W_skip):
            if matrix is not None and out != scale:
                matrix.mul_(scale / out)  # Latents are in the target's units.
        self.rescale_latents(out)

    def rescale_latents(self, scale: float) -> None:
        """Divide by a scale all that is in units of the latents."""
        for name in self.latent_units:
            getattr(self, name).div_(scale)

    def initialise(self, store: ActivationStore, **how: Any) -> None:
        """Start at rows of a store: see `saes.initialising`."""
        importlib.import_module("saes.initialising").initialise(self, store, **how)

    def save(self, path: Path | str) -> None:
        """Write weights, class, arguments, site and provenance to one safetensors file, whole or not at all."""
        about = {
            "class": f"{type(self).__module__}.{type(self).__name__}",
            "arguments": self.arguments,
            "site": str(self.site) if self.site else None,
            "labels": {str(feature): label for feature, label in self.labels.items()},
            "provenance": self.provenance,
        }
        weights_file.write(Path(path), self.state_dict(), about)

    def extra_repr(self) -> str:
        """Arguments, as in the constructor."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
