"""What the runs of `judgement` found, as Markdown: numbers with intervals, and where latents lose to raw channels."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from judgement_methods import METHODS, SAES

Result = Mapping[str, Any]
Ends = Mapping[str, float | None]

_AGAINST = {"raw": "as many raw channels", "pca": "as many principal components", "channels": "all raw channels"}


def line(result: Result) -> str:
    """A result in a line, as it comes."""
    head = f"{result['method']}, seed {result['seed']}:"
    if result["failure"] is not None:
        return f"{head} {result['failure']}"
    numbers = [f"{name} {found['value']:.4g}" for name, found in result["metrics"].items()]
    probes = [f"{name} {_list(one['auroc'])}" for name, one in result["probing"].items()]
    seconds = [f"{name} {value:.0f} s" for name, value in result["seconds"].items()]
    return f"{head} {', '.join([*numbers, *probes, *seconds])}"


def _list(auroc: Mapping[str, Ends]) -> str:
    return "/".join(f"{found['value']:.3f}" for found in auroc.values())


def markdown(about: Mapping[str, Any], results: Sequence[Result]) -> str:
    """Tables of reconstruction, of each question's probes, and of what these are above raw channels.

    Args:
        about: What the run is of.
        results: Its lines.
    """
    of = {method: [r for r in results if r["method"] == method] for method in METHODS}
    of = {method: lines for method, lines in of.items() if lines}
    trained = {method: [r for r in lines if r.get("failure", "") is None] for method, lines in of.items()}
    trained = {method: lines for method, lines in trained.items() if lines}
    title = (
        f"**{about['model']}, {about['site']}**: width {about['d_in']}, d_sae {about['d_sae']}, L0 {about['l0']} asked "
        f"for; {about['tokens']:,} rows of {about['rows'][0]:,} seen, in batches of {about['batch']}, "
        f"chosen by products of {about.get('precision') or 'float32'}; judged on {about['rows'][1]:,} others."
    )
    parts = [title, _reconstruction(of, trained)]
    for name, question in about["questions"].items():
        parts.append(_question(name, question, trained))
    return "\n\n".join(parts)


def _reconstruction(of: Mapping[str, Sequence[Result]], trained: Mapping[str, Sequence[Result]]) -> str:
    head = ("method", "FVU", "of each seed", "L0", "dead %", "stability: cosine", "shared %", "minutes to train")
    rows = []
    for method, lines in of.items():
        found = trained.get(method, [])
        why = "; ".join(sorted({r["failure"] for r in lines if r.get("failure")}))
        if not found:
            rows.append((method, f"cannot run: {why}", *[""] * (len(head) - 2)))
            continue
        fvus, l0s, deads = ([r["metrics"][name] for r in found] for name in ("fvu", "l0", "dead"))
        minutes = [r["seconds"]["training"] / 60 for r in found if "training" in r["seconds"]]
        rows.append(
            (
                method + (f" (of {len(found) + 1} seeds one failed: {why})" if why else ""),
                _text(_mean(fvus), 4),
                " ".join(f"{one['value']:.4f}" for one in fvus) if len(fvus) > 1 else "",
                _text(_mean(l0s), 1),
                f"{100 * (_mean(deads)['value'] or 0):.1f}",
                *_stability(lines),
                f"{statistics.fmean(minutes):.1f}" if minutes else "",
            )
        )
    return _table(head, rows)


def _stability(lines: Sequence[Result]) -> tuple[str, str]:
    """Of the most seeds that were compared."""
    compared = [r for r in lines if "stability" in r]
    if not compared:
        return "", ""
    found = max(compared, key=lambda r: len(r["stability of"]))["stability"]
    return _text(found["cosine"], 3), _text({end: 100 * x for end, x in found["shared"].items()}, 1)


def _question(name: str, question: str, trained: Mapping[str, Sequence[Result]]) -> str:
    """The AUROC at each k, and what it is above raw channels."""

    def over(method: str, kind: str) -> Mapping[str, Ends]:
        found = [r["probing"][name][kind] for r in trained[method]]
        return {k: _mean([one[k] for one in found]) for k in found[0]}

    ks = list(over(next(iter(trained)), "auroc"))
    most = ks[-1]
    aurocs = _table(
        ("AUROC", *(f"k = {k}" for k in ks)),
        [(method, *(_text(one, 3) for one in over(method, "auroc").values())) for method in trained],
    )
    head = ("above raw", *(f"k = {k}" for k in ks), f"k = {most}, above all channels")
    rows = []
    for method in trained:
        if method != "raw":
            cells = [*over(method, "above raw").values(), over(method, "above channels")[most]]
            rows.append((method, *(_signed(one) for one in cells)))
    parts = [f"**{name}**: {question}.", aurocs, _table(head, rows), _losses(ks, trained, over)]
    return "\n\n".join(parts)


def _losses(ks: Sequence[str], trained: Iterable[str], over: Callable[[str, str], Mapping[str, Ends]]) -> str:
    """Sentences that say which latents win and lose."""
    saes = [method for method in trained if method in SAES]
    lines = []
    for against, words in _AGAINST.items():
        for k in ks if against != "channels" else ks[-1:]:
            found = {method: over(method, f"above {against}")[k] for method in saes}
            lose = [method for method, one in found.items() if one["high"] is not None and one["high"] < 0]
            win = [method for method, one in found.items() if one["low"] is not None and one["low"] > 0]
            told = f"{_names(lose, saes)} lose, {_names(win, saes)} win"
            lines.append(f"- k = {k}, latents against {words}: {told}; the others do neither.")
    return "\n".join(lines)


def _names(some: Sequence[str], all_of: Sequence[str]) -> str:
    if len(some) == len(all_of):
        return f"all {len(all_of)}"
    return f"{len(some)} of {len(all_of)} ({', '.join(some)})" if some else "none"


def _mean(found: Sequence[Ends]) -> Ends:
    """The mean of seeds, between the means of their ends: as wide as if what examples do to all seeds were alike."""
    means: dict[str, float | None] = {}
    for end in ("value", "low", "high"):
        values = [x for one in found if (x := one[end]) is not None]
        means[end] = statistics.fmean(values) if len(values) == len(found) else None
    return means


def _text(found: Ends, digits: int) -> str:
    if found["value"] is None:
        return ""
    ends = "" if found["low"] is None else f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
    return f"{found['value']:.{digits}f}{ends}"


def _signed(found: Ends) -> str:
    """A difference, and whether zero is outside of its interval: `-` where it is below."""
    if found["value"] is None or found["low"] is None or found["high"] is None:
        return ""
    mark = "**loses** " if found["high"] < 0 else "wins " if found["low"] > 0 else ""
    return f"{mark}{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
