"""The command line: generate, lift, lift4d, render, doctor, download."""

from .program import main

__all__ = ["main"]
