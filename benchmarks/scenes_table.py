"""docs/maps.md from what scenes.py measured: python benchmarks/scenes_table.py benchmarks/results/scenes.jsonl."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]
_SCORES = ("class", "similarity", "principal", "InfoNCE")
_RANDOM = "ParameterRandomisation"


def cell(line: Line | None) -> str:
    return "-" if line is None else f"{line['mean']:.2f} [{line['low']:.2f}, {line['high']:.2f}]"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def of_maps(lines: list[Line], encoder: str) -> str:
    """Pointing game, overlap and randomisation of each method at each site, for each score that it was judged on."""
    found = {
        (one["score"], one["site"], one["method"], one["judge"]): one
        for one in lines
        if one["kind"] == "maps" and one["encoder"] == encoder
    }
    parts = []
    for score in _SCORES:
        keys = list(dict.fromkeys(key[1:3] for key in found if key[0] == score))
        sites = [site for site, _ in keys]
        keys.sort(key=lambda key: sites.index(key[0]))
        best = {
            judge: max(keys, key=lambda key: found[score, *key, judge]["mean"])
            for judge in ("PointingGame", "LocalisationIoU")
        }
        rows = []
        for key in keys:
            judged = {judge: found[score, *key, judge] for judge in (*best, _RANDOM)}
            cells = [f"**{cell(judged[judge])}**" if best[judge] == key else cell(judged[judge]) for judge in best]
            fails = judged[_RANDOM]["low"] > 0.5
            rows.append([*key, str(judged[_RANDOM]["n"]), *cells, cell(judged[_RANDOM]), "fails" if fails else ""])
        told = next(one["accuracy"] for key, one in found.items() if key[0] == score)
        about = f" (accuracy of the probe on held-out glyphs {told:.2f})" if told else ""
        head = ["site", "method", "scenes", "pointing game", "IoU", "randomised", ""]
        parts.append(f"### {encoder}: {score}{about}\n\n" + table(head, rows))
    return "\n".join(parts)


def of_objects(lines: list[Line]) -> str:
    found = [one for one in lines if one["kind"] == "segments"]
    return table(
        ["encoder", "site", "method", "IoU with the exact mask", "scenes"],
        ([one["encoder"], one["site"], one["method"], cell(one), str(one["n"])] for one in found),
    )


def of_latents(lines: list[Line]) -> str:
    found: dict[tuple[str, str, str], dict[str, Line]] = {}
    for one in lines:
        if one["kind"] == "latents":
            found.setdefault((one["encoder"], one["site"], one["method"]), {})[one["judge"]] = one
    rows = [
        [*key, cell(judged["PointingGame"]), cell(judged["LocalisationIoU"]), cell(judged.get(_RANDOM))]
        for key, judged in found.items()
    ]
    told = {one["encoder"]: ", ".join(one["auc"]) for one in lines if one["kind"] == "latents"}
    meant = "\n".join(f"- {encoder}: {labels}" for encoder, labels in told.items())
    return table(["encoder", "site", "method", "pointing game", "IoU", "randomised"], rows) + "\n" + meant + "\n"


def of_differences(lines: list[Line]) -> str:
    found = [one for one in lines if one["kind"] == "difference"]
    head = ["encoder", "score", "site", "NormGrad less Grad-CAM"]
    return table(head, ([one["encoder"], one["score"], one["site"], cell(one)] for one in found))


def main() -> None:
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    text = Path(__file__).with_name("scenes.md").read_text()
    encoders = list(dict.fromkeys(one["encoder"] for one in lines if one["kind"] == "maps"))
    parts = {
        "maps": "\n".join(of_maps(lines, encoder) for encoder in encoders),
        "differences": of_differences(lines),
        "objects": of_objects(lines),
        "latents": of_latents(lines),
    }
    for name, part in parts.items():
        text = text.replace(f"<{name}>\n", part)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
