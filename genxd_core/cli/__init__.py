"""The command line: generate, doctor, download."""

from .program import main

__all__ = ["main"]
