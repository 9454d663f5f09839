"""Judge trained SAEs on a store of rows they were not trained on.

unweave evaluate runs/first/saes/*.safetensors --store runs/held-out
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tyro

from analyses.commands import stores

if TYPE_CHECKING:
    from saes.evaluation import Evaluation
    from saes.metrics.splicing import TextModel

GO_ON = "what was judged is kept; run the same command again for the rest"


@dataclass(frozen=True)
class Arguments:
    """What to judge, and on what.

    Args:
        saes: Files of trained SAEs.
        store: The folder a harvest made.
        site: Site of the store; each SAE's own by default.
        model: The model the rows come from, to run it with the reconstructions in place.
        out: Folder for the results, NAME.evaluation.json each; beside each SAE by default.
        max_rows: First rows to evaluate; all by default.
        max_loss_examples: Examples the model is run on.
        batch_size: Rows at a time.
        resamples: Draws of the bootstrap; 0 for no intervals.
        seed: Names the draws.
    """

    saes: tyro.conf.Positional[tuple[Path, ...]]
    store: Path
    site: str | None = None
    model: str | None = None
    out: Path | None = None
    max_rows: int | None = None
    max_loss_examples: int = 256
    batch_size: int = 4096
    resamples: int = 1000
    seed: int = 0


def run(arguments: Arguments) -> None:
    """Evaluate each SAE, write its results, print a table of all."""
    from interp.durability import write_json
    from interp.loading import load_model
    from saes.evaluation import evaluate
    from saes.loading import load

    targets = _targets(arguments.saes, arguments.out)
    model = cast("TextModel | None", load_model(arguments.model) if arguments.model else None)
    found = []
    for path, target in zip(arguments.saes, targets, strict=True):
        sae = load(path)
        evaluation = evaluate(
            sae,
            stores.of_site(arguments.store, arguments.site, sae.site),
            model=model,
            batch_size=arguments.batch_size,
            resamples=arguments.resamples,
            seed=arguments.seed,
            max_rows=arguments.max_rows,
            max_loss_examples=arguments.max_loss_examples,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        about = {"class": type(sae).__name__, "arguments": json.loads(json.dumps(sae.arguments))}
        write_json(target, evaluation.to_json() | about)
        found.append(evaluation)
    print(_table([path.stem for path in arguments.saes], found))


def _targets(saes: Sequence[Path], out: Path | None) -> list[Path]:
    """Where the results of each SAE go."""
    if not saes:
        raise ValueError("no SAE is given: name the .safetensors files that `unweave train` wrote in RUN/saes.")
    missing = [str(path) for path in saes if not path.is_file()]
    if missing:  # Said before a model is loaded.
        raise ValueError(
            f"{missing[0]} is no file: name the .safetensors files that `unweave train` wrote in RUN/saes."
        )
    targets = [(path.parent if out is None else out) / f"{path.stem}.evaluation.json" for path in saes]
    twice = sorted({str(target) for target in targets if targets.count(target) > 1})
    if twice:
        raise ValueError(
            f"{len(saes)} SAEs would share {twice[0]}: judge SAEs of one name one by one, or without --out."
        )
    return targets


def _table(names: Sequence[str], found: "Sequence[Evaluation]") -> str:
    """A line an SAE, a column a metric with its interval."""
    metrics = list(dict.fromkeys(metric for evaluation in found for metric in evaluation.metrics))
    rows = [["SAE", *metrics]]
    for name, evaluation in zip(names, found, strict=True):
        rows.append([name, *(_cell(evaluation.metrics.get(metric)) for metric in metrics)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    evaluated = dict.fromkeys(f"{e.rows:,} rows of {e.examples:,} examples at {e.site}" for e in found)
    return "\n".join([*lines, f"{', '.join(evaluated)}; [95 % interval over examples]"])


def _cell(interval: Any) -> str:
    if interval is None:
        return "-"
    ends = "" if interval.low is None else f" [{interval.low:.4g}, {interval.high:.4g}]"
    return f"{interval.value:.4g}{ends}"
