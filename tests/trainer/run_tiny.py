"""A tiny run as a program of its own: ``run_tiny.py LATENTS OUT [SETTING ...]``."""

import sys
from pathlib import Path

from tests.trainer.support import tiny_run
from trainer.loop import train
from trainer.settings import apply_settings

if __name__ == "__main__":
    latents, out, *settings = sys.argv[1:]
    train(apply_settings(tiny_run(Path(latents), Path(out)), settings), resume=True)
