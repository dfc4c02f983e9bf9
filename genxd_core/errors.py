"""The errors a user of the library can meet.

Every message names the argument, what came, what was expected and what to do.
"""

__all__ = ["Cancelled", "InvalidInputError", "MissingDependencyError", "WeightsError"]


class InvalidInputError(ValueError):
    """An argument has a wrong value, shape or combination."""


class WeightsError(RuntimeError):
    """A weights file cannot be read, or does not fit the network it is loaded into."""


class MissingDependencyError(ImportError):
    """An optional package is needed for what was asked and is not installed."""


class Cancelled(RuntimeError):
    """The progress callback asked to stop; nothing was left half written."""
