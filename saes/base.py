"""What every sparse autoencoder is, and what a method may override."""

import importlib
import math
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.types import JSON, Latents, Site
from saes import weights_file
from saes.engine import passes
from saes.engine.choices import above
from saes.engine.dense import DenseLatents
from saes.engine.selection import Candidates, Context


class SAE(nn.Module):
    """A sparse autoencoder: `latents = select((x - b_dec) @ W_enc + b_enc)`, `recon = latents @ W_dec + b_dec`.

    A method overrides `bound` if it looks at each entry alone; else `candidates` and, where it looks at more than one
    row, `choose`; `activate` where the code is not the positive part of the pre-activation; `encoded` where there is
    no linear encoder at all. The constructor's arguments are the configuration: a subclass passes its own on to
    `super().__init__`, and they are saved with the weights.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        seed: Names the random initial directions.
        own: The method's own arguments, plain JSON values; each becomes an attribute.

    Raises:
        ValueError: If a width is not positive.
    """

    signed: bool = False
    trainable: bool = True
    by_feature: ClassVar[bool] = True
    """Whether the hooks are given some features of all rows; False: all features of some rows."""
    prefixes: list[int] | None = None
    """Numbers of latents whose first ones reconstruct on their own in training (Matryoshka); the last is `d_sae`."""
    latent_units: ClassVar[tuple[str, ...]] = ("b_enc",)
    """Parameters and buffers in the unit of the latents: they are scaled when a normaliser is folded in."""

    W_enc: nn.Parameter
    W_dec: nn.Parameter

    def __init__(self, *, d_in: int, d_sae: int, seed: int = 0, **own: Any) -> None:
        super().__init__()
        for name, value in (("d_in", d_in), ("d_sae", d_sae)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} is {value!r}, but a width is a whole number of at least 1: give the site's width."
                )
        self.d_in, self.d_sae = d_in, d_sae
        self.arguments: JSON = {"d_in": d_in, "d_sae": d_sae, "seed": seed, **own}
        for name, value in own.items():
            setattr(self, name, value)
        self.site: Site | None = None
        self.labels: Mapping[int, str] = {}
        self.provenance: JSON = {}
        directions = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed))
        directions /= directions.norm(dim=1, keepdim=True)
        # [d_in, d_sae] to users, row-major [d_sae, d_in] in memory: gradients arrive a feature at a time.
        self.W_enc = nn.Parameter(directions.clone().T)
        self.W_dec = nn.Parameter(directions)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

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

    def decode(self, latents: Latents) -> Float[Tensor, "n d_in"]:
        """Activations of sparse codes."""
        return passes.decode(latents, self.W_dec, self.b_dec)[0]

    def forward(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
        """Reconstruct activations."""
        return self.decode(self.encode(x))

    def pre_acts(self, x: Float[Tensor, "n d_in"], features: Tensor) -> Float[Tensor, "n f"]:
        """Dense pre-activations of some features, with autograd."""
        return torch.addmm(self.b_enc[features], x - self.b_dec, self.W_enc[:, features])

    @torch.no_grad()
    def rescale_inputs(self, scale: float) -> None:
        """Fold a normaliser in: trained on `x * scale`, this SAE now takes `x`; decoder norms stay as they are."""
        self.b_dec.div_(scale)
        for name in self.latent_units:
            getattr(self, name).div_(scale)

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


def load(path: Path | str, *, classes: Sequence[type[SAE]] = ()) -> SAE:
    """Load a saved SAE, in eval mode.

    Args:
        path: The file that `SAE.save` wrote.
        classes: Methods of your own that the file may name, besides those of `saes`.

    Raises:
        ValueError: If the file is no saved SAE, or names anything but a method: it is checked before it is called.
    """
    tensors, about = weights_file.read(Path(path))
    method = _method(str(about.get("class")), classes, Path(path))
    try:
        sae = method(**about["arguments"]).to(tensors["W_dec"].dtype)
        sae.load_state_dict(tensors)
        sae.site = Site.parse(about["site"]) if about.get("site") else None
        sae.labels = {int(feature): label for feature, label in about.get("labels", {}).items()}
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit {about['class']} ({error}): it is damaged or from another version."
        ) from error
    sae.provenance = about.get("provenance", {})
    return sae.eval()


def methods() -> dict[str, type[SAE]]:
    """Every method of this package by class name: the SAE subclasses defined in its own files."""
    found = {}
    for name in _method_files():
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and issubclass(value, SAE) and value is not SAE and value.__module__ == name:
                found[value.__name__] = value
    return found


def _method_files() -> list[str]:
    """Modules of the package's top level, this one left out."""
    return [
        f"saes.{m.name}"
        for m in pkgutil.iter_modules(importlib.import_module("saes").__path__)
        if not m.ispkg and m.name != "base"
    ]


def _method(name: str, classes: Sequence[type[SAE]], path: Path) -> type[SAE]:
    for own in classes:
        if f"{own.__module__}.{own.__name__}" == name:
            return own
    known = {f"{method.__module__}.{method.__name__}": method for method in methods().values()}
    if name not in known:
        raise ValueError(
            f"{path} names the class {name!r}, which is no method of saes: known are {', '.join(sorted(known))}; "
            "a method of your own is loaded by classes=[YourClass]."
        )
    return known[name]


def default_lr(d_sae: int) -> float:
    """Learning rate where a job names none: 1e-2 at 256 latents, falling with width (3.9e-3 at 6144).

    Measured at both ends. On MiniLM with 6144 latents, 400 steps of 2048, 4.5e-3 gives FVU .107 and 0.9 % dead where
    2.8e-3 gives .113 and none.
    """
    return 1e-2 * math.pow(256 / d_sae, 0.3)
