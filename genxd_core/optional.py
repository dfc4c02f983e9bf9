"""Optional packages: imported where they are used, with an error that says what to install."""

import importlib
from types import ModuleType

from .errors import MissingDependencyError

__all__ = ["require"]

# Where the name to import is not the name to install.
_INSTALLED_AS = {"cv2": "opencv-python-headless", "PIL": "pillow"}


def require(module: str, *, extra: str, purpose: str, instead: str = "") -> ModuleType:
    """Import an optional package, or say what to install.

    Args:
        module: the name to import, such as ``"diffusers"``.
        extra: the extra of this project that installs it, such as ``"pipeline"``.
        purpose: what it is needed for, completing "... is needed to ...".
        instead: an alternative that needs no installation, as a sentence.

    Raises:
        MissingDependencyError: the package, or one that it needs, is not installed.
    """
    package = _INSTALLED_AS.get(module.partition(".")[0], module.partition(".")[0])
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = f" {instead}" if instead else ""
        raise MissingDependencyError(
            f"{module} is needed to {purpose} and cannot be imported ({error}). "
            f"Install it with: pip install {package} (one of the extra {extra!r} of genxd).{hint}"
        ) from error
