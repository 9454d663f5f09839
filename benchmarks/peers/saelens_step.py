"""SAELens' training step, told by `turns`: `SAETrainer.fit` with its defaults. pip install sae-lens==6.54.12."""

from turns import LR, Turns, arguments

asked = arguments("topk", "batchtopk", "jumprelu", "l1", d_sae=8192, k=32)

from sae_lens.config import SAETrainerConfig  # noqa: E402  # The answers' stream must be set aside first.
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig  # noqa: E402
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig  # noqa: E402
from sae_lens.saes.sae import TrainStepInput  # noqa: E402
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig  # noqa: E402
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig  # noqa: E402
from sae_lens.training.sae_trainer import SAETrainer  # noqa: E402
from torch import Tensor  # noqa: E402

METHODS = {
    "topk": lambda shape: TopKTrainingSAE(TopKTrainingSAEConfig(k=asked.k, **shape)),
    "batchtopk": lambda shape: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=asked.k, **shape)),
    "jumprelu": lambda shape: JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape)),
    "l1": lambda shape: StandardTrainingSAE(StandardTrainingSAEConfig(**shape)),
}

turns = Turns("sae-lens", asked)
sae = METHODS[asked.method]({"d_in": asked.d_in, "d_sae": asked.d_sae})
cfg = SAETrainerConfig(
    total_training_samples=10**12,
    train_batch_size_samples=asked.batch,
    lr=LR,
    lr_end=LR,  # Its default, None, trips an assertion.
)
trainer = SAETrainer(cfg, sae, iter(()))


def loss(rows: Tensor) -> Tensor:
    given = TrainStepInput(
        sae_in=rows,
        coefficients=trainer.get_coefficients(),
        dead_neuron_mask=trainer.dead_neurons,
        n_training_steps=trainer.n_training_steps,
        is_logging_step=False,
    )
    out = sae.training_forward_pass(given)
    # JumpReLU's L0 has no gradient to the encoder, which may raise it.
    return out.losses["mse_loss"] if asked.method == "jumprelu" else out.loss


def ready() -> None:
    trainer.n_forward_passes_since_fired[: int(asked.dead * asked.d_sae)] = 2.0 * cfg.dead_feature_window


trainer.data_provider = turns(sae, loss, ready)
trainer.fit()
