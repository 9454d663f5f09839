"""dictionary_learning's SAEs, trained by `trainSAE` on rows in a file: see `one_pass_quality`.

pip install dictionary-learning==0.1.0; torchvision, which its requirements bring and nothing here needs, must fit torch
or be uninstalled.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
from dictionary_learning.trainers import BatchTopKTrainer, JumpReluTrainer, TopKTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.training import trainSAE
from one_pass_quality import OnePass

asked = OnePass("dictionary-learning", "topk", "batchtopk", "matryoshka", "jumprelu")
given = asked.settings
TRAINERS = {
    "topk": TopKTrainer,
    "batchtopk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
    "jumprelu": JumpReluTrainer,
}


class Rows:
    """The rows, from their first at each reading."""

    def __iter__(self) -> Any:
        return asked.batches()


def windowed(**arguments: Any) -> Any:
    """The method's trainer; its window, which is no argument, is set where it has one."""
    trainer = TRAINERS[asked.method](**arguments)
    trainer.dead_feature_threshold = given["window"]
    return trainer


config = {
    "trainer": windowed,
    "steps": asked.steps,
    "activation_dim": asked.d_in,
    "dict_size": asked.d_sae,
    "layer": 0,
    "lm_name": "none",
    "lr": given["lr"],
    "warmup_steps": asked.steps_of(given["warmup"]),
    "decay_start": asked.steps_of(1 - given["decay"]),
    "device": "cpu",
    "seed": asked.seed,
}
match asked.method:
    case "jumprelu":
        config |= {
            "target_l0": float(asked.k),
            "sparsity_penalty": given["penalty"],
            "sparsity_warmup_steps": asked.steps_of(0.05),
            "bandwidth": given["bandwidth"],
        }
    case method:
        # Thresholds are followed from a thousandth of a usual run on.
        config |= {"k": asked.k, "auxk_alpha": given["aux"], "threshold_start_step": asked.steps_of(0.02)}
        config |= {"threshold_beta": given["threshold_beta"]}
        if method == "matryoshka":
            widths = [0, *given["prefixes"]]
            groups = [(high - low) / asked.d_sae for low, high in itertools.pairwise(widths)]
            config |= {"group_fractions": groups}

with tempfile.TemporaryDirectory() as folder:
    trainSAE(
        Rows(),
        [config],
        asked.steps,
        save_dir=folder,
        device="cpu",
        normalize_activations=given["normalise"],
    )
    parts = torch.load(Path(folder) / "trainer_0" / "ae.pt", weights_only=True)
if "W_enc" in parts:
    W_enc, b_enc, W_dec = parts["W_enc"], parts["b_enc"], parts["W_dec"]
else:
    W_enc, b_enc, W_dec = parts["encoder.weight"].T, parts["encoder.bias"], parts["decoder.weight"].T
match asked.method:
    case "topk":
        choice = {"k": asked.k}
    case _:
        choice = {"threshold": parts["threshold"].expand(asked.d_sae)}
b_dec = parts["b_dec"]
b_pre = torch.zeros_like(b_dec) if asked.method == "jumprelu" else b_dec
asked.hand_back(W_enc=W_enc, b_enc=b_enc, b_pre=b_pre, W_dec=W_dec, b_dec=b_dec, **choice)
