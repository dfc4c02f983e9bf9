"""Files that come with the package."""

from pathlib import Path

__all__ = ["NANO"]

NANO = Path(__file__).parent / "genxd-nano"
