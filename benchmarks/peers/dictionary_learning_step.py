"""dictionary_learning's training step, told by `turns`: a trainer's `update`. pip install dictionary-learning==0.1.0.

torchvision, which its requirements bring and nothing here needs, must fit torch or be uninstalled.
"""

from turns import LR, Turns, arguments

asked = arguments("topk", "batchtopk", "jumprelu", "l1", d_sae=8192, k=32)

from dictionary_learning.trainers import (  # noqa: E402  # The answers' stream must be set aside first.
    BatchTopKTrainer,
    JumpReluTrainer,
    StandardTrainer,
    TopKTrainer,
)

# Counted on from where a run is warm: thresholds are followed and penalties have their full weight from step 2000 on.
WARM = 10_000
METHODS = {
    "topk": lambda shape: TopKTrainer(k=asked.k, **shape),
    "batchtopk": lambda shape: BatchTopKTrainer(k=asked.k, **shape),
    "jumprelu": lambda shape: JumpReluTrainer(**shape),
    "l1": lambda shape: StandardTrainer(**shape),
}

turns = Turns("dictionary-learning", asked)
trainer = METHODS[asked.method](
    {
        "steps": 10**9,
        "activation_dim": asked.d_in,
        "dict_size": asked.d_sae,
        "layer": 0,
        "lm_name": "none",
        "lr": LR,
        "warmup_steps": 0,
        "device": "cpu",
    }
)
dead = int(asked.dead * asked.d_sae)
if dead:
    # What fires in a step is not dead in it: these stay below the others.
    trainer.ae.encoder.weight.data[:dead] *= 0.01


def ready() -> None:
    if dead:
        trainer.num_tokens_since_fired[:dead] = 2 * trainer.dead_feature_threshold


for step, rows in enumerate(turns(trainer.ae, lambda rows: trainer.loss(rows, step=WARM), ready)):
    trainer.update(WARM + step if step else 0, rows)  # The first step sets the decoder's bias.
    assert step == 0 or not dead or trainer.dead_features == dead
