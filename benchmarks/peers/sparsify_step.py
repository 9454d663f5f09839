"""sparsify's training step, told by `turns`: its `Trainer.fit` over a model that gives the rows as they are.

pip install eai-sparsify==1.3.3. `topk` is Adam and AuxK, as the other libraries have it; `topk-signum` is what the
library does by default: signed momentum without AuxK.
"""

import itertools

from turns import LR, Turns, arguments

asked = arguments("topk", "topk-signum", d_sae=8192, k=32)

import torch  # noqa: E402  # The answers' stream must be set aside first.
from sparsify import SparseCoderConfig, TrainConfig, Trainer  # noqa: E402
from torch import Tensor, nn  # noqa: E402


class Rows(nn.Module):
    """A model whose one layer gives the next batch of rows, whatever the tokens."""

    device = torch.device("cpu")
    dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.rows = itertools.repeat(torch.zeros(1, asked.d_in))

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.layer(next(self.rows)[None])


class Tokens:
    """As many tokens an item as a batch has rows."""

    tokens = torch.zeros(asked.batch, dtype=torch.long)

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, _: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens}


signum = asked.method == "topk-signum"
cfg = TrainConfig(
    sae=SparseCoderConfig(num_latents=asked.d_sae, k=asked.k),
    batch_size=1,
    optimizer="signum" if signum else "adam",
    auxk_alpha=0.0 if signum else 1 / 32,
    lr=LR,
    lr_warmup_steps=0,
    hookpoints=["layer"],
    save_every=10**12,
    log_to_wandb=False,
)
turns = Turns("eai-sparsify", asked)
model = Rows()
trainer = Trainer(cfg, Tokens(), model)
sae = trainer.saes["layer"]


def ready() -> None:
    dead = int(asked.dead * asked.d_sae)
    trainer.num_tokens_since_fired["layer"][:dead] = 2 * cfg.dead_feature_threshold


model.rows = turns(sae, lambda rows: sae(rows).fvu, ready)
trainer.fit()
