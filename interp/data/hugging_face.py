"""Hugging Face datasets: from the hub, a saved folder, or plain files."""

from pathlib import Path
from typing import Any

_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}


def load(
    name_or_folder: str | Path,
    *,
    split: str = "train",
    streaming: bool = False,
    config: str | None = None,
    revision: str | None = None,
    **options: Any,
) -> Any:
    """Load one split of a dataset, ready for `harvest`.

    Args:
        name_or_folder: A hub id; a folder written by `save_to_disk`; a folder of data files; or one file of JSON,
            CSV, Parquet, Arrow or text (a row a line).
        split: Which part, `"train[:1%]"` included; saved folders and plain files hold what they hold.
        streaming: Read rows as they are asked for instead of downloading first.
        config: Name of the configuration, where the dataset has several.
        revision: Commit of the hub's repository; give one where a run must be repeated.
        options: Passed on to `datasets.load_dataset`.

    Raises:
        ValueError: If there is nothing under this name, or no such split.
    """
    import datasets

    path = Path(name_or_folder).expanduser()
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _saved(path, split, streaming)
    if path.is_file():
        return _file(path, split, streaming, options)
    source = str(path if path.exists() else name_or_folder)
    try:
        return datasets.load_dataset(source, config, split=split, streaming=streaming, revision=revision, **options)
    except (FileNotFoundError, ConnectionError) as error:  # DatasetNotFoundError and offline errors are among them.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"name_or_folder is {source!r}, but there is no such folder here and the hub did not give it ({reason}): "
            "check the name, or save it where the hub can be reached (`save_to_disk`) and give that folder."
        ) from error


def _saved(path: Path, split: str, streaming: bool) -> Any:
    """A folder written by `save_to_disk`."""
    import datasets

    found = datasets.load_from_disk(str(path))
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise ValueError(f"split is {split!r}, but {path} holds {', '.join(found)}: give one of them.")
        found = found[split]
    return found.to_iterable_dataset() if streaming else found


def _file(path: Path, split: str, streaming: bool, options: dict[str, Any]) -> Any:
    """One file of rows; it is all `train`."""
    import datasets

    kind = path.suffix.lower()
    if kind not in _BUILDERS:
        raise ValueError(
            f"name_or_folder is {path}, but a data file ends in one of {', '.join(_BUILDERS)}: convert it."
        )
    separator = {"sep": "\t"} if kind == ".tsv" else {}
    files = {"train": str(path)}
    return datasets.load_dataset(
        _BUILDERS[kind], data_files=files, split=split, streaming=streaming, **{**separator, **options}
    )
