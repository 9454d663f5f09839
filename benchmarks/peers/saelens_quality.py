"""SAELens' SAEs, trained by `SAETrainer.fit` on rows in a file: see `one_pass_quality`.

pip install sae-lens==6.54.12
"""

import itertools
import tempfile
from pathlib import Path

from one_pass_quality import OnePass
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file

NORM_BATCHES = 64

asked = OnePass("sae-lens", "topk", "batchtopk", "matryoshka", "jumprelu")
given = asked.settings
shape = {
    "d_in": asked.d_in,
    "d_sae": asked.d_sae,
    "normalize_activations": "expected_average_only_in" if given["normalise"] else "none",
}
match asked.method:
    case "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(k=asked.k, aux_loss_coefficient=given["aux"], **shape))
    case "batchtopk":
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=asked.k, aux_loss_coefficient=given["aux"], **shape))
    case "matryoshka":
        cfg = MatryoshkaBatchTopKTrainingSAEConfig(
            k=asked.k, aux_loss_coefficient=given["aux"], matryoshka_widths=given["prefixes"], **shape
        )
        sae = MatryoshkaBatchTopKTrainingSAE(cfg)
    case "jumprelu":
        cfg = JumpReLUTrainingSAEConfig(
            jumprelu_sparsity_loss_mode=given["mode"],
            target_l0=asked.k,
            l0_coefficient=given["penalty"],
            l0_warm_up_steps=asked.steps_of(0.05),
            jumprelu_init_threshold=given["threshold"],
            jumprelu_bandwidth=given["bandwidth"],
            pre_act_loss_coefficient=given["pre_act"],
            **shape,
        )
        sae = JumpReLUTrainingSAE(cfg)
config = SAETrainerConfig(
    total_training_samples=asked.steps * asked.batch,
    train_batch_size_samples=asked.batch,
    lr=given["lr"],
    lr_end=given["lr"],  # Its default, None, trips an assertion.
    lr_warm_up_steps=asked.steps_of(given["warmup"]),
    lr_decay_steps=asked.steps_of(given["decay"]),
    adam_beta2=given["beta2"],
    dead_feature_window=max(1, given["window"] // asked.batch),  # In steps.
    n_batches_for_norm_estimate=NORM_BATCHES,
)
batches = asked.batches()
if given["normalise"]:  # The estimate takes batches of its own; no row is lost to it.
    batches = itertools.chain(itertools.islice(asked.batches(), NORM_BATCHES), batches)
sae = SAETrainer(config, sae, batches).fit()
with tempfile.TemporaryDirectory() as folder:
    weights, _ = sae.save_inference_model(Path(folder))
    parts = load_file(weights)
choice = {"threshold": parts["threshold"]} if "threshold" in parts else {"k": asked.k}
b_dec = parts["b_dec"]
asked.hand_back(W_enc=parts["W_enc"], b_enc=parts["b_enc"], b_pre=b_dec, W_dec=parts["W_dec"], b_dec=b_dec, **choice)
