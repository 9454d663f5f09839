"""The manifest of a bundle."""

from analyses.dictionary.accumulating import Accumulators
from analyses.dictionary.histograms import bin_edges, occupied
from analyses.dictionary.recipes import SCHEMA, class_name
from analyses.dictionary.tables import FEATURES_A_GROUP
from interp.types import JSON, ActivationStore, Directions

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def manifest_of(
    directions: Directions, source: ActivationStore, identity: JSON, accumulators: Accumulators, zero: int
) -> JSON:
    """What a bundle is and how to read it: no times, no paths.

    Args:
        directions: The features.
        source: The store.
        identity: What makes two builds the same, with the recipe.
        accumulators: The statistics.
        zero: Step of a window that stands for no firing.
    """
    a, signed = accumulators, accumulators.signed
    edges = bin_edges(signed)[occupied_edges(a)]
    return {
        "kind": "feature dictionary",
        "schema": SCHEMA,
        "identity": identity,
        "directions": _about(directions, identity["directions"]),
        "source": {"fingerprint": source.fingerprint, "site": str(source.site), "provenance": source.provenance},
        "geometry": source.geometry.to_json(),
        "counts": {
            "rows": a.rows,
            "examples": int((a.lengths > 0).sum()),
            "features": a.d_sae,
            "dead": int((a.count == 0).sum()),
            "firings": int(a.count.sum()),
        },
        "histogram": {"edges": edges.tolist(), "ends": "hold what lies beyond them"},
        "quantiles": {"shares": list(SHARES), "of": "active values, read from the histogram"},
        "heat": {
            "zero": zero,
            "rule": "activation = (step - zero) * scale; one scale a feature, its largest |activation| / "
            + ("127" if signed else "255"),
        },
        "top": "largest |activation|, at most one example of an item; ties by (item, position)",
        "map": "first two principal components of the unit decoder rows, largest loading positive",
        "cofire": {"value": "Jaccard index of the firings", "firings": identity["recipe"]["firings"]},
        "row_group": {"examples.parquet": FEATURES_A_GROUP},
    }


def occupied_edges(accumulators: Accumulators) -> slice:
    """Borders of the bins that the histograms keep."""
    bins = occupied(accumulators.by_bin)
    return slice(bins.start, bins.stop + 1)


def _about(directions: Directions, fingerprint: str) -> JSON:
    return {
        "class": class_name(directions),
        "arguments": getattr(directions, "arguments", {}),
        "fingerprint": fingerprint,
        "site": str(directions.site) if directions.site else None,
        "d_in": directions.d_in,
        "d_sae": directions.d_sae,
        "signed": directions.signed,
        "provenance": directions.provenance,
    }
