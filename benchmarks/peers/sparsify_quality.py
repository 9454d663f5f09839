"""sparsify's TopK, trained by `Trainer.fit` over a model that gives the rows of a file: see `one_pass_quality`.

pip install eai-sparsify==1.3.3. `topk` is Adam and AuxK, as the other libraries have it; `topk-signum` is what the
library does by default: signed momentum without AuxK.
"""

import tempfile
from pathlib import Path

import torch
from one_pass_quality import OnePass
from safetensors.torch import load_file
from sparsify import SparseCoderConfig, TrainConfig, Trainer
from torch import Tensor, nn

asked = OnePass("eai-sparsify", "topk", "topk-signum")
given = asked.settings


class Rows(nn.Module):
    """A model whose one layer gives the next batch of rows, whatever the tokens."""

    device = torch.device("cpu")
    dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.rows = iter([torch.zeros(1, asked.d_in)])  # It is asked for its width once.

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.layer(next(self.rows)[None])


class Tokens:
    """As many tokens an item as a batch has rows."""

    tokens = torch.zeros(asked.batch, dtype=torch.long)

    def __len__(self) -> int:
        return asked.steps

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        if item >= asked.steps:
            raise IndexError
        return {"input_ids": self.tokens}


signum = asked.method == "topk-signum"
with tempfile.TemporaryDirectory() as folder:
    cfg = TrainConfig(
        sae=SparseCoderConfig(num_latents=asked.d_sae, k=asked.k),
        batch_size=1,
        optimizer="signum" if signum else "adam",
        auxk_alpha=0.0 if signum else given["aux"],
        dead_feature_threshold=given["window"],
        lr=given["lr"],
        lr_warmup_steps=asked.steps_of(given["warmup"]),
        hookpoints=["layer"],
        init_seeds=[asked.seed],
        save_every=10**12,
        save_dir=folder,
        log_to_wandb=False,
    )
    model = Rows()
    trainer = Trainer(cfg, Tokens(), model)
    model.rows = asked.batches()
    trainer.fit()
    # What it saved, not what it holds: signum's weights are averages only there.
    parts = load_file(Path(folder) / "unnamed" / "layer" / "sae.safetensors")
W_enc, b_enc, b_dec = parts["encoder.weight"].T, parts["encoder.bias"], parts["b_dec"]
asked.hand_back(W_enc=W_enc, b_enc=b_enc, b_pre=b_dec, W_dec=parts["W_dec"], b_dec=b_dec, k=asked.k)
