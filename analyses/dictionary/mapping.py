"""Maps of where the firings shown in a bundle come from, added to it."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from analyses.cam.base import LocalMethod
from analyses.dictionary import tables
from analyses.dictionary.bundle import FeatureDictionary
from analyses.dictionary.contents import Contents
from analyses.dictionary.encoding import evaluating
from analyses.dictionary.firings import Firings, quantised
from analyses.dictionary.mapper import Mapper
from analyses.dictionary.recipes import directions_fingerprint
from analyses.methods import Method, chosen
from interp.durability import write_json
from interp.models.base import Model
from interp.progress import Progress
from interp.types import JSON, ActivationStore, Directions, Inputs, Site


def add_maps(
    bundle: FeatureDictionary,
    model: Model,
    directions: Directions,
    store: ActivationStore,
    *,
    method: str | Method = "NormGrad",
    site: str | Site = "embed",
    top: int | None = 8,
    side: int = 32,
    dataset: Any = None,
    image: str = "image",
    collate: Callable[[list[Any]], Inputs] | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> None:
    """Map, for the firings that a bundle shows, what in the input makes the feature fire at the place that is marked.

    The maps are one more file of the bundle; those that it had are replaced when the new ones are complete. A call with
    the method, the site and the numbers of the maps that are there does nothing. A firing that does not come again,
    because its row was stored rounded, gets no map.

    Args:
        bundle: What `FeatureDictionary.build` made; it knows its maps afterwards.
        model: The model that the store's rows were read from.
        directions: The features.
        store: The store that the bundle was built over.
        method: A map of one layer or of the whole model, by name or made with arguments. NormGrad has no sign and
            costs one backward pass; IntegratedGradients has one and adds up to the activation, at 30 times the cost.
            Activation times gradient (HiResCAM, InputXGradient) is near 0 in sum before a layer norm, whatever fires.
        site: Where maps are made, before the features' own site: `embed` for tokens and patches, `input` for pixels.
        top: Strongest examples a feature that get a map; None for all examples, those of quantiles and random too.
        side: Most cells a side of a map on a grid; neighbouring cells of a finer one are added up.
        dataset: What was harvested, for pictures of which the store keeps smaller thumbnails, and for `collate`.
        image: The column of the dataset that holds the picture.
        collate: What the harvest was given to make batches of items that are neither texts nor pictures.
        batch_size: Firings that run at once.
        progress: Whether to show a bar.

    Raises:
        ValueError: If a name is unknown, a number out of range, the method does not explain a feature or the site comes
            too late, or the directions, the store, the model or the dataset are not those of the bundle.
        OSError: If the disk refuses; the bundle is as it was.
    """
    name, made = checked_method(method)
    if min(1 if top is None else top, side, batch_size) < 1:
        raise ValueError(f"top is {top}, side {side} and batch_size {batch_size}, but each is at least 1: give more.")
    place = model.site(site)
    _check_same(bundle, model, directions, store)
    asked = {"method": name, "site": str(place), "top": top, "side": side}
    if bundle.manifest.get("maps", {}).get("asked") == asked:
        return
    contents = Contents(model, store, dataset=dataset, image=image, collate=collate)
    mapper = Mapper(model, directions, store.site, contents, made, place, side=side, batch_size=batch_size)
    digest = hashlib.sha256(json.dumps([bundle.manifest["identity"], asked], sort_keys=True).encode()).hexdigest()
    path = bundle.path / f"{tables.MAPS_FILES}{digest[:12]}.parquet"
    groups = [Firings.shown(group, top) for group in bundle.groups()]
    with evaluating(directions), tables.writing_table(path, tables.MAPS) as writer:
        with Progress("mapping", total=sum(map(len, groups)), unit="map", shown=progress) as bar:
            for firings in groups:
                table = tables.table_of(quantised(*mapper.maps(firings, bar)), tables.MAPS)
                writer.write_table(table, row_group_size=max(len(table), 1))
        about = mapper.about() | {"asked": asked, "file": path.name}
    _take(bundle, about)


def checked_method(method: str | Method) -> tuple[str, Method]:
    """What maps of a method are called, and the method.

    Raises:
        ValueError: If it is unknown, or draws the same map for every feature.
    """
    ((name, made),) = chosen([method]).items()
    if isinstance(made, LocalMethod) and not made.gradient:
        raise ValueError(
            f"method is {name}, which looks at no score, so that all features would have one map: choose one with a "
            "gradient (NormGrad), or one that runs the model (Occlusion)."
        )
    return name, made


def _check_same(bundle: FeatureDictionary, model: Model, directions: Directions, store: ActivationStore) -> None:
    identity, read = bundle.manifest["identity"], store.provenance.get("model", {}).get("fingerprint")
    for what, own, found in (
        ("store", identity["source"], store.fingerprint),
        ("directions", identity["directions"], directions_fingerprint(directions)),
        ("model", read, None if read is None else model.fingerprint),
    ):
        if own != found:
            raise ValueError(f"{what} is not what {bundle.path} was made from: give that, or build the bundle again.")


def _take(bundle: FeatureDictionary, about: JSON) -> None:
    """Let the manifest name the new file: until then the bundle is the old one, and from then on the new one."""
    manifest = bundle.manifest | {"maps": about}
    write_json(bundle.path / "manifest.json", manifest)
    bundle.manifest = manifest
    for left in bundle.path.glob(f"{tables.MAPS_FILES}*"):
        if left.name != about["file"]:
            left.unlink()
