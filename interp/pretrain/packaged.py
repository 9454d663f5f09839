"""The encoders that come with the package."""

from pathlib import Path

NAMES = ("glyph-resnet", "glyph-vit")
_WEIGHTS = Path(__file__).parent / "weights"


def packaged(name: str) -> Path | None:
    """The folder of an encoder that comes with the package; None where none bears the name."""
    return _WEIGHTS / name if name in NAMES else None
