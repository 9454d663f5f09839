"""Did you mean: the name a user probably wanted."""

import difflib
from collections.abc import Collection


def meant(name: str, known: Collection[str]) -> str:
    """Words to end an error message with: the nearest known name, or all of them where none is near."""
    folded = {_folded(other): other for other in known}
    near = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]}?"
    return f"known are {', '.join(sorted(known))}." if known else "there are none."


def _folded(name: str) -> str:
    """The name without what people mix up; the dashes before a flag would make all flags near."""
    return name.lower().replace("-", "_").lstrip("_")
