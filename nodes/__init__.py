"""The pack's nodes: a thin skin over `genxd_core` (schema, checks, progress, one call)."""

import importlib
import logging

from comfy_api.latest import ComfyExtension, io

__all__ = ["GenXDExtension", "comfy_entrypoint"]

_log = logging.getLogger(__name__)
_MODULES = (
    "load",
    "camera_paths",
    "fitted_paths",
    "camera_files",
    "camera_views",
    "captures",
    "views",
    "conditioning",
    "sampling",
    "long_paths",
    "refine_video",
    "lift",
    "lift_4d",
    "splat_4d",
    "render_splat",
    "perceptual",
)


class GenXDExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes; a module whose package is missing is reported in a line and left out."""
        nodes: list[type[io.ComfyNode]] = []
        for name in _MODULES:
            try:
                module = importlib.import_module(f".{name}", __name__)
            except ModuleNotFoundError as error:
                if (error.name or "").startswith(__name__.split(".")[0]):
                    raise
                _log.error(
                    "ComfyUI-GenXD: the nodes of %s are left out: %s. Install it with: "
                    "python -m pip install %s",
                    name,
                    error,
                    error.name,
                )
                continue
            nodes.extend(module.NODES)
        return nodes


async def comfy_entrypoint() -> GenXDExtension:
    """ComfyUI's entry point."""
    return GenXDExtension()
