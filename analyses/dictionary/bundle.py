"""The feature dictionary: examples, statistics and neighbours of every feature, in one open folder."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyses.dictionary import tables
from analyses.dictionary.building import Build, checkpoint_of, discard_checkpoint, read_checkpoint
from analyses.dictionary.encoding import whole_batches
from analyses.dictionary.histograms import number_of_bins
from analyses.dictionary.recipes import DEFAULT_MEMORY, SCHEMA, Recipe, firings_within, identity_of
from analyses.dictionary.sheets import Sheets
from interp.types import JSON, ActivationStore, Directions


class FeatureDictionary:
    """A bundle on disk, opened for reading.

    Args:
        path: The folder that `build` wrote.

    Raises:
        ValueError: If there is no bundle, or one of another schema version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise ValueError(f"{self.path} holds no manifest.json, so it is no bundle: make one with build.")
        self.manifest: JSON = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        found = self.manifest.get("schema")
        if found != SCHEMA:
            raise ValueError(f"{self.path} is a bundle of schema {found}, this version reads {SCHEMA}: build it again.")

    @classmethod
    def build(
        cls,
        directions: Directions,
        source: ActivationStore,
        path: Path | str,
        *,
        top: int = 20,
        quantiles: tuple[int, int] = (5, 4),
        random: int = 10,
        window: tuple[int, int] = (24, 24),
        neighbours: int = 8,
        seed: int = 0,
        tokens: Sequence[Sequence[str]] | None = None,
        save_decoder: bool = False,
        batch_rows: int = 4096,
        max_memory: int | None = None,
        checkpoint_rows: int = 200_000,
        overwrite: bool = False,
        progress: bool = True,
    ) -> "FeatureDictionary":
        """Build a bundle in one pass over a store, in stored order; a killed build goes on where it was.

        Equal directions, store and arguments give equal bytes, whatever `batch_rows` and `checkpoint_rows`. A bundle
        of the very same build is opened as it is.

        Args:
            directions: The features: an SAE, a probe, a PCA, raw neurons.
            source: The store, with what each example was made from in `items`.
            path: Folder to write; it appears whole, by rename.
            top: Strongest firings a feature, at most one of an example, by magnitude.
            quantiles: Bins of equally many firings, and examples a bin.
            random: Randomly drawn firings a feature.
            window: Positions shown before and after a firing; a grid is shown whole.
            neighbours: Neighbours a feature by decoder, by encoder and by firing together.
            seed: Names the random draws.
            tokens: Pieces of each example, where the items have none.
            save_decoder: Write the decoder too, for steering.
            batch_rows: Rows at once; rounded up to a whole number of 1024 rows.
            max_memory: Bytes the build may hold besides directions and output; 2 GiB by default.
            checkpoint_rows: Rows between checkpoints.
            overwrite: Replace the bundle or the unfinished build of something else at `path`.
            progress: Whether to show a bar.

        Raises:
            ValueError: If an argument is out of range, `path` holds something else, or widths differ.
        """
        path = Path(path)
        _check(directions, source, tokens, checkpoint_rows)
        memory = DEFAULT_MEMORY if max_memory is None else max_memory
        firings = firings_within(memory, directions.d_sae, number_of_bins(directions.signed))
        recipe = Recipe(top, tuple(quantiles), random, tuple(window), neighbours, firings, seed)  # type: ignore[arg-type]
        identity = identity_of(directions, source, recipe, tokens) | {"decoder": save_decoder}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _ready(path, identity, overwrite):
            Build(
                directions,
                source,
                path,
                recipe,
                identity,
                batch_rows=whole_batches(batch_rows),
                max_memory=memory // 2,
                checkpoint_rows=checkpoint_rows,
                pieces=tokens,
                decoder=save_decoder,
                progress=progress,
            ).run()
        return cls(path)

    def __len__(self) -> int:
        return int(self.manifest["directions"]["d_sae"])

    def features(self) -> dict[str, NDArray]:
        """The table of features, a NumPy column each; histograms and quantiles are matrices."""
        return tables.read_columns(self.path / "features.parquet")

    def feature(self, index: int) -> list[dict[str, Any]]:
        """Examples of one feature, by reading its row group only.

        Raises:
            IndexError: If there is no such feature.
        """
        group = self._checked(index) // tables.FEATURES_A_GROUP
        return tables.read_group(self.path / "examples.parquet", group, index)

    def groups(self) -> Iterator[tables.Group]:
        """All features with their examples, a row group at a time: what exporters read."""
        return tables.read_groups(self.path / "examples.parquet", len(self))

    @property
    def has_maps(self) -> bool:
        """Whether there are maps of where firings come from, which `analyses.dictionary.mapping.add_maps` makes."""
        return self.manifest.get("maps", {}).get("geometry") is not None

    def maps(self, index: int) -> dict[tuple[int, int], NDArray[np.float32]]:
        """Maps of where firings of one feature come from, by item and position, prefix tokens left out.

        Raises:
            IndexError: If there is no such feature.
        """
        group = self._checked(index) // tables.FEATURES_A_GROUP
        if not self.has_maps:
            return {}
        about = self.manifest["maps"]
        shape = about["geometry"]["grid"] or (-1,)
        return {
            (row["item"], row["position"]): (
                (np.array(row["values"], np.float32) - about["zero"]) * np.float32(row["scale"])
            ).reshape(shape)
            for row in tables.read_group(self.path / about["file"], group, index)
        }

    def map_groups(self) -> Iterator[list[dict[str, Any]]]:
        """The maps of all features, as many features at a time as `groups` gives; nothing where there are none."""
        return tables.read_maps(self.path / self.manifest["maps"]["file"]) if self.has_maps else iter(())

    def neighbours(self, index: int) -> list[dict[str, Any]]:
        """Neighbours of one feature, nearest first within a kind.

        Raises:
            IndexError: If there is no such feature.
        """
        return tables.read_rows(self.path / "neighbours.parquet", self._checked(index))

    def items(self) -> dict[str, NDArray]:
        """The items that examples refer to: id, text, labels as JSON; of images also sheet and box (pixels) of the
        thumbnail in `items/sheet-NNNN.png`, -1 where there is none."""
        return tables.read_columns(self.path / "items" / "items.parquet")

    @functools.cached_property
    def item_labels(self) -> dict[int, dict[str, str]]:
        """Labels of the items that examples refer to."""
        items = self.items()
        return {int(i): json.loads(text) for i, text in zip(items["id"], items["labels"], strict=True)}

    @functools.cached_property
    def sheets(self) -> Sheets:
        """Thumbnails of the items that examples refer to."""
        return Sheets(self.path / "items", self.items())

    def edges(self) -> NDArray[np.float64]:
        """Borders of the histograms' bins."""
        return np.array(self.manifest["histogram"]["edges"])

    def label(self, labels: Mapping[int, tuple[str, float]]) -> None:
        """Write labels and their scores into the table of features; others keep theirs.

        Args:
            labels: Label and score of each feature to label.

        Raises:
            IndexError: If there is no such feature.
        """
        columns: dict[str, Any] = self.features()
        text, score = list(columns["label"]), list(columns["label_score"])
        for feature, (label, value) in labels.items():
            text[self._checked(feature)], score[feature] = label, value
        columns["label"] = text
        columns["label_score"] = [None if value is None or np.isnan(value) else float(value) for value in score]
        tables.write_table(self.path / "features.parquet", tables.FEATURES, columns)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"feature is {index}, but the bundle holds features 0 to {len(self) - 1}.")
        return index


def _ready(path: Path, identity: JSON, overwrite: bool) -> bool:
    """Whether the bundle is there already; makes way for one that is not.

    Raises:
        ValueError: If something else is there and may not be overwritten.
    """
    if path.exists() and not overwrite:
        manifest = path / "manifest.json"
        if manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")).get("identity") == identity:
            discard_checkpoint(path)
            return True
        raise ValueError(f"{path} exists and is not this build: choose another path, or pass overwrite=True.")
    checkpoint = checkpoint_of(path)
    if checkpoint.exists() and read_checkpoint(checkpoint)[0] != identity:
        if not overwrite:
            raise ValueError(
                f"{checkpoint} is an unfinished build of other directions, data or arguments: "
                "finish it with those, or pass overwrite=True."
            )
        discard_checkpoint(path)
    return False


def _check(
    directions: Directions, source: ActivationStore, tokens: Sequence[Sequence[str]] | None, checkpoint_rows: int
) -> None:
    if directions.d_in != source.d_in:
        raise ValueError(
            f"source holds activations of width {source.d_in}, these directions take {directions.d_in}: "
            "give the store of their site."
        )
    if tokens is not None and len(tokens) != len(source.items):
        raise ValueError(f"tokens has {len(tokens)} entries for {len(source.items)} examples: give one for each.")
    if checkpoint_rows < 1:
        raise ValueError(f"checkpoint_rows is {checkpoint_rows}, but it takes at least one row: give more.")
