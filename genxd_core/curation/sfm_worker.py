"""Child process of `sfm`: features on static pixels, matches, and models with pycolmap's mappers.

Run by `genxd_core.child_main`, with nothing of the package to import. The folder holds
``job.json``, ``images`` and, where given, ``masks`` (0 = ignore); ``result.json`` and a
``window_N.npz`` for each window that came to a model are left there.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Tell = Callable[[dict[str, Any]], None]


def run(colmap: Any, folder: Path, job: dict[str, Any], tell: Tell) -> None:
    """Do the job that lies in a folder."""
    _Work(colmap, folder, job, tell).run()


class _Work:
    """Features and matches of all frames, then one model for each window of frames."""

    def __init__(self, colmap: Any, folder: Path, job: dict[str, Any], tell: Tell) -> None:
        self.colmap, self.folder, self.job, self.tell = colmap, folder, job, tell
        self.database = folder / "database.db"
        self.names: list[str] = job["names"]
        self.done = 0
        self.seconds = dict[str, float]()
        colmap.logging.minloglevel = int(colmap.logging.ERROR)
        colmap.set_random_seed(job["seed"])

    def run(self) -> None:
        for name in self.names:
            self._timed("features", self._extract, name)
        self._check_database()
        for pairs in self.job["pairs"]:
            self._timed("matching", self._match, pairs)
        self._timed("calibration", self._calibrate)
        windows = []
        for number, (first, last) in enumerate(self.job["windows"]):
            windows.append(self._timed("mapping", self._map_window, number, first, last))
        result = {
            "keypoints": self._keypoint_counts(),
            "windows": windows,
            "seconds": self.seconds,
            "version": self.colmap.__version__,
        }
        (self.folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        self._step()

    def _step(self) -> None:
        self.done += 1
        self.tell({"done": self.done})

    def _timed(self, stage: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.monotonic()
        result = work(*arguments)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start
        self._step()
        return result

    # ---- features and matches -------------------------------------------------------------------

    def _extract(self, name: str) -> None:
        reader = self.colmap.ImageReaderOptions(camera_model=self.job["camera_model"])
        if self.job["params"]:
            reader.camera_params = self.job["params"]
        if name != self.names[0]:
            # One camera for all: calls of one picture each would else make one each.
            reader.existing_camera_id = 1
        if self.job["masked"]:
            reader.mask_path = str(self.folder / "masks")
        options = self.colmap.FeatureExtractionOptions()
        options.num_threads, options.use_gpu = self.job["threads"], False
        options.sift.max_num_features = self.job["max_features"]
        self.colmap.extract_features(
            self.database,
            self.folder / "images",
            image_names=[name],
            camera_mode=self.colmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=options,
            device=self.colmap.Device.cpu,
        )

    def _check_database(self) -> None:
        """A picture whose mask cannot be read is left out with no more than a line in the log."""
        with self.colmap.Database.open(self.database) as database:
            known = {image.name for image in database.read_all_images()}
            cameras = database.num_cameras()
        missing = [name for name in self.names if name not in known]
        if missing:
            raise RuntimeError(f"features of {', '.join(missing[:3])} could not be computed")
        if cameras != 1:
            raise RuntimeError(f"the frames have {cameras} cameras instead of one")

    def _match(self, pairs: Sequence[Sequence[int]]) -> None:
        listed = self.folder / "pairs.txt"
        lines = [f"{self.names[first]} {self.names[second]}\n" for first, second in pairs]
        listed.write_text("".join(lines), encoding="utf-8")
        options = self.colmap.FeatureMatchingOptions()
        options.num_threads, options.use_gpu = self.job["threads"], False
        verification = self.colmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = self.job["seed"]
        self.colmap.match_image_pairs(
            self.database,
            matching_options=options,
            pairing_options=self.colmap.ImportedPairingOptions(match_list_path=str(listed)),
            verification_options=verification,
            device=self.colmap.Device.cpu,
        )

    def _calibrate(self) -> None:
        """A first focal length from the pairs; the global mapper gets lost without a fair one."""
        if not self.job["known"]:
            options = self.colmap.ViewGraphCalibrationOptions(random_seed=self.job["seed"])
            self.colmap.calibrate_view_graph(self.database, options)

    def _keypoint_counts(self) -> list[int]:
        with self.colmap.Database.open(self.database) as database:
            ids = {image.name: image.image_id for image in database.read_all_images()}
            return [database.num_keypoints_for_image(ids[name]) for name in self.names]

    # ---- models ---------------------------------------------------------------------------------

    def _map_window(self, number: int, first: int, last: int) -> dict[str, Any]:
        """The better model of the mappers that were tried; the second only after a doubtful one."""
        names = self.names[first:last]
        tries, best = [], None
        for mapper in self.job["mappers"]:
            start = time.monotonic()
            models = self._map(mapper, names, f"{number}_{mapper}")
            model = max(models, key=_worth, default=None)
            tries.append(
                {
                    "mapper": mapper,
                    "models": len(models),
                    "registered": 0 if model is None else model.num_reg_images(),
                    "points": 0 if model is None else model.num_points3D(),
                    "error": None if model is None else model.compute_mean_reprojection_error(),
                    "seconds": time.monotonic() - start,
                }
            )
            if model is not None and (best is None or _worth(model) > _worth(best[1])):
                best = (mapper, model)
            if model is not None and self._is_convincing(model, len(names)):
                break
        if best is None:
            return {"tries": tries, "mapper": None}
        self._save(best[1], self.folder / f"window_{number}.npz")
        return {"tries": tries, "mapper": best[0]}

    def _is_convincing(self, model: Any, frames: int) -> bool:
        enough = self.job["sure_points_per_frame"] * frames
        return bool(model.num_reg_images() == frames and model.num_points3D() >= enough)

    def _map(self, mapper: str, names: list[str], folder: str) -> list[Any]:
        output = self.folder / "models" / folder
        output.mkdir(parents=True)
        work = self.colmap.global_mapping if mapper == "global" else self.colmap.incremental_mapping
        options = self._global() if mapper == "global" else self._incremental()
        options.image_names = names
        models = work(self.database, self.folder / "images", output, options)
        return [models[key] for key in sorted(models) if models[key].num_reg_images() > 0]

    def _global(self) -> Any:
        options = self.colmap.GlobalPipelineOptions()
        mapper = options.mapper
        for part in (
            *(options, mapper, mapper.rotation_averaging, mapper.global_positioning),
            mapper.retriangulation,
        ):
            part.random_seed = self.job["seed"]
        for part in (options, mapper, mapper.bundle_adjustment.ceres.solver_options):
            part.num_threads = self.job["threads"]
        mapper.global_positioning.use_gpu = False
        mapper.bundle_adjustment.ceres.use_gpu = False
        if self.job["known"]:
            mapper.bundle_adjustment.refine_focal_length = False
            mapper.bundle_adjustment.refine_extra_params = False
        return options

    def _incremental(self) -> Any:
        options = self.colmap.IncrementalPipelineOptions()
        mapper = options.mapper
        for part in (options, mapper, options.triangulation):
            part.random_seed = self.job["seed"]
        for part in (options, mapper):
            part.num_threads = self.job["threads"]
        options.multiple_models = False
        options.min_model_size = 3
        # The defaults are for photographs of a place, taken far apart.
        mapper.init_min_tri_angle = 4.0
        mapper.init_min_num_inliers = 60
        if self.job["known"]:
            options.ba_refine_focal_length = options.ba_refine_extra_params = False
            mapper.abs_pose_refine_focal_length = mapper.abs_pose_refine_extra_params = False
        return options

    def _save(self, model: Any, path: Path) -> None:
        import numpy as np

        model.extract_colors_for_all_images(str(self.folder / "images"))
        frames = {name: index for index, name in enumerate(self.names)}
        images = sorted(
            (image for image in model.images.values() if image.has_pose),
            key=lambda image: frames[image.name],
        )
        points = sorted(model.points3D.items())
        rows = {point_id: row for row, (point_id, _) in enumerate(points)}
        seen = [
            (frames[image.name], rows[spot.point3D_id], keypoint, spot.xy[0], spot.xy[1])
            for image in images
            for keypoint, spot in enumerate(image.points2D)
            if spot.has_point3D()
        ]
        table = np.array(seen, np.float64).reshape(-1, 5)
        (camera,) = {image.camera_id: image.camera for image in images}.values()
        np.savez(
            path,
            frames=np.array([frames[image.name] for image in images], np.int64),
            w2c=np.array([image.cam_from_world().matrix() for image in images], np.float64),
            K=np.array(camera.calibration_matrix(), np.float64),
            k1=np.array(camera.params[3] if self.job["distorted"] else 0.0, np.float64),
            xyz=np.array([point.xyz for _, point in points], np.float64).reshape(-1, 3),
            rgb=np.array([point.color for _, point in points], np.uint8).reshape(-1, 3),
            error=np.array([point.error for _, point in points], np.float64),
            length=np.array([point.track.length() for _, point in points], np.int64),
            seen=table[:, :3].astype(np.int64),
            places=table[:, 3:],
        )


def _worth(model: Any) -> tuple[int, int]:
    return model.num_reg_images(), model.num_points3D()
