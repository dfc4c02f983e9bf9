"""Child process of `triangulate`: features, matches and points with pycolmap, poses kept as given.

Run by `genxd_core.child_main`, with nothing of the package to import. The folder holds
``job.json``, ``images``, ``model`` (a COLMAP model without points) and, where given, ``masks``;
``points.npz`` is left there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Tell = Callable[[dict[str, Any]], None]

_LEAST_CONTRAST = 0.003  # of features: pictures made by a network are smoother than photographs
_MOST_FEATURES = 4096
_TINY = 1e-300


def run(colmap: Any, folder: Path, job: dict[str, Any], tell: Tell) -> None:
    """Do the job that lies in a folder."""
    _Work(colmap, folder, job, tell).run()


class _Work:
    """The three steps, each in parts small enough to report."""

    def __init__(self, colmap: Any, folder: Path, job: dict[str, Any], tell: Tell) -> None:
        self.colmap, self.folder, self.job, self.tell = colmap, folder, job, tell
        self.database = folder / "database.db"
        self.done = 0
        colmap.logging.minloglevel = int(colmap.logging.ERROR)
        colmap.set_random_seed(job["seed"])

    def run(self) -> None:
        for name, params in zip(self.job["names"], self.job["params"], strict=True):
            self._extract(name, params)
            self._step()
        for pairs in self.job["pairs"]:
            self._match(pairs)
            self._verify(pairs)
            self._step()
        self._save(self._triangulate())
        self._step()

    def _step(self) -> None:
        self.done += 1
        self.tell({"done": self.done})

    def _extract(self, name: str, params: str) -> None:
        reader = self.colmap.ImageReaderOptions(camera_model="PINHOLE", camera_params=params)
        if self.job["masked"]:
            reader.mask_path = str(self.folder / "masks")
        options = self.colmap.FeatureExtractionOptions()
        options.num_threads, options.use_gpu = self.job["threads"], False
        options.sift.max_num_features = _MOST_FEATURES
        options.sift.peak_threshold = _LEAST_CONTRAST
        self.colmap.extract_features(
            self.database,
            self.folder / "images",
            image_names=[name],
            camera_mode=self.colmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=options,
            device=self.colmap.Device.cpu,
        )

    def _match(self, pairs: list[tuple[int, int]]) -> None:
        names = self.job["names"]
        listed = self.folder / "pairs.txt"
        lines = [f"{names[first]} {names[second]}\n" for first, second in pairs]
        listed.write_text("".join(lines), encoding="utf-8")
        options = self.colmap.FeatureMatchingOptions()
        options.num_threads, options.use_gpu = self.job["threads"], False
        options.skip_geometric_verification = True
        self.colmap.match_image_pairs(
            self.database,
            matching_options=options,
            pairing_options=self.colmap.ImportedPairingOptions(match_list_path=str(listed)),
            device=self.colmap.Device.cpu,
        )

    def _verify(self, pairs: list[tuple[int, int]]) -> None:
        """Keep the matches that agree with the given cameras; no geometry has to be guessed."""
        import numpy as np

        views = {name: view for view, name in enumerate(self.job["names"])}
        projections = np.array(self.job["projections"])
        with self.colmap.Database.open(self.database) as database:
            ids = {views[image.name]: image.image_id for image in database.read_all_images()}
            pixels = {
                view: database.read_keypoints(ids[view])[:, :2].astype(np.float64)
                for view in sorted({view for pair in pairs for view in pair})
            }
            for first, second in pairs:
                matches = database.read_matches(ids[first], ids[second]).reshape(-1, 2)
                F = fundamental_matrix(projections[first], projections[second])
                a, b = pixels[first][matches[:, 0]], pixels[second][matches[:, 1]]
                kept = matches[epipolar_error(F, a, b) <= self.job["max_error"]]
                if len(kept):
                    geometry = self.colmap.TwoViewGeometry()
                    geometry.config = self.colmap.TwoViewGeometryConfiguration.CALIBRATED
                    geometry.F, geometry.inlier_matches = F, kept
                    database.write_two_view_geometry(ids[first], ids[second], geometry)

    def _triangulate(self) -> Any:
        options = self.colmap.IncrementalPipelineOptions()
        options.min_num_matches = 1
        for part in (options, options.mapper):
            part.num_threads = self.job["threads"]
        for part in (options, options.mapper, options.triangulation):
            part.random_seed = self.job["seed"]
        # A few pictures of a scene share most of their points in pairs only.
        options.triangulation.ignore_two_view_tracks = False
        output = self.folder / "triangulated"
        output.mkdir()
        found = self.colmap.triangulate_points(
            self.colmap.Reconstruction(str(self.folder / "model")),
            self.database,
            self.folder / "images",
            output,
            options=options,
            refine_intrinsics=False,
        )
        found.extract_colors_for_all_images(str(self.folder / "images"))
        return found

    def _save(self, found: Any) -> None:
        import numpy as np

        points = [point for _, point in sorted(found.points3D.items())]
        np.savez(
            self.folder / "points.npz",
            xyz=np.array([point.xyz for point in points], np.float64).reshape(-1, 3),
            rgb=np.array([point.color for point in points], np.uint8).reshape(-1, 3),
            error=np.array([point.error for point in points], np.float64),
            views=np.array([point.track.length() for point in points], np.int64),
        )


def fundamental_matrix(first: Any, second: Any) -> Any:
    """The F with ``x2^T F x1 = 0`` for two 3 x 4 projections from the world to pixels."""
    import numpy as np

    centre = np.append(-np.linalg.solve(first[:, :3], first[:, 3]), 1.0)
    x, y, z = second @ centre
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    F = cross @ second @ np.linalg.pinv(first)
    return F / max(float(np.linalg.norm(F)), _TINY)


def epipolar_error(F: Any, first: Any, second: Any) -> Any:
    """How far matches (N, 2) and (N, 2) are from agreeing with F, pixels, to first order (N,)."""
    import numpy as np

    ones = np.ones((len(first), 1))
    x1, x2 = np.concatenate([first, ones], 1), np.concatenate([second, ones], 1)
    line2, line1 = x1 @ F.T, x2 @ F
    slope = (line1[:, :2] ** 2).sum(1) + (line2[:, :2] ** 2).sum(1)
    return np.abs((x2 * line2).sum(1)) / np.sqrt(np.maximum(slope, _TINY))
