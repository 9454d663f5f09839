"""What `unweave maps` explains, and where by default."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyses.commands.map_inputs import Given

if TYPE_CHECKING:
    from analyses.commands.maps import Arguments
    from analyses.scores.base import Pass, Score
    from interp.models.base import Model
    from interp.types import Inputs, Site

_BELONG = {"class_index": "class", "reference": "similarity", "sae": "latent", "feature": "latent"}


@dataclass(frozen=True)
class Question:
    """What is explained.

    Args:
        score: The score.
        name: What the command calls it.
        about: What is said of it.
        classes: Of each example, where the score is a class.
    """

    score: "Score"
    name: str
    about: str
    classes: tuple[str, ...] = ()

    def of(self, number: int) -> str:
        """The class of an example, in front of its name."""
        return f"class {self.classes[number]}  " if self.classes else ""


def check(arguments: "Arguments") -> None:
    """Compare the score with what is given beside it.

    Args:
        arguments: Of the command.

    Raises:
        ValueError: If something belongs to another score, or is missing.
    """
    score = named(arguments)
    for name, owner in _BELONG.items():
        if getattr(arguments, name) is not None and owner != score:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} is given, but the score is {score}: leave it out, or choose --score {owner}.")
    if score == "similarity" and arguments.reference is None:
        raise ValueError("the score is similarity, but to nothing: give the file of a picture or text, --reference.")
    if score == "latent" and (arguments.feature is None or (arguments.sae or arguments.through) is None):
        raise ValueError("the score is a latent, but which one is not said: give --sae FILE and --feature N.")


def named(arguments: "Arguments") -> str | None:
    """The score that is asked for, by name or by what only it takes; None where none is."""
    implied = (owner for name, owner in _BELONG.items() if getattr(arguments, name) is not None)
    return arguments.score or next(implied, None)


def asked(model: "Model", given: Given, arguments: "Arguments") -> Question:
    """The score.

    Args:
        model: What is explained.
        given: Its examples.
        arguments: Of the command, checked.

    Raises:
        ValueError: If the model has no such score, or a file cannot be read.
    """
    from analyses.scores.embedding_norm import EmbeddingNorm
    from analyses.scores.latent import Latent
    from analyses.scores.next_token_loss import NextTokenLoss
    from analyses.scores.similarity import Similarity
    from saes.loading import load

    name = named(arguments)
    if name is None and _has_classes(model, given.inputs):
        name = "class"
    if name == "class":
        return _of_class(model, given, arguments)
    if name == "similarity":
        about = f"the cosine of embeddings to that of {arguments.reference}"
        return Question(Similarity(_reference(model, arguments)), name, about)
    if name == "latent":
        path = arguments.sae or arguments.through
        assert path is not None and arguments.feature is not None
        about = f"the largest code of feature {arguments.feature} of {path}"
        return Question(Latent(load(path), arguments.feature), name, about)
    if name == "loss":
        return Question(NextTokenLoss(), name, "the loss of the next token, in nats")
    why = f" ({model.name} has no trained logits; --score chooses another)" if name is None else ""
    return Question(EmbeddingNorm(), "norm", f"the norm of the embedding{why}")


def default_site(model: "Model", inputs: "Inputs", score: "Score") -> "Site":
    """Where maps are made unless it is said: the embedding of tokens, of pictures the last block that the score depends
    on and does not read itself.

    Args:
        model: What is explained.
        inputs: Its examples, of which the first is run.
        score: What is asked of it.

    Raises:
        ValueError: If the model has no places of these names.
    """
    import torch

    from analyses.layers import layers
    from analyses.passes import Examples, Scorer

    if hasattr(model, "tokenize"):
        names = [name for name in model.sites() if name == "embed"]
    else:
        found = [match for name in model.sites() if (match := re.fullmatch(r"(?:blocks|stages)\.(\d+)", name))]
        names = [match[0] for match in sorted(found, key=lambda match: -int(match[1]))]
    read = {model.site(site) for site in score.sites}
    sites = [site for name in names if (site := model.site(name)) not in read]
    if not sites:
        raise ValueError(f"{model.name} has no place that maps are made by default: name one with --sites.")
    if len(sites) > 1:
        first = Examples.all(inputs).some(torch.tensor([0]))
        run = Scorer(model, score).run(first, sites)
        grads = {site: [layer.grads for layer in layers(run, site)] for site in sites}
        return next((site for site, found in grads.items() if any(g is not None and g.any() for g in found)), sites[0])
    return sites[0]


def _has_classes(model: Any, inputs: "Inputs") -> bool:
    """Whether its logits are of classes, or of the next token."""
    import torch

    (run,) = _runs(model, inputs, torch.tensor([0]), 1)
    logits = getattr(run.output, "logits", run.output)
    return isinstance(logits, torch.Tensor) and (logits.ndim == 2 or (logits.ndim == 3 and _is_causal(model)))


def _is_causal(model: Any) -> bool:
    return bool(getattr(model, "is_causal", False))


def _of_class(model: Any, given: Given, arguments: "Arguments") -> Question:
    """A class; each example's highest is held, so that it can be told which that is."""
    import torch

    from analyses.scores.class_logit import ClassLogit

    score = ClassLogit(arguments.class_index)
    if arguments.class_index is not None:
        return Question(score, "class", f"the logit of class {arguments.class_index}")
    every = torch.arange(len(given.inputs))
    held: Any = score.held(_runs(model, given.inputs, every, arguments.batch_size))
    if not _is_causal(model):
        return Question(held, "class", "the highest logit", tuple(map(str, held.index.tolist())))
    pieces = tuple(repr("".join(model.pieces_of([index]))) for index in held.index.tolist())
    return Question(held, "class", "the highest logit of what comes next", pieces)


def _runs(model: Any, inputs: "Inputs", chosen: Any, batch_size: int) -> "list[Pass]":
    import torch

    from analyses.passes import Examples, Scorer
    from interp.capturing import left_as_found

    examples = Examples.all(inputs).some(chosen)
    with left_as_found(model, frozen=False), torch.no_grad():
        return [Scorer(model, None).forward(chunk) for chunk in examples.chunks(batch_size)]


def _reference(model: Any, arguments: "Arguments") -> Any:
    from analyses.embeddings import embedding_of

    path = arguments.reference
    assert path is not None
    if not path.is_file():
        raise ValueError(f"--reference is {path}, but there is no such file: give that of a picture or a text.")
    try:
        if hasattr(model, "tokenize"):
            (text,) = model.tokenize([path.read_text(encoding="utf-8")], min(arguments.max_length, model.longest))
            inputs = model.collate([text.tokens])
        else:
            inputs = model.collate([path])
    except ValueError as error:  # a broken picture, or bytes that are no text
        raise ValueError(f"--reference is {path}, which {model.name} cannot read ({error}): give another.") from error
    return embedding_of(model, inputs)[0]
