"""Cases of the two small models: pictures with a truth, and texts of several lengths."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from analyses.faithfulness.base import Case
from analyses.scores.class_logit import ClassLogit
from interp.types import Inputs, Site


def _input_x_gradient(model: Any, inputs: Any, score: Any, site: str) -> torch.Tensor:
    from analyses.attributing import attribute

    return next(iter(attribute(model, inputs, site, score=score, methods=["InputXGradient"]).values.values()))


@pytest.fixture
def case(pictures: Any) -> Callable[..., Case]:
    """From some examples and a batch size to a case of pictures, mapped at the input."""
    truth = torch.zeros(4, 6, 7, dtype=torch.bool)
    truth[:, 2:5, 1:4] = True
    classes, others = torch.tensor([1, 0, 2, 1]), torch.tensor([0, 2, 0, 2])

    def made(chosen: slice = slice(None), batch_size: int = 32, **changes: Any) -> Case:
        runner = pictures(chosen)
        given: dict[str, Any] = {
            "attributor": lambda model, inputs, score: _input_x_gradient(model, inputs, score, "input"),
            "model": runner.scorer.model,
            "inputs": runner.inputs,
            "score": ClassLogit(classes[chosen]),
            "site": Site("input"),
            "truth": truth[chosen],
            "other": ClassLogit(others[chosen]),
            "batch_size": batch_size,
        }
        return Case(**given | changes)

    return made


@pytest.fixture
def text_case(texts: Any) -> Callable[..., Case]:
    """Likewise of texts, mapped at the embeddings."""
    classes, others = torch.tensor([1, 0, 2, 1]), torch.tensor([0, 2, 0, 2])

    def made(chosen: slice = slice(None), batch_size: int = 32, **changes: Any) -> Case:
        runner, inputs = texts(chosen), texts(chosen).inputs
        if chosen != slice(None):  # alone, an example has no padding
            length = int(inputs.mask.sum(1).max())
            inputs = Inputs({k: v[:, :length] for k, v in inputs.tensors.items()}, inputs.mask[:, :length])
        given: dict[str, Any] = {
            "attributor": lambda model, inputs, score: _input_x_gradient(model, inputs, score, "embed"),
            "model": runner.scorer.model,
            "inputs": inputs,
            "score": ClassLogit(classes[chosen]),
            "site": Site("embed"),
            "other": ClassLogit(others[chosen]),
            "batch_size": batch_size,
        }
        return Case(**given | changes)

    return made
