"""Build the feature dictionary of an SAE, and a page that shows it without a server.

unweave dictionary runs/first/saes/topk.safetensors --store runs/store --out runs/dictionary
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from analyses.commands import stores

if TYPE_CHECKING:
    from analyses.dictionary.bundle import FeatureDictionary
    from interp.stores.disk import DiskStore
    from interp.types import Directions, Model

GO_ON = "run the same command again to go on from the last checkpoint"
_GOOD = 0.7


@dataclass(frozen=True)
class Arguments:
    """What to show, on which rows.

    Args:
        sae: File of a trained SAE.
        store: The folder a harvest made.
        out: Folder of the bundle.
        site: Site of the stores; the SAE's own by default.
        page: Also write OUT-page/index.html.
        title: Heading of the page.
        held_out: A store of other examples: labels that also tell features there are written into the bundle.
        labels: Keys of the items' labels to name features by, besides tokens.
        maps: Also map by this method where the strongest firings come from, and show it beside them; NormGrad is quick.
        maps_site: Where maps are made: embed for tokens and patches, input for pixels.
        maps_top: Strongest examples a feature that get a map.
        model: What the store was harvested from, for the maps; the id that the store names by default.
        top: Strongest examples a feature.
        quantiles: Bins of equally many firings, and examples a bin.
        random: Randomly drawn firings a feature.
        window: Positions shown before and after a firing.
        neighbours: Neighbours a feature of each kind.
        seed: Names the random draws.
        save_decoder: Write the decoder too, for steering.
        batch_rows: Rows at once.
        max_memory: Bytes the build may hold; 2 GiB by default.
        overwrite: Replace what is at OUT.
        quiet: No progress bar.
    """

    sae: tyro.conf.Positional[Path]
    store: Path
    out: Path
    site: str | None = None
    page: bool = True
    title: str | None = None
    held_out: Path | None = None
    labels: tuple[str, ...] = ()
    maps: str | None = None
    maps_site: str = "embed"
    maps_top: int = 8
    model: str | None = None
    top: int = 20
    quantiles: tuple[int, int] = (5, 4)
    random: int = 10
    window: tuple[int, int] = (24, 24)
    neighbours: int = 8
    seed: int = 0
    save_decoder: bool = False
    batch_rows: int = 4096
    max_memory: int | None = None
    overwrite: bool = False
    quiet: bool = False


def run(arguments: Arguments) -> None:
    """Build the bundle, label it where held-out rows are given, map where that is asked for, write the page."""
    from analyses.dashboard.exporting import export_page
    from analyses.dictionary.bundle import FeatureDictionary
    from saes.loading import load

    if arguments.labels and arguments.held_out is None:
        raise ValueError("--labels needs --held-out: labels are judged on rows they were not chosen on; harvest some.")
    if arguments.model is not None and arguments.maps is None:
        raise ValueError("--model needs --maps: the bundle itself is made from the store; name a method (NormGrad).")
    if arguments.maps is None and (arguments.maps_site != "embed" or arguments.maps_top != 8):
        raise ValueError("--maps-site and --maps-top need --maps: name a method (NormGrad), or leave them out.")
    if arguments.maps_top < 1:
        raise ValueError(f"--maps-top is {arguments.maps_top}, but a feature has at least one map: give more.")
    sae = load(arguments.sae)
    store = stores.of_site(arguments.store, arguments.site, sae.site)
    model = None if arguments.maps is None else _model(arguments, store)
    same = ("top", "quantiles", "random", "window", "neighbours", "seed", "save_decoder", "batch_rows", "max_memory")
    bundle = FeatureDictionary.build(
        sae,
        store,
        arguments.out,
        overwrite=arguments.overwrite,
        progress=not arguments.quiet,
        **{name: getattr(arguments, name) for name in same},
    )
    print(f"{arguments.out}: {len(bundle):,} features")
    if arguments.held_out is not None:
        print(f"{_label(arguments, sae, bundle):,} of them tell a label (held-out AUROC of {_GOOD} or more)")
    if model is not None:
        _map(arguments, model, sae, store, bundle)
    if arguments.page:
        target = arguments.out.with_name(f"{arguments.out.resolve().name}-page")
        print(f"open {export_page([arguments.out], target, title=arguments.title)}")


def _model(arguments: Arguments, store: "DiskStore") -> "Model":
    """What the maps run; method and site are known before the bundle is built."""
    from analyses.dictionary.mapping import checked_method
    from interp.loading import load_model

    assert arguments.maps is not None
    checked_method(arguments.maps)
    named = store.provenance.get("model", {}).get("name")
    if arguments.model is None and named is None:
        raise ValueError(f"{arguments.store} does not name its model: give --model, or leave --maps out.")
    model = load_model(arguments.model or named)
    model.site(arguments.maps_site)
    return model


def _map(
    arguments: Arguments, model: "Model", sae: "Directions", store: "DiskStore", bundle: "FeatureDictionary"
) -> None:
    from analyses.dictionary.mapping import add_maps

    add_maps(
        bundle,
        model,
        sae,
        store,
        method=arguments.maps or "",
        site=arguments.maps_site,
        top=arguments.maps_top,
        progress=not arguments.quiet,
    )
    about = bundle.manifest["maps"]
    print(f"{about['mapped']:,} maps by {about['asked']['method']} at {about['asked']['site']}")


def _label(arguments: Arguments, sae: "Directions", bundle: "FeatureDictionary") -> int:
    """Write labels chosen on the store and judged on the held-out one; returns how many features have one."""
    from analyses.dictionary.labelling import best_labels, evaluate_labels

    assert arguments.held_out is not None
    chosen = best_labels(sae, stores.of_site(arguments.store, arguments.site, sae.site), arguments.labels)
    held_out = stores.of_site(arguments.held_out, arguments.site, sae.site)
    labels = evaluate_labels(sae, held_out, chosen).best(at_least=_GOOD)
    bundle.label(labels)
    return len(labels)
