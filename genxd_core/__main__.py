"""``python -m genxd_core``, also installed as the command ``genxd``."""

import sys

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
