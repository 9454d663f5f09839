"""Tokens a second of SAELens' activation store on the causal model that `benchmarks/harvest.py` wrote; prints JSON.

Runs in an environment of its own: pip install sae-lens (6.x, with transformer-lens 3).
"""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from sae_lens.training.activations_store import ActivationsStore
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel


def main(folder: Path, layer: int, batch: int, threads: int, seconds: float) -> None:
    torch.set_num_threads(threads)
    plain = GPT2LMHeadModel.from_pretrained(folder)
    about = plain.config
    cfg = HookedTransformerConfig(
        n_layers=about.n_layer, d_model=about.n_embd, n_heads=about.n_head, d_head=about.n_embd // about.n_head,
        n_ctx=about.n_positions, d_vocab=about.vocab_size, d_mlp=4 * about.n_embd, act_fn="gelu_new",
        normalization_type="LN", eps=about.layer_norm_epsilon, default_prepend_bos=False,
    )  # fmt: skip
    model = HookedTransformer(cfg)
    model.load_state_dict(convert_gpt2_weights(plain, cfg), strict=False)
    model.eval()
    tokens = torch.load(folder / "tokens.pt", weights_only=True)
    n, context = tokens.shape
    store = ActivationsStore(
        model=model, dataset=Dataset.from_dict({"tokens": tokens.tolist()}), streaming=False,
        hook_name=f"blocks.{layer}.hook_resid_post", hook_head_index=None, context_size=context, d_in=cfg.d_model,
        n_batches_in_buffer=16, total_training_tokens=n * context, store_batch_size_prompts=batch,
        train_batch_size_tokens=2048, prepend_bos=False, normalize_activations="none", device=torch.device("cpu"),
        dtype="float32", disable_concat_sequences=True, sequence_separator_token=None,
    )  # fmt: skip
    first = store.get_activations(tokens[:4])[:, :, :]
    torch.save(first.clone(), folder / "saelens.pt")
    loader = store.get_data_loader()
    next(loader)  # fills the buffer
    rows, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        rows += len(next(loader))
    print(json.dumps({"tokens_a_second": rows / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
