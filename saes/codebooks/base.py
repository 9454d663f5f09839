"""What a codebook is: each activation is replaced by its nearest codeword."""

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import ActivationStore, Latents
from saes.baselines.base import Fitted
from saes.engine.optimizing import Adam
from saes.normalising import estimate

Book = TypeVar("Book", bound="Codebook")


@dataclass(frozen=True)
class Quantized:
    """Activations replaced by codewords.

    Args:
        values: The codewords; their gradient goes to the activations as it is (straight through).
        indices: The codeword of each row.
        loss: `alpha |z - sg(q)|^2 + beta |sg(z) - q|^2`, averaged over rows and channels.
    """

    values: Float[Tensor, "n d_in"]
    indices: Int[Tensor, " n"]
    loss: Float[Tensor, ""]


@dataclass(frozen=True)
class Usage:
    """How much of a codebook some rows use.

    Args:
        utilisation: Fraction of the codewords that at least one row takes.
        perplexity: e to the entropy of how often each is taken: the number of codewords, were they used evenly.
        counts: Rows that take each codeword.
    """

    utilisation: float
    perplexity: float
    counts: Int[Tensor, " d_sae"]


class Codebook(Fitted):
    """As directions, a row has one code, 1 for its nearest codeword. A method gives `codewords` and `rescale`.

    Codewords are relative to `b_dec`, which is 0 unless `fit` centres.

    Args:
        d_in: Width of the activations.
        d_sae: Number of codewords.
        alpha: Weight of the commitment loss, which draws activations to codewords: it moves an encoder in training.
        beta: Weight of the codebook loss, which draws codewords to activations.
        seed: Names the initial codewords, of variance 1 / `d_in`.
    """

    signed = False

    def __init__(self, *, d_in: int, d_sae: int, alpha: float = 0.25, beta: float = 1.0, seed: int = 0) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, alpha=alpha, beta=beta, seed=seed)
        self.alpha: float
        self.beta: float
        self.b_dec = torch.zeros(d_in)

    def codewords(self) -> Float[Tensor, "d_sae d_in"]:
        """All codewords, with autograd."""
        raise NotImplementedError(f"{type(self).__name__} defines no codewords.")

    def rescale(self, scale: float) -> None:
        """Multiply all codewords by a factor."""
        raise NotImplementedError(f"{type(self).__name__} defines no rescale.")

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_in"]:  # type: ignore[override]
        """The codewords, cut from autograd."""
        return self.codewords().detach()

    def nearest(self, z: Float[Tensor, "n d_in"]) -> Int[Tensor, " n"]:
        """The codeword nearest to each row; of equally near ones, the first."""
        words = self.W_dec
        return (0.5 * words.square().sum(1) - (z.detach() - self.b_dec) @ words.T).argmin(dim=1)

    def codes(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """1 for the nearest codeword."""
        return Latents(x.new_ones(len(x)), self.nearest(x), None, self.d_sae, k=1)

    def quantize(self, z: Float[Tensor, "n d_in"]) -> Quantized:
        """Replace activations by codewords, for training: of this codebook, and of an encoder before it."""
        indices = self.nearest(z)
        q = self.codewords()[indices] + self.b_dec
        loss = self.alpha * (z - q.detach()).square().mean() + self.beta * (z.detach() - q).square().mean()
        return Quantized(z + (q - z).detach(), indices, loss)

    def lookup(self, indices: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d_in"]:
        """The activations that some indices stand for, as `decode` gives them."""
        return self.W_dec[indices] + self.b_dec

    @torch.no_grad()
    def usage(self, store: ActivationStore, *, batch_size: int = 4096) -> Usage:
        """How much of the codebook a store uses, in one pass."""
        counts = torch.zeros(self.d_sae, dtype=torch.long)
        for batch in store.batches(batch_size, seed=None):
            counts += torch.bincount(self.encode(batch.values.to(self.b_dec)).indices.cpu(), minlength=self.d_sae)
        shares = counts.double() / counts.sum()
        entropy = float(torch.special.entr(shares).sum())
        return Usage(float((counts > 0).double().mean()), math.exp(entropy), counts)

    @classmethod
    def fit(
        cls: type[Book],
        store: ActivationStore,
        *,
        d_sae: int,
        steps: int = 1000,
        batch_size: int = 1024,
        lr: float = 1e-2,
        centre: bool = True,
        seed: int = 0,
        **own: Any,
    ) -> Book:
        """Train a codebook on activations by Adam, without an encoder: the codebook loss alone moves something.

        Activations are scaled so that a row is about as far from the mean as a codeword is long at first; the scale is
        folded back into the codewords.

        Args:
            store: Activations.
            d_sae: Number of codewords.
            steps: Batches; the shuffle goes on from epoch to epoch.
            batch_size: Rows a batch.
            lr: Learning rate.
            centre: Start at the mean of the rows. Without, codewords start around 0, and where the rows lie elsewhere a
                plain codebook may use few of them.
            seed: Names the shuffle and the initial codewords.
            own: The method's own arguments.

        Raises:
            ValueError: If `steps` is not positive, or the rows do not vary.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}, but a codebook is trained in some: give a positive number.")
        book = cls(d_in=store.d_in, d_sae=d_sae, seed=seed, **own)
        normaliser = estimate(store, "scale", seed=seed)
        scale, mean = normaliser.scale / math.sqrt(store.d_in), normaliser.mean if centre else book.b_dec
        optimizer = Adam(book, betas=(0.9, 0.999))
        for batch in islice(store.batches(batch_size, seed=seed), steps):
            book.quantize((batch.values.float() - mean) * scale).loss.backward()
            optimizer.step(lr)
        book.rescale(1 / scale)
        book.b_dec = mean
        return book._from(store, steps=steps, batch_size=batch_size, lr=lr, centre=centre, seed=seed)
