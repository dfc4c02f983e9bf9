"""The pack's own socket types. Everything else is ComfyUI's."""

from comfy_api.latest import io

__all__ = ["CamerasSocket", "FitSocket"]

CamerasSocket = io.Custom("GENXD_CAMERAS")  # genxd_core.Cameras
FitSocket = io.Custom("GENXD_FIT")  # genxd_core.fitting.FitRecord
