import argparse
import difflib
import inspect
import json
import re
import textwrap

import pytest
import torch

from analyses.dictionary.bundle import FeatureDictionary
from interp.stores.memory import MemoryStore
from interp.types import Activations, Geometry, Item, Latents

HOSTILE = (
    '</script><img src=x onerror="window.hacked=1">',
    "<!--",
    "\u2028",
    "\u2029",
    "\u202eevil",
    "&lt;b&gt;",
    "\x00",
)
CONCEPTS = (
    r"\(",
    r"\d",
    r"\n",
    r"^ ?[A-Z]",
    r"_",
    r"^ the$",
    r"ing$",
    r"[.,:;]",
    r"self",
    r"^ +$",
    r"return",
    r"[\"']",
)


def stdlib_items():
    """Real text with its labels: docstrings of the standard library, cut into pieces, and one item that attacks."""
    items = [Item(pieces=("plain ", *HOSTILE, " end"), labels={"package": HOSTILE[0], "kind": "attack"})]
    for module in (argparse, difflib, json, textwrap):
        for name, thing in sorted(vars(module).items()):
            text = inspect.getdoc(thing) if callable(thing) else None
            if text and thing.__module__.startswith(module.__name__):
                kind = "class" if inspect.isclass(thing) else "function"
                pieces = re.findall(r" ?\w+|\n|\s{2,}|[^\w\s]|\s", f"{name}\n\n{text}")[:200]
                items.append(
                    Item(pieces=tuple(pieces), labels={"package": "stdlib", "module": module.__name__, "kind": kind})
                )
    return items


class Concepts:
    """Directions that fire on what a piece looks like: one planted concept and a little of the others."""

    trainable, site, labels, provenance, arguments = False, None, {}, {}, {}

    def __init__(self, d_sae, signed=False):
        generator = torch.Generator().manual_seed(0)
        self.d_in, self.d_sae, self.signed = len(CONCEPTS), d_sae, signed
        self.weights = torch.eye(self.d_in).repeat(-(-d_sae // self.d_in), 1)[:d_sae]
        self.weights = self.weights + 0.25 * torch.randn(d_sae, self.d_in, generator=generator)
        self.weights[5::23] = 0  # Dead.

    @property
    def W_dec(self):
        return self.weights

    @property
    def W_enc(self):
        return None if self.signed else self.weights.T

    def encode(self, x):
        codes = x @ self.weights.T
        strength = codes.abs() if self.signed else codes
        return Latents.from_dense(torch.where(strength > 0.45, codes, 0.0))

    def decode(self, latents):
        return latents.dense() @ self.weights


def build(path, d_sae=150, signed=False):
    items = stdlib_items()
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([[float(bool(re.search(c, p))) for c in CONCEPTS] for item in items for p in item.pieces])
    values = values * (0.4 + 3 * torch.rand(values.shape, generator=generator)) + 0.2 * torch.randn(
        values.shape, generator=generator
    )
    values[: len(items[0].pieces), 0] = 9.0  # The attack is the top example of every feature of the first concept.
    example = torch.tensor([i for i, item in enumerate(items) for _ in item.pieces])
    position = torch.tensor([p for item in items for p in range(len(item.pieces))])
    store = MemoryStore(Activations(values, example, position), items=items, site="blocks.3.hook_resid_post")
    bundle = FeatureDictionary.build(Concepts(d_sae, signed), store, path, progress=False)
    names = ("opening brackets", "digits", "line breaks", "capitalised", "underscores", "the", "-ing", "punctuation")
    named = {i: (f"{names[i]}", 0.95 - i / 20) for i in range(8) if i != 5}
    bundle.label(named | {2: (HOSTILE[0], 0.875)})
    return path


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory):
    return build(tmp_path_factory.mktemp("bundles") / "planted")


@pytest.fixture(scope="session")
def signed_path(tmp_path_factory):
    return build(tmp_path_factory.mktemp("bundles") / "signed", d_sae=20, signed=True)


@pytest.fixture(scope="session")
def grid_path(tmp_path_factory):
    """Six images of 2 x 3 patches behind a class token; every position has its rows."""
    values = torch.rand(6 * 7, len(CONCEPTS), generator=torch.Generator().manual_seed(2))
    rows = Activations(values, torch.arange(42) // 7, torch.arange(42) % 7)
    store = MemoryStore(rows, geometry=Geometry("grid", (2, 3), prefix=1), items=[Item(labels={"class": "a"})] * 6)
    path = tmp_path_factory.mktemp("bundles") / "grid"
    FeatureDictionary.build(Concepts(12), store, path, progress=False)
    return path


def picture(i):
    """Five by six pixels of a grey of its own."""
    return torch.full((5, 6, 3), 60 * i, dtype=torch.uint8)


@pytest.fixture(scope="session")
def pictures_path(tmp_path_factory):
    """Five images of 2 x 3 patches, of which the last has no thumbnail; the patches leave out the lowest row."""
    directions = Concepts(12)
    strengths = 1 + torch.rand(5 * 6, 1, generator=torch.Generator().manual_seed(3))
    rows = Activations(strengths * directions.weights[0], torch.arange(30) // 6, torch.arange(30) % 6)
    geometry = Geometry("grid", (2, 3), stride=(2, 2), patch=(2, 2), input_size=(5, 6))
    items = [Item(labels={"class": f"c{i}"}, image=None if i == 4 else picture(i)) for i in range(5)]
    path = tmp_path_factory.mktemp("bundles") / "pictures"
    FeatureDictionary.build(directions, MemoryStore(rows, geometry=geometry, items=items), path, progress=False)
    return path


@pytest.fixture(scope="session")
def mapped_paths(mapped_bundles, tmp_path_factory):
    """Texts, and pictures of 3 x 5 patches, with maps of their strongest firings and of no others."""
    from analyses.dictionary.mapping import add_maps

    folder, paths = tmp_path_factory.mktemp("mapped"), {}
    for name, made in (("texts", mapped_bundles.text_case), ("pictures", mapped_bundles.image_case)):
        case = made(folder / f"mapped-{name}")
        add_maps(*case, method="HiResCAM", top=3, progress=False)
        paths[name] = case.bundle.path
    return paths
