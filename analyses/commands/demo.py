"""The main job on real models: a text and a vision encoder become feature dictionaries on one page."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from analyses.commands.demo_findings import findings
from analyses.commands.demo_subjects import Subject, dataset_of, subjects
from interp.durability import write_json

if TYPE_CHECKING:
    from analyses.dictionary.bundle import FeatureDictionary
    from interp.types import ActivationStore, Directions, Model
    from saes.metrics.splicing import TextModel


@dataclass(frozen=True)
class Arguments:
    """Harvest, train, judge and show, on the embedded defaults.

    Args:
        out: Folder of the run; stages already done there are not done again.
        only: One part of the demo; both by default.
        model: The text model to read.
        site: Where to read it.
        tokens: Tokens to harvest for training.
        held_out_tokens: Tokens of other modules to judge on.
        d_sae: Features of each dictionary of text.
        k: Features that fire on a token.
        image_model: The vision model to read.
        image_site: Where to read it.
        images: Glyphs to harvest for training.
        held_out_images: Glyphs of other code points to judge on.
        image_d_sae: Features of the dictionary of images.
        image_k: Features that fire on a patch, on average.
        steps: Training steps of 2048 rows.
        overwrite: Start anew.
        quiet: No progress bars.
    """

    out: Path = Path("runs/demo")
    only: Literal["text", "images"] | None = None
    model: str = "all-minilm-l6-v2"
    site: str = "blocks.3"
    tokens: int = 320_000
    held_out_tokens: int = 60_000
    d_sae: int = 6144
    k: int = 32
    image_model: str = "glyph-vit"
    image_site: str = "blocks.2"
    images: int = 6_000
    held_out_images: int = 1_500
    image_d_sae: int = 1024
    image_k: int = 8
    steps: int = 400
    overwrite: bool = False
    quiet: bool = False


def run(arguments: Arguments) -> None:
    """Run every stage, write summary.json and index.html, print what was found."""
    from analyses.dashboard.exporting import export_page

    summary: list[dict[str, Any]] = []
    bundles: dict[str, FeatureDictionary] = {}
    for subject in subjects(arguments):
        for name, bundle, entry in _subject(arguments, subject):
            bundles[name] = bundle
            summary.append(entry)
    index = export_page(
        {name: bundle.path for name, bundle in bundles.items()}, arguments.out / "page", title="unweave demo"
    )
    _link(arguments.out, index)
    write_json(arguments.out / "summary.json", summary)
    _table(summary)
    _say(f"\nOpen {arguments.out / 'index.html'} in a browser.")


def _subject(arguments: Arguments, subject: Subject) -> list[tuple[str, "FeatureDictionary", dict[str, Any]]]:
    """Every stage on one model: name, bundle and line of the summary of each of its dictionaries."""
    from interp.loading import load_model
    from saes.evaluation import evaluate

    model = load_model(subject.model)
    train_store, held_out = _harvested(arguments, subject, model)
    trained, seconds = _trained(arguments, subject, train_store)
    made = []
    for name, sae in trained.items():
        start = time.perf_counter()
        found = evaluate(sae, held_out, model=cast("TextModel", model) if subject.judged_in_model else None)
        _say(f"{name} on {found.rows:,} held-out {_many(subject)}\n{found}\n")
        bundle = _dictionary(arguments, subject, sae, train_store, held_out, name)
        if subject.maps_top:
            _map(arguments, subject, model, sae, train_store, bundle)
        entry = {
            "name": name,
            "method": type(sae).__name__,
            "model": subject.model,
            "site": str(sae.site),
            "rows": len(train_store),
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "k": subject.k,
            "fvu": found["fvu"].value,
            "l0": found["l0"].value,
            "dead": found["dead"].value,
            "seconds": round(seconds + time.perf_counter() - start, 1),
        }
        made.append((name, bundle, entry))
    for line in findings(made[0][0], made[0][1]):
        _say(line)
    _say("")
    return made


def _harvested(arguments: Arguments, subject: Subject, model: "Model") -> tuple["ActivationStore", "ActivationStore"]:
    """Training and held-out stores: other modules of the documentation, other code points of the glyphs."""
    from interp.harvesting import harvest

    stores = []
    splits: tuple[Literal["train", "held_out"], ...] = ("train", "held_out")
    for split in splits:
        start = time.perf_counter()
        data, amount = dataset_of(subject, split, arguments)
        _say(f"harvesting {getattr(data, 'name', split)}: {len(data):,} items through {subject.model}")
        found = harvest(
            model,
            data,
            [subject.site],
            arguments.out / subject.name / f"store-{split}",
            overwrite=arguments.overwrite,
            progress=not arguments.quiet,
            **amount,
            **subject.options,
        )
        store = next(iter(found.values()))
        _say(f"  {len(store):,} rows of width {store.d_in} in {time.perf_counter() - start:.0f} s")
        stores.append(store)
    return stores[0], stores[1]


def _trained(arguments: Arguments, subject: Subject, store: "ActivationStore") -> tuple[dict[str, "Directions"], float]:
    """Its dictionaries from one stream, and the seconds each took on average."""
    from saes.loading import load
    from saes.training import Job, TrainConfig, Trainer

    start = time.perf_counter()
    jobs = [Job(sae, name=name) for name, sae in subject.saes(store.d_in).items()]
    config = TrainConfig(tokens=arguments.steps * 2048, batch_size=2048, checkpoint_every=200)
    folder = arguments.out / subject.name / "training"
    _say(f"training {len(jobs)} of {subject.d_sae} features from one stream, {config.steps} steps")
    resume = (folder / "run.yaml").exists() and not arguments.overwrite
    trainer = Trainer(
        jobs, config, store, run=folder, resume=resume, overwrite=arguments.overwrite, progress=not arguments.quiet
    )
    trainer.run()
    seconds = (time.perf_counter() - start) / len(jobs)
    _say(f"  {seconds:.0f} s each\n")
    return {str(job.name): load(folder / "saes" / f"{job.name}.safetensors") for job in jobs}, seconds


def _dictionary(
    arguments: Arguments,
    subject: Subject,
    sae: "Directions",
    store: "ActivationStore",
    held_out: "ActivationStore",
    name: str,
) -> "FeatureDictionary":
    """A bundle over the training rows, its labels chosen there and scored on held-out ones."""
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
    chosen = best_labels(sae, store, subject.labels, tokens=128, max_rows=120_000)
    bundle.label(evaluate_labels(sae, held_out, chosen).best(at_least=0.7))
    _say(f"  dictionary in {built - start:.0f} s, labels in {time.perf_counter() - built:.0f} s")
    return bundle


def _map(
    arguments: Arguments,
    subject: Subject,
    model: "Model",
    sae: "Directions",
    store: "ActivationStore",
    bundle: "FeatureDictionary",
) -> None:
    """Where the strongest firings of each feature come from."""
    from analyses.dictionary.mapping import add_maps

    start = time.perf_counter()
    add_maps(bundle, model, sae, store, top=subject.maps_top, progress=not arguments.quiet)
    mapped, seconds = bundle.manifest["maps"]["mapped"], time.perf_counter() - start
    _say(f"  {mapped:,} maps of where firings come from in {seconds:.0f} s")


def _many(subject: Subject) -> str:
    return "patches" if subject.unit == "patch" else f"{subject.unit}s"


def _link(out: Path, index: Path) -> None:
    """An index.html at the top that opens the page beside it, at the feature that its address names."""
    from interp.durability import write_bytes

    target = index.resolve().relative_to(out.resolve()).as_posix()
    text = (
        '<!doctype html><meta charset="utf-8"><title>unweave demo</title>'
        f'<script>location.replace("{target}" + location.hash)</script>'
        f'<meta http-equiv="refresh" content="0; url={target}"><a href="{target}">dictionaries</a>\n'
    )
    write_bytes(out / "index.html", text.encode())


def _table(summary: list[dict[str, Any]]) -> None:
    names = list(summary[0])
    rows = [names, *[[f"{v:.4g}" if isinstance(v, float) else str(v) for v in entry.values()] for entry in summary]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    for row in rows:
        _say("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _say(text: str) -> None:
    print(text, flush=True)
