import pytest

from analyses.commands.stores import of_site
from interp.types import Site


def test_asked_for_then_own_then_only(store):
    own = Site("blocks.1")
    assert of_site(store, None, own).site == own
    assert of_site(store, "blocks.0", own).site == Site("blocks.0")
    for other in (None, Site("blocks.5")):
        with pytest.raises(ValueError, match=r"site is not given, but .* holds blocks\.0, blocks\.1: give one of them"):
            of_site(store, None, other)
