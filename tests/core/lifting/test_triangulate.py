import importlib.util
import itertools
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import torch

import genxd_core as gx
from genxd_core import child_process
from genxd_core.errors import Cancelled, InvalidInputError, MissingDependencyError
from genxd_core.lifting import triangulate
from genxd_core.lifting.triangulate import triangulate_points, view_pairs
from genxd_core.lifting.triangulate_worker import epipolar_error, fundamental_matrix
from genxd_core.synthetic import make_clips
from tests.support import DATA, seeded

# Importing it here could break this process: see the worker.
needs_pycolmap = pytest.mark.skipif(
    importlib.util.find_spec("pycolmap") is None, reason="pycolmap is not installed"
)
NUM_VIEWS = 12


@pytest.fixture(scope="module")
def clip():
    return make_clips([0], "textured_3d", num_frames=NUM_VIEWS, size=128)


@pytest.fixture(scope="module")
def found(clip):
    return triangulate_points(clip.images[0], clip.cameras(0))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, with a name that needs care."""
    folder = tmp_path / "a b-c'd"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Put a program in the child's place."""

    def use(program):
        file = tmp_path / "worker.py"
        file.write_text(f"import json, os, sys, time\n{program}\n", encoding="utf-8")
        monkeypatch.setattr(child_process, "_MAIN", file)
        # It stands for one that needs no pycolmap either.
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)

    return use


def two_views():
    images = torch.rand(2, 3, 32, 32, generator=seeded())
    return images, gx.orbit(2, azimuth_range_deg=(0.0, 40.0))


def distances_to_surface(points, clip):
    """From each point to the nearest of the clip's pixels in space."""
    cameras, (height, width) = clip.cameras(0), clip.depth.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    surface = []
    for view, K in enumerate(cameras.Ks(width, height)):
        z = clip.depth[0, view]
        seen = torch.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z], -1)
        pose = cameras.c2w[view]
        surface.append(seen[z > 0] @ pose[:3, :3].T + pose[:3, 3])
    return torch.cdist(points.xyz, torch.cat(surface)).amin(1)


@needs_pycolmap
def test_points_lie_on_the_surface(clip, found):
    assert len(found) > 150
    # A pixel is 0.015 scene units wide at the objects' distance of 2.
    assert float(distances_to_surface(found, clip).median()) < 0.05
    assert found.rgb is not None


@needs_pycolmap
def test_points_have_the_colours_of_their_pictures(clip, found):
    K, viewmat = clip.cameras(0).Ks(128, 128)[0], clip.cameras(0).viewmats[0]
    seen = (found.xyz @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
    pixels = seen[:, :2] / seen[:, 2:]
    inside = ((pixels >= 1) & (pixels < 127)).all(1)
    column, row = pixels[inside].long().unbind(1)
    visible = (seen[inside, 2] - clip.depth[0, 0, row, column]).abs() < 0.1
    off = (clip.images[0, 0, :, row, column].T - found.rgb[inside]).abs().mean(1)
    assert int(visible.sum()) > 30
    assert float(off[visible].median()) < 0.05


@needs_pycolmap
def test_the_same_input_gives_the_same_points_with_any_number_of_threads(clip, found):
    again = triangulate_points(clip.images[0], clip.cameras(0), num_threads=2)
    assert torch.equal(again.xyz, found.xyz)
    assert torch.equal(again.rgb, found.rgb)


@needs_pycolmap
def test_masks_keep_points_to_the_objects(clip):
    masks = (clip.ids[0] > 0)[:, None].float()
    masked = triangulate_points(clip.images[0], clip.cameras(0), masks=masks)
    for view in range(NUM_VIEWS):
        K, viewmat = clip.cameras(0).Ks(128, 128)[view], clip.cameras(0).viewmats[view]
        seen = (masked.xyz @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
        pixels = seen[:, :2] / seen[:, 2:]
        inside = ((pixels >= 0) & (pixels < 128)).all(1)
        column, row = pixels[inside].long().unbind(1)
        near = torch.nn.functional.max_pool2d(masks[view], 5, 1, 2)[0, row, column]
        assert float(near.mean()) > 0.85


@needs_pycolmap
def test_small_pictures_are_enlarged_until_points_are_found():
    small = make_clips([0], "textured_3d", num_frames=NUM_VIEWS, size=64)
    points = triangulate_points(small.images[0], small.cameras(0))
    assert len(points) >= 20
    assert float(distances_to_surface(points, small).median()) < 0.1


@needs_pycolmap
def test_at_most_so_many_points_are_drawn(clip, found):
    options = {"max_points": 30, "seed": 3}
    few = triangulate_points(clip.images[0], clip.cameras(0), **options)
    assert len(few) == 30
    all_of_them = {tuple(point) for point in found.xyz.tolist()}
    assert {tuple(point) for point in few.xyz.tolist()} <= all_of_them


@needs_pycolmap
def test_photos_of_a_street_give_the_points_of_its_model():
    capture = gx.load_capture(DATA / "lund")
    kept = slice(3, 9)
    points = triangulate_points(capture.images[kept], capture.cameras[kept])
    assert len(points) > 150
    away = torch.cdist(points.xyz, capture.points.xyz).amin(1)
    # The model's own points are 0.05 apart, and seen from a distance of 3.
    assert float(away.median()) < 0.1


@needs_pycolmap
def test_progress_is_told_and_nothing_is_left_behind(clip, temporary):
    steps = []
    triangulate_points(
        clip.images[0], clip.cameras(0), progress=lambda step, total, _=None: steps.append(step)
    )
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (1, NUM_VIEWS + 4)  # 66 pairs are two steps
    assert list(temporary.iterdir()) == []


@needs_pycolmap
def test_pictures_without_anything_in_common_are_refused_plainly(temporary):
    with pytest.raises(InvalidInputError, match="images show only 0 points that agree"):
        triangulate_points(torch.full((2, 3, 32, 32), 0.5), two_views()[1])
    assert list(temporary.iterdir()) == []


@needs_pycolmap
def test_an_empty_mask_is_refused_plainly(clip):
    with pytest.raises(InvalidInputError, match="images show only 0 points on the masks"):
        triangulate_points(
            clip.images[0], clip.cameras(0), masks=torch.zeros(NUM_VIEWS, 1, 128, 128)
        )


@needs_pycolmap
def test_the_host_never_loads_pycolmap(clip, monkeypatch):
    monkeypatch.delitem(sys.modules, "pycolmap", raising=False)  # another test may have
    triangulate_points(clip.images[0], clip.cameras(0))
    assert "pycolmap" not in sys.modules


# ---- the child process --------------------------------------------------------------------------


def test_stopping_ends_the_child_within_a_second(worker, temporary, tmp_path):
    mark = tmp_path / "lives"
    worker(f"while True:\n    open({str(mark)!r}, 'wb').close(); time.sleep(0.05)")
    started = []

    def progress(step, total, preview=None):
        if mark.exists() and not started:
            started.append(time.monotonic())
        return not started

    with pytest.raises(Cancelled):
        triangulate_points(*two_views(), progress=progress)
    assert time.monotonic() - started[0] < 1.0
    assert list(temporary.iterdir()) == []
    mark.unlink()
    time.sleep(0.3)
    assert not mark.exists(), "the child goes on"


def test_the_limit_of_time_ends_the_child(worker, temporary):
    worker("print(json.dumps({'done': 2}), flush=True); time.sleep(60)")
    start = time.monotonic()
    with pytest.raises(InvalidInputError, match=r"time_limit of 1 s was reached after step . of 4"):
        triangulate_points(*two_views(), time_limit=1.0)
    assert time.monotonic() - start < 5
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("sys.stderr.write('broken inside\\n'); os.abort()", "broken inside"),
        ("os._exit(5)", "status 5: it said nothing"),
        ("print('no JSON'); print('[1]'); sys.exit(0)", "it said nothing"),
        ("print(json.dumps({'error': 'RuntimeError: bad'})); sys.exit(1)", "RuntimeError: bad"),
    ],
)
def test_a_child_that_fails_is_told_plainly(worker, temporary, program, told):
    worker(program)
    with pytest.raises(InvalidInputError, match="because pycolmap stopped") as caught:
        triangulate_points(*two_views())
    assert told in str(caught.value)
    assert "Start from masks, depth" in str(caught.value)
    assert list(temporary.iterdir()) == []


@needs_pycolmap
def test_the_worker_ends_when_nobody_holds_its_standard_input(tmp_path):
    (tmp_path / "job.json").write_text("{}", encoding="utf-8")
    command = [sys.executable, child_process._MAIN, triangulate._WORKER, tmp_path]
    # Held, it gets as far as to complain about the job; else it is gone before.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert b"KeyError" in held.stdout.readline()
    alone = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert (alone.returncode, alone.stdout) == (1, b"")


def test_without_pycolmap_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingDependencyError, match="pip install pycolmap") as caught:
        triangulate_points(*two_views())
    assert "extra 'lift'" in str(caught.value)


def test_a_pycolmap_that_cannot_be_loaded_is_told(worker):
    worker("print(json.dumps({'error': 'no GLIBC', 'missing': True})); sys.exit(1)")
    with pytest.raises(MissingDependencyError, match="cannot be imported \\(no GLIBC\\)"):
        triangulate_points(*two_views())


# ---- what is refused before ---------------------------------------------------------------------


def test_inputs_that_do_not_belong_together_are_refused():
    images, cameras = two_views()
    for arguments, options, told in [
        ((images, cameras[:1]), {}, "2 pictures for 1 cameras"),
        ((images[:1], cameras[:1]), {}, "has one picture"),
        ((images, cameras), {"masks": torch.ones(2, 1, 16, 16)}, "masks has shape"),
        ((images[..., :16], cameras), {}, "cameras do not belong to pictures of this shape"),
        ((images, cameras), {"max_points": 3}, "max_points is 3"),
        ((images, cameras), {"num_threads": 0}, "num_threads is 0"),
        ((images, cameras), {"time_limit": float("nan")}, "time_limit is nan"),
    ]:
        with pytest.raises(InvalidInputError, match=told):
            triangulate_points(*arguments, **options)


def test_few_views_are_all_compared_and_many_with_their_neighbours():
    few = gx.orbit(5)
    assert view_pairs(few) == list(itertools.combinations(range(5), 2))
    # Two rounds on the same circle: a view's neighbours are also those of the other round.
    many = gx.orbit(200, azimuth_range_deg=(0.0, 720.0))
    pairs = view_pairs(many)
    assert all(0 <= first < second < 200 for first, second in pairs)
    assert len(pairs) == len(set(pairs)) < 200 * 30
    assert {(10, 11), (10, 20), (10, 42), (10, 110)} <= set(pairs)


def test_matches_are_held_against_the_cameras():
    cameras = gx.orbit(2, azimuth_range_deg=(0.0, 60.0)).to(dtype=torch.float64)
    projections = (cameras.Ks(100, 100) @ cameras.viewmats[:, :3]).numpy()
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 3))
    seen = [points @ P[:, :3].T + P[:, 3] for P in projections]
    first, second = (one[:, :2] / one[:, 2:] for one in seen)
    F = fundamental_matrix(*projections)
    assert epipolar_error(F, first, second).max() < 1e-8
    # Level cameras: a shift upwards leaves the line by about as much, shared by both pictures.
    off = epipolar_error(F, first, second + np.array([0.0, 3.0]))
    assert np.all((off > 1.5) & (off < 3.0))
