"""The pack's own socket types. Everything else is ComfyUI's."""

from comfy_api.latest import io

__all__ = [
    "CamerasSocket",
    "DepthSocket",
    "FitSocket",
    "PerceptualSocket",
    "PointsSocket",
    "Splat4DSocket",
]

CamerasSocket = io.Custom("GENXD_CAMERAS")  # genxd_core.Cameras
FitSocket = io.Custom("GENXD_FIT")  # genxd_core.fitting.FitRecord
PointsSocket = io.Custom("GENXD_POINTS")  # genxd_core.PointCloud
PerceptualSocket = io.Custom("GENXD_PERCEPTUAL")  # genxd_core.PerceptualModel, or "gradient"
DepthSocket = io.Custom("GENXD_DEPTH")  # z-depth in scene units, (V, 1, H, W), 0 where unknown
Splat4DSocket = io.Custom("GENXD_SPLAT4D")  # genxd_core.Gaussians4D
