"""What a sweep found: a line a setting, which of them nothing beats, and the files."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from interp.durability import write_bytes, write_json
from interp.types import JSON

METRICS = ("l0", "fvu", "dead")


def summary(records: Sequence[JSON]) -> list[JSON]:
    """A line a setting, by L0; those that no seed trained to the end come last.

    Each metric is the mean over the seeds that were, between the least and the greatest of them; of a sweep of one seed
    it is that seed's, with its own interval. `frontier` is True where no setting has as low an L0 and a lower FVU, or
    as low an FVU and a lower L0.

    Args:
        records: What `sweep` returned.
    """
    places: dict[str, list[JSON]] = {}
    for record in records:
        places.setdefault(record["setting"], []).append(record)
    lines = [_line(own) for own in places.values()]
    for line in lines:
        line["frontier"] = line["fvu"] is not None and not any(_beats(other, line) for other in lines)
    return sorted(lines, key=lambda line: (line["fvu"] is None, line["l0"] or 0.0))


def write(folder: Path, records: Sequence[JSON]) -> None:
    """Write `sweep.json`, with the summary, and `sweep.csv`, a row an SAE."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for record in records:
        table.writerow({key: json.dumps(v) if isinstance(v, list | dict) else v for key, v in record.items()})
    write_bytes(folder / "sweep.csv", text.getvalue().encode())
    write_json(folder / "sweep.json", {"settings": summary(records), "saes": list(records)})


def _line(own: Sequence[JSON]) -> JSON:
    """The summary of one setting's seeds."""
    trained = [record for record in own if record["failure"] is None]
    about = {key: own[0][key] for key in ("setting", "method", "family", "label")}
    line: JSON = about | {"seeds": len(own), "failed": len(own) - len(trained)}
    for metric in METRICS:
        values = [record[metric] for record in trained if record[metric] is not None]
        line[metric] = sum(values) / len(values) if values else None
        line[f"{metric}_low"] = line[f"{metric}_high"] = None
        if len(own) == 1 and trained:
            line |= {end: trained[0].get(end) for end in (f"{metric}_low", f"{metric}_high")}
        elif len(values) > 1:
            line |= {f"{metric}_low": min(values), f"{metric}_high": max(values)}
    return line


def _beats(a: JSON, b: JSON) -> bool:
    if a["fvu"] is None:
        return False
    return bool(a["l0"] <= b["l0"] and a["fvu"] <= b["fvu"] and (a["l0"], a["fvu"]) != (b["l0"], b["fvu"]))
