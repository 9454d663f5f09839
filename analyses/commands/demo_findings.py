"""What the demo prints of a dictionary: features that tell a label on data they were not chosen on."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyses.dictionary.bundle import FeatureDictionary

_GOOD = 0.95
_MOST = 0.8


def findings(name: str, bundle: "FeatureDictionary", count: int = 5) -> Iterator[str]:
    """Lines that tell a few features, each of another label, with their strongest examples."""
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
    yield f"{name}: {len(good)} features tell a label with held-out AUROC >= {_GOOD}; {len(seen)} of them"
    for label, feature in seen.items():
        yield f"  feature {feature}: {label}  (AUROC {columns['label_score'][feature]:.3f})"
        for example in _top(bundle, feature)[:3]:
            yield f"    {example['activation']:6.2f}  {_shown(example, bundle)}"


def _top(bundle: "FeatureDictionary", feature: int) -> list[dict[str, Any]]:
    return [example for example in bundle.feature(feature) if example["bin"] == "top"]


def _borne(label: str, bundle: "FeatureDictionary", feature: int) -> bool:
    """Whether most of a feature's top examples bear its label."""
    from analyses.dictionary.token_classes import CLASS_KEY, PIECE_KEY, TOKEN_CLASSES

    key, value = label.split(": ", 1)
    borne = []
    for example in _top(bundle, feature):
        place = example["position"] - example["start"]
        if key in (CLASS_KEY, PIECE_KEY):
            piece, before = example["tokens"][place], example["tokens"][place - 1] if place else ""
            borne.append(TOKEN_CLASSES[value](piece, before) if key == CLASS_KEY else repr(piece) == value)
        else:
            borne.append(bundle.item_labels[example["item"]].get(key) == value)
    return sum(borne) >= _MOST * len(borne) > 0


def _shown(example: Mapping[str, Any], bundle: "FeatureDictionary", around: int = 6) -> str:
    """The marked token between its neighbours, or what the picture shows, on one line."""
    if not example["tokens"]:
        labels = bundle.item_labels[example["item"]]
        return f"{labels.get('character', '')}  {labels.get('name', '')} ({labels.get('font', '')})"
    tokens, place = list(example["tokens"]), int(example["position"] - example["start"])
    marked = tokens[place].strip() or tokens[place]
    tokens[place] = tokens[place].replace(marked, f"[{marked}]")
    return " ".join("".join(tokens[max(0, place - around) : place + around + 1]).split())
