"""The command line: generate, lift, render, doctor, download."""

from .program import main

__all__ = ["main"]
