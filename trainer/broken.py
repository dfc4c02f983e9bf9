"""Scenes that cannot be used: left out, counted, reported by name; too many stop the run."""

import json
import logging

from genxd_core.errors import InvalidInputError

from .config import RunConfig
from .data import MicroBatch

__all__ = ["BrokenScenes"]

_log = logging.getLogger(__name__)
_LEAST_DRAWN = 100  # scenes before a share means something


class BrokenScenes:
    """Counts broken scenes of one process, and lists each once in ``broken_<rank>.jsonl``.

    Args:
        config: of the run.
        rank: of the process.
    """

    def __init__(self, config: RunConfig, rank: int) -> None:
        self.file = config.out / f"broken_{rank}.jsonl"
        self.max_share = config.data.max_broken
        self.drawn = self.count = 0
        self._listed: set[tuple[str, str]] = set()

    def note(self, micro: MicroBatch) -> None:
        """Take in a micro-batch.

        Raises:
            InvalidInputError: more than ``data.max_broken`` of the drawn scenes are broken.
        """
        self.drawn += micro.drawn
        self.count += sum(not scene.rejected for scene in micro.broken)
        for scene in micro.broken:
            if (scene.source, scene.scene_id) in self._listed:
                continue
            self._listed.add((scene.source, scene.scene_id))
            _log.warning("left out %s of %s: %s", scene.scene_id, scene.source, scene.reason)
            with self.file.open("a", encoding="utf-8") as listing:
                listing.write(json.dumps(vars(scene)) + "\n")
        if self.drawn >= _LEAST_DRAWN and self.count > self.max_share * self.drawn:
            raise InvalidInputError(
                f"{self.count} of {self.drawn} drawn scenes are broken, more than data.max_broken "
                f"{self.max_share:g}; they are listed in {self.file}. Mend the data, or raise it."
            )
