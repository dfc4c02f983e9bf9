"""GenXD: any number of images and a camera path to new views (3D) or camera-controlled video (4D).

The public names, resolved on first use so that importing the package is quick and needs no
optional package.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "errors": ["Cancelled", "InvalidInputError", "MissingDependencyError", "WeightsError"],
    "cameras.cameras": ["Cameras"],
    "cameras.rays": ["plucker_rays"],
    "cameras.trajectories": [
        "dolly",
        "forward_facing",
        "orbit",
        "pan",
        "roll",
        "slide",
        "static",
        "sway",
        "tilt",
    ],
    "cameras.noisy_orbit": ["noisy_orbit"],
    "cameras.orbit_between": ["orbit_between"],
    "cameras.keyframe_paths": ["ellipse", "interpolate", "spiral"],
    "cameras.editing": ["ease", "resample_by_arc_length", "with_even_times"],
    "cameras.conventions": ["normalise_scale", "path_scale", "scale_cameras"],
    "cameras.io": ["load_cameras", "save_cameras"],
    "cameras.preview": ["draw_camera_path"],
    "capture_depths": ["load_capture_depths"],
    "capture_masks": ["load_capture_masks"],
    "captures": ["Capture", "load_capture"],
    "curation.motion_strength": ["estimate_motion_strength"],
    "data.registry": ["open_dataset"],
    "data.sample": ["SamplePolicy", "SceneSample", "draw_sample"],
    "data.sampling": ["FrameSampling"],
    "data.scene": ["Scene", "SceneDataset"],
    "fitting": [
        "FitRecord",
        "FittedViews",
        "fit_cameras",
        "fit_masks",
        "fit_views",
        "unfit_cameras",
        "unfit_views",
    ],
    "model.config": ["GenXDUNetConfig"],
    "model.unet": ["GenXDUNet"],
    "model.weights": ["load_unet", "save_unet"],
    "model.svd_init": ["init_unet_from_svd"],
    "lifting.gaussians": ["Gaussians"],
    "lifting.background_masks": ["masks_from_background"],
    "lifting.comparison": ["compare_views"],
    "lifting.files_4d": ["export_sequence", "load_gaussians_4d", "save_gaussians_4d"],
    "lifting.fit": ["FitResult", "fit_gaussians"],
    "lifting.fit_4d": ["fit_gaussians_4d"],
    "lifting.fit_motion_bases": ["fit_motion_bases"],
    "lifting.fit_loop": ["FitStep"],
    "lifting.gaussians_4d": ["Gaussians4D"],
    "lifting.recipes": ["RECIPES", "Densify", "FitRecipe"],
    "lifting.recipes_4d": [
        "RECIPES_4D",
        "RECIPES_BASES",
        "FieldSettings",
        "FitRecipe4D",
        "FitRecipeBases",
        "adjusted_recipe_4d",
    ],
    "lifting.perceptual": ["PerceptualModel", "load_perceptual"],
    "lifting.ply": ["load_ply", "save_ply"],
    "lifting.point_cloud": ["PointCloud"],
    "lifting.point_files": ["load_points"],
    "lifting.rasterize": ["Rendering", "rasterize"],
    "lifting.render_views": ["depth_picture", "draw_views", "picture_size", "render_views"],
    "lifting.spin": ["spin_around", "spin_cameras"],
    "lifting.tracks": ["Tracks", "load_tracks"],
    "lifting.two_stages": ["FitResult4D"],
    "lifting.upright": ["turn_scene", "turn_upright", "upright_rotation"],
    "lifting.triangulate": ["triangulate_points"],
    "pipeline": ["GenXDOutput", "GenXDPipeline"],
    "long_paths.generate": ["GeneratedPath", "generate_path"],
    "long_paths.plan": ["PathPlan", "plan_path"],
    "long_paths.seams": ["Seams", "measure_seams"],
    "long_paths.store": ["PathStore"],
    "refinement.generate": ["RefinedVideo", "refine_video"],
    "refinement.generate_multiview": ["MultiviewVideos", "generate_multiview_videos"],
    "refinement.multiview": ["MultiviewSettings"],
    "refinement.swings": ["Swings", "swing_paths"],
    "refinement.video_to_4d": ["RefinementRound", "VideoTo4D", "video_to_4d"],
    "refinement.windows": ["RefinePlan", "plan_windows"],
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
