"""The main job on a real model: MiniLM's activations become feature dictionaries, ready to open."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from interp.durability import write_json

if TYPE_CHECKING:
    from analyses.dictionary.bundle import FeatureDictionary
    from interp.types import ActivationStore, Model
    from saes.base import SAE
    from saes.metrics.splicing import TextModel

_LABELS = ("package", "kind")
_GOOD = 0.95


@dataclass(frozen=True)
class Arguments:
    """Harvest, train, judge and show, on the embedded default.

    Args:
        out: Folder of the run; stages already done there are not done again.
        model: The model to read.
        site: Where to read it.
        tokens: Tokens to harvest for training.
        held_out_tokens: Tokens of other modules to judge on.
        d_sae: Features of each dictionary.
        k: Features that fire on a token.
        steps: Training steps of 2048 tokens.
        overwrite: Start anew.
        quiet: No progress bars.
    """

    out: Path = Path("runs/demo")
    model: str = "all-minilm-l6-v2"
    site: str = "blocks.3"
    tokens: int = 320_000
    held_out_tokens: int = 60_000
    d_sae: int = 6144
    k: int = 32
    steps: int = 400
    overwrite: bool = False
    quiet: bool = False


def run(arguments: Arguments) -> None:
    """Run every stage, write summary.json and index.html, print what was found."""
    from analyses.dashboard.exporting import export_page
    from interp.loading import load_model
    from saes.evaluation import evaluate

    model = load_model(arguments.model)
    train_store, held_out = _harvested(arguments, model)
    trained, seconds = _trained(arguments, train_store)
    summary, bundles = [], {}
    for name, sae in trained.items():
        start = time.perf_counter()
        found = evaluate(sae, held_out, model=cast("TextModel", model))
        _say(f"{name} on {found.rows:,} held-out tokens\n{found}\n")
        bundles[name] = _dictionary(arguments, sae, train_store, held_out, name)
        summary.append(
            {
                "method": type(sae).__name__,
                "site": str(sae.site),
                "tokens": len(train_store),
                "d_in": sae.d_in,
                "d_sae": sae.d_sae,
                "k": arguments.k,
                "fvu": found["fvu"].value,
                "l0": found["l0"].value,
                "dead": found["dead"].value,
                "seconds": round(seconds + time.perf_counter() - start, 1),
            }
        )
    _show_features(bundles)
    index = export_page(
        {name: bundle.path for name, bundle in bundles.items()}, arguments.out / "page", title="unweave demo"
    )
    _link(arguments.out, index)
    write_json(arguments.out / "summary.json", summary)
    _table(summary)
    _say(f"\nOpen {arguments.out / 'index.html'} in a browser.")


def _harvested(arguments: Arguments, model: "Model") -> tuple["ActivationStore", "ActivationStore"]:
    """Training and held-out stores, of different modules of the installed documentation."""
    from interp.data.documentation import documentation
    from interp.harvesting import harvest

    stores = []
    for split, tokens in (("train", arguments.tokens), ("held_out", arguments.held_out_tokens)):
        start = time.perf_counter()
        text = documentation(split=split, max_items=max(tokens // 25, 200))  # type: ignore[arg-type]
        _say(f"harvesting {tokens:,} tokens of {split} documentation ({len(text):,} docstrings)")
        found = harvest(
            model,
            text,
            [arguments.site],
            arguments.out / f"store-{split}",
            labels=("package", "module", "kind"),
            exclude=("pad", "cls", "sep"),
            max_tokens=tokens,
            overwrite=arguments.overwrite,
            progress=not arguments.quiet,
        )
        store = next(iter(found.values()))
        _say(f"  {len(store):,} rows of width {store.d_in} in {time.perf_counter() - start:.0f} s")
        stores.append(store)
    return stores[0], stores[1]


def _trained(arguments: Arguments, store: "ActivationStore") -> tuple[dict[str, "SAE"], float]:
    """TopK and BatchTopK from one stream, and the seconds each took on average."""
    from saes.base import load
    from saes.batch_topk import BatchTopK
    from saes.topk import TopK
    from saes.training import Job, TrainConfig, Trainer

    start = time.perf_counter()
    shape = {"d_in": store.d_in, "d_sae": arguments.d_sae, "k": arguments.k}
    jobs = [Job(TopK(**shape), name="topk"), Job(BatchTopK(**shape), name="batch_topk")]
    config = TrainConfig(tokens=arguments.steps * 2048, batch_size=2048, checkpoint_every=200)
    folder = arguments.out / "training"
    _say(f"training {len(jobs)} dictionaries of {arguments.d_sae} features from one stream, {config.steps} steps")
    resume = (folder / "run.yaml").exists() and not arguments.overwrite
    trainer = Trainer(
        jobs, config, store, run=folder, resume=resume, overwrite=arguments.overwrite, progress=not arguments.quiet
    )
    trainer.run()
    seconds = (time.perf_counter() - start) / len(jobs)
    _say(f"  {seconds:.0f} s each\n")
    return {str(job.name): load(folder / "saes" / f"{job.name}.safetensors") for job in jobs}, seconds


def _dictionary(
    arguments: Arguments, sae: "SAE", store: "ActivationStore", held_out: "ActivationStore", name: str
) -> "FeatureDictionary":
    """A bundle over the training tokens, its labels chosen there and scored on held-out modules."""
    from analyses.dictionary.bundle import FeatureDictionary
    from analyses.dictionary.labelling import best_labels, evaluate_labels

    start = time.perf_counter()
    bundle = FeatureDictionary.build(
        sae,
        store,
        arguments.out / "dictionaries" / name,
        top=12,
        quantiles=(5, 2),
        random=6,
        overwrite=arguments.overwrite,
        progress=not arguments.quiet,
    )
    built = time.perf_counter()
    chosen = best_labels(sae, store, _LABELS, tokens=128, max_rows=120_000)
    bundle.label(evaluate_labels(sae, held_out, chosen).best(at_least=0.7))
    _say(f"  dictionary in {built - start:.0f} s, labels in {time.perf_counter() - built:.0f} s")
    return bundle


def _show_features(bundles: Mapping[str, "FeatureDictionary"], count: int = 5) -> None:
    """Print features that tell a label on modules they were not chosen on, with their strongest examples."""
    name, bundle = next(iter(bundles.items()))
    columns: dict[str, Any] = dict(bundle.features())
    good = [f for f, score in enumerate(columns["label_score"]) if score is not None and score >= _GOOD]
    # Names of packages, kinds and classes before names of single tokens.
    good.sort(key=lambda f: (columns["label"][f].startswith("token:"), -columns["label_score"][f]))
    seen: dict[str, int] = {}
    for feature in good:
        # AUROC alone likes features that fire on a label and on much else: the strongest examples must bear it too.
        label = columns["label"][feature]
        if len(seen) < count and label not in seen and _borne(label, bundle, feature):
            seen[label] = feature
    _say(f"{name}: {len(good)} features tell a label with held-out AUROC >= {_GOOD}; five of them")
    for label, feature in seen.items():
        _say(f"  feature {feature}: {label}  (AUROC {columns['label_score'][feature]:.3f})")
        examples = [e for e in bundle.feature(feature) if e["bin"] == "top"][:3]
        for example in examples:
            _say(f"    {example['activation']:6.2f}  {_excerpt(example)}")


def _borne(label: str, bundle: "FeatureDictionary", feature: int) -> bool:
    """Whether most of a feature's top examples bear its label."""
    from analyses.dictionary.token_classes import CLASS_KEY, PIECE_KEY, TOKEN_CLASSES

    key, value = label.split(": ", 1)
    borne = []
    for example in (e for e in bundle.feature(feature) if e["bin"] == "top"):
        place = example["position"] - example["start"]
        piece, before = example["tokens"][place], example["tokens"][place - 1] if place else ""
        if key == CLASS_KEY:
            borne.append(TOKEN_CLASSES[value](piece, before))
        elif key == PIECE_KEY:
            borne.append(repr(piece) == value)
        else:
            borne.append(bundle.item_labels[example["item"]].get(key) == value)
    return sum(borne) >= 0.8 * len(borne) > 0


def _excerpt(example: Mapping[str, Any], around: int = 6) -> str:
    """The marked token between its neighbours, on one line."""
    tokens, place = list(example["tokens"]), int(example["position"] - example["start"])
    marked = tokens[place].strip() or tokens[place]
    tokens[place] = tokens[place].replace(marked, f"[{marked}]")
    return " ".join("".join(tokens[max(0, place - around) : place + around + 1]).split())


def _link(out: Path, index: Path) -> None:
    """An index.html at the top that opens the page beside it."""
    from interp.durability import write_bytes

    target = index.resolve().relative_to(out.resolve()).as_posix()
    text = (
        '<!doctype html><meta charset="utf-8"><title>unweave demo</title>'
        f'<meta http-equiv="refresh" content="0; url={target}"><a href="{target}">dictionaries</a>\n'
    )
    write_bytes(out / "index.html", text.encode())


def _table(summary: list[dict[str, Any]]) -> None:
    names = list(summary[0])
    rows = [names, *[[f"{v:.4g}" if isinstance(v, float) else str(v) for v in entry.values()] for entry in summary]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    _say("")
    for row in rows:
        _say("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _say(text: str) -> None:
    print(text, flush=True)
