"""Bundles of tiny models, of texts and of pictures, that maps can be added to."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.dictionary.bundle import FeatureDictionary
from interp.harvesting import harvest
from saes.topk import TopK


def _tiny(name: str) -> Any:
    """A module beside the tests, which are no packages."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@dataclass
class Case:
    """All that maps are made from."""

    bundle: FeatureDictionary
    model: Any
    directions: TopK
    store: Any
    dataset: list[Any]

    def __iter__(self):
        return iter((self.bundle, self.model, self.directions, self.store))


def text_case(path: Path) -> Case:
    """A causal model read at its last block."""
    model, data = _tiny("tiny_text").TinyText(), _tiny("tiny_text").sentences(30)
    return _case(path, model, data, window=(4, 3), labels=["kind"])


def image_case(path: Path, thumbnails: int = 96) -> Case:
    """A model of 3 x 5 patches, after a class token."""
    model, data = _tiny("tiny_vision").TinyVision(), _tiny("tiny_vision").pictures(20, corrupt=False)
    return _case(path, model, data, thumbnails=thumbnails, labels=["class"])


def _case(path: Path, model: Any, data: list[Any], *, window: tuple[int, int] = (24, 24), **options: Any) -> Case:
    store = harvest(model, data, "blocks.1", None, progress=False, **options)
    store = next(iter(store.values()))
    directions = TopK(d_in=8, d_sae=70, k=3, seed=1)
    directions.site = store.site
    bundle = FeatureDictionary.build(
        directions, store, path, top=4, random=2, quantiles=(2, 1), window=window, progress=False
    )
    return Case(bundle, model, directions, store, data)
