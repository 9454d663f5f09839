"""What directions share that are fitted to a store rather than trained by the Trainer."""

import importlib
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.types import JSON, ActivationStore, Latents, Site
from saes import weights_file
from saes.arguments import check_k
from saes.engine.choices import top_rows
from saes.engine.sparse import weighted_sums

_CHUNK_VALUES = 1 << 24
_PACKAGES = ("saes.baselines", "saes.codebooks")
# `Self` is refused where shapes are checked.
Found = TypeVar("Found", bound="Fitted")


class Fitted(nn.Module):
    """Directions with a fit of their own. A method gives `codes`, and a classmethod `fit` that makes one.

    The constructor's arguments are the configuration. Weights are in the model's units, and NaN until fitted or loaded.

    Args:
        d_in: Width of the activations.
        d_sae: Number of directions.
        own: The method's own arguments, plain JSON values; each becomes an attribute.

    Raises:
        ValueError: If a width is not positive.
    """

    signed: bool = True
    trainable: bool = False

    W_dec: Float[Tensor, "d_sae d_in"]
    W_enc: Float[Tensor, "d_in d_sae"] | None
    b_enc: Float[Tensor, " d_sae"]
    b_dec: Float[Tensor, " d_in"]

    def __init__(self, *, d_in: int, d_sae: int, **own: Any) -> None:
        super().__init__()
        for name, value in (("d_in", d_in), ("d_sae", d_sae)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}, but a width is a whole number of at least 1: give one.")
        self.d_in, self.d_sae = d_in, d_sae
        self.arguments: JSON = {"d_in": d_in, "d_sae": d_sae, **own}
        for name, value in own.items():
            setattr(self, name, value)
        self.site: Site | None = None
        self.labels: Mapping[int, str] = {}
        self.provenance: JSON = {}
        self.register_buffer("W_enc", None)
        self.register_buffer("b_dec", unset(d_in))

    def codes(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """Codes of rows of the right width and precision; zeros may be among them."""
        raise NotImplementedError(f"{type(self).__name__} defines no codes.")

    def encode(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """Sparse codes of activations.

        Args:
            x: Activations, in the model's units.

        Raises:
            ValueError: If the width is another one, or nothing was fitted.
        """
        x = self._checked(x)
        # No more than a chunk of [n, d_sae] is held at once.
        parts = [self.codes(part) for part in x.split(max(1, _CHUNK_VALUES // self.d_sae))]
        return (parts[0] if len(parts) == 1 else _joined(parts)).without_zeros()

    def _checked(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            where = f"harvest {self.site} again" if self.site else "take the site it was fitted on"
            raise ValueError(
                f"x has shape {list(x.shape)}, but this {type(self).__name__} takes [n, {self.d_in}]: {where}."
            )
        if self.b_dec[0].isnan():
            name = type(self).__name__
            raise ValueError(f"this {name} holds no directions yet: make it with {name}.fit(store, ...).")
        return x.to(self.b_dec.dtype)

    def decode(self, latents: Latents) -> Float[Tensor, "n d_in"]:
        """Activations of sparse codes."""
        return weighted_sums(self.W_dec, latents.indices, latents.offsets, latents.values) + self.b_dec

    def forward(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
        """Reconstruct activations."""
        return self.decode(self.encode(x))

    def _from(self: Found, store: ActivationStore, **fit: Any) -> Found:
        """Finish a fit: note where the directions come from."""
        for name, value in self.named_buffers():
            # As they will be read back: the last bits of a product depend on strides.
            setattr(self, name, value.contiguous())
        self.site = store.site
        about = {**store.provenance, "store": store.fingerprint, "fit": fit}
        self.provenance = json.loads(json.dumps(about))  # As it will be read back: lists, no tuples.
        return self.eval()

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


class Projection(Fitted):
    """Linear codes `(x - b_dec) @ W_enc + b_enc`, of which each row keeps the `k` largest in magnitude.

    Directions have unit norm, so that the size of a code is the length of what it adds.

    Args:
        d_in: Width of the activations.
        d_sae: Number of directions.
        k: Codes kept a row; None for all.
        own: As in `Fitted`.

    Raises:
        ValueError: If `k` is not in `1..d_sae`.
    """

    def __init__(self, *, d_in: int, d_sae: int, k: int | None = None, **own: Any) -> None:
        if k is not None:
            check_k("k", k, d_sae)
        super().__init__(d_in=d_in, d_sae=d_sae, k=k, **own)
        self.k: int | None
        self.register_buffer("W_enc", unset(d_in, d_sae))
        self.register_buffer("b_enc", torch.zeros(d_sae))
        self.register_buffer("W_dec", unset(d_sae, d_in))

    def codes(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """The `k` largest linear codes, with autograd."""
        assert self.W_enc is not None
        return largest(torch.addmm(self.b_enc, x - self.b_dec, self.W_enc), self.k)


def unset(*shape: int) -> Tensor:
    """A weight before its fit: NaN, so that it never passes for a result."""
    return torch.full(shape, torch.nan)


def largest(codes: Float[Tensor, "n d_sae"], k: int | None) -> Latents:
    """The `k` codes of largest magnitude of each row; None for all."""
    n, d_sae = codes.shape
    k = d_sae if k is None else k
    if k == d_sae:
        indices = torch.arange(d_sae, device=codes.device).expand(n, -1)
    else:
        indices = top_rows(codes.detach().abs(), k)[1].sort(dim=1).values
    return Latents(codes.gather(1, indices).flatten(), indices.flatten(), None, d_sae, k=k)


def signs(directions: Float[Tensor, "m d"]) -> Float[Tensor, "m 1"]:
    """The sign of each row's entry of largest magnitude: a direction that is free up to its sign is divided by it."""
    return directions.gather(1, directions.abs().argmax(dim=1, keepdim=True)).sign()


def _joined(parts: list[Latents]) -> Latents:
    counts = torch.cat([part.offsets.diff() for part in parts])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    values, indices = (torch.cat([getattr(part, name) for part in parts]) for name in ("values", "indices"))
    return Latents(values, indices, offsets, parts[0].d_sae)


def methods() -> dict[str, type[Fitted]]:
    """Every method by the full name of its class: the subclasses of `Fitted` that files of the two folders define."""
    found: dict[str, type[Fitted]] = {}
    for package in _PACKAGES:
        for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
            module = importlib.import_module(f"{package}.{info.name}")
            own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
            if info.name != "base":
                found |= {
                    f"{module.__name__}.{v.__name__}": v for v in own if isinstance(v, type) and issubclass(v, Fitted)
                }
    return found


def load(path: Path | str) -> Fitted:
    """Load saved directions, in eval mode.

    Raises:
        ValueError: If the file holds no directions, or names anything but a method of `saes.baselines` or
            `saes.codebooks`: it is checked before it is called.
    """
    tensors, about = weights_file.read(Path(path))
    name, known = str(about.get("class")), methods()
    if name not in known:
        raise ValueError(
            f"{path} names the class {name!r}, which is none of {', '.join(sorted(known))}: load it by saes.load."
        )
    try:
        fitted = known[name](**about["arguments"]).to(tensors["b_dec"].dtype)
        fitted.load_state_dict(tensors)
        fitted.site = Site.parse(about["site"]) if about.get("site") else None
        fitted.labels = {int(feature): label for feature, label in about.get("labels", {}).items()}
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit {name} ({error}): it is damaged or from another version.") from error
    fitted.provenance = about.get("provenance", {})
    return fitted.eval()
