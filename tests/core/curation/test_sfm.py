import importlib.util
import json
import sys
import tempfile
import time

import pytest
import torch
import torch.nn.functional as F

from genxd_core import child_process
from genxd_core.curation import sfm
from genxd_core.curation.sfm import SfmFailedError, SfmSettings, estimate_cameras, frame_pairs
from genxd_core.curation.sfm_result import judge
from genxd_core.errors import Cancelled, InvalidInputError, MissingDependencyError
from genxd_core.evaluation.camera_errors import camera_errors
from genxd_core.media import load_image, save_frames, save_image
from genxd_core.synthetic.camera_paths import look_at
from tests.core.curation.noise_clips import noise_clip, straight_path, turning_path
from tests.support import assert_same_up_to, seeded

# Importing it here could break this process: see `child_main`.
needs_pycolmap = pytest.mark.skipif(
    importlib.util.find_spec("pycolmap") is None, reason="pycolmap is not installed"
)
FRAMES, SIZE = 12, 192


def start():
    return look_at(torch.tensor([[0.3, 2.9, 1.3]]), torch.tensor([[0.0, 0.0, 0.2]]))[0]


def grown(masks):
    return F.max_pool2d(masks, 5, 1, 2)


def errors(result, clip):
    return camera_errors(result.cameras, clip.cameras[list(result.registered)])


def still_clip(c2w):
    """Nothing moves, and each frame has noise of its own, as a sensor's."""
    clip = noise_clip(0, size=SIZE, frames=FRAMES, c2w=c2w, moving=0.0)
    noise = torch.randn(clip.images.shape, generator=seeded(5)) * (2 / 255)
    return clip, (clip.images + noise).clamp(0, 1)


@pytest.fixture(scope="module")
def arc():
    """Moving balls cover 15 % of a clip whose camera flies a wide arc."""
    return noise_clip(0, size=SIZE, frames=FRAMES, path="local_orbit")


@pytest.fixture(scope="module")
def found(arc):
    return estimate_cameras(arc.images, masks=grown(arc.masks))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "a b-c'd"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Put a program in the child's place."""

    def use(program):
        file = tmp_path / "child.py"
        file.write_text(f"import json, os, sys, time\n{program}\n", encoding="utf-8")
        monkeypatch.setattr(child_process, "_MAIN", file)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)

    return use


def few_frames(count=3):
    return torch.rand(count, 3, 32, 48, generator=seeded())


# ---- against the truth --------------------------------------------------------------------------


@needs_pycolmap
@pytest.mark.slow
def test_masked_clip_with_moving_objects_gets_true_cameras(arc, found):
    assert judge(found) is None
    assert found.registered == tuple(range(FRAMES))
    off = errors(found, arc)
    assert off.rotation_deg < 0.5
    assert off.translation < 0.01
    assert found.focal_norm == pytest.approx(1.0938, rel=0.02)
    assert found.cameras.times.tolist() == pytest.approx([i / 11 for i in range(FRAMES)])
    assert len(found.points) > 300
    assert [(one.mapper, one.registered, one.chosen) for one in found.tries] == [
        ("global", FRAMES, True)
    ]


@needs_pycolmap
@pytest.mark.slow
def test_without_masks_the_cameras_are_worse_and_nothing_tells(arc, found):
    unmasked = estimate_cameras(arc.images)
    assert judge(unmasked) is None
    assert errors(unmasked, arc).rotation_deg > 2 * errors(found, arc).rotation_deg
    assert errors(unmasked, arc).translation > 2 * errors(found, arc).translation


@needs_pycolmap
@pytest.mark.slow
def test_sparse_depth_is_the_true_depth_up_to_one_scale(arc, found):
    ratios = []
    for frame, sparse in zip(found.registered, found.sparse_depth, strict=True):
        assert len(sparse) >= 30  # with fewer, depth cannot be aligned frame by frame
        column, row = sparse.places.long().clamp(0, SIZE - 1).unbind(1)
        truth = arc.depth[frame, row, column]
        ratios.append((truth / sparse.depth)[truth > 0])
        # What moves is masked: no depth of it is known.
        assert float(arc.masks[frame, 0, row, column].mean()) == 0.0
    ratios = torch.cat(ratios)
    off = (ratios / ratios.median() - 1).abs()
    assert float(off.median()) < 0.01
    assert float((off < 0.05).float().mean()) > 0.9


@needs_pycolmap
@pytest.mark.slow
def test_repeated_runs_are_identical_and_threads_change_rounding_alone(arc, found):
    for threads, tolerance in ((1, 0.0), (2, 1e-5)):
        settings = SfmSettings(num_threads=threads)
        again = estimate_cameras(arc.images, masks=grown(arc.masks), settings=settings)
        assert_same_up_to(again.cameras.c2w, found.cameras.c2w, tolerance)
        assert_same_up_to(again.cameras.Ks_norm, found.cameras.Ks_norm, tolerance)
        assert_same_up_to(again.points.xyz, found.points.xyz, 10 * tolerance)
        assert [len(one) for one in again.sparse_depth] == [len(one) for one in found.sparse_depth]


@needs_pycolmap
@pytest.mark.slow
def test_known_intrinsics_stay_as_they_are_and_files_do_as_well_as_tensors(arc, tmp_path):
    files = save_frames(arc.images, tmp_path)
    result = estimate_cameras(files, masks=grown(arc.masks), Ks_norm=arc.cameras.Ks_norm)
    assert torch.allclose(result.cameras.Ks_norm, arc.cameras.Ks_norm, atol=1e-6)
    assert errors(result, arc).rotation_deg < 0.5
    assert errors(result, arc).translation < 0.01


@needs_pycolmap
@pytest.mark.slow
def test_windows_of_a_long_clip_are_joined(arc):
    settings = SfmSettings(window=8, window_overlap=4, mappers=("global",))
    result = estimate_cameras(arc.images, masks=grown(arc.masks), settings=settings)
    assert result.registered == tuple(range(FRAMES))
    (join,) = result.joins
    assert (join.shared_frames, join.joined) == (4, True)
    assert join.shift < 0.02
    assert errors(result, arc).rotation_deg < 1.0
    assert errors(result, arc).translation < 0.02


@needs_pycolmap
@pytest.mark.slow
def test_forward_motion_works_with_masks_of_another_size():
    clip, images = still_clip(straight_path(start(), torch.tensor([0.0, 0.0, 1.0]), 1.0, FRAMES))
    corner = torch.zeros(FRAMES, 1, SIZE // 2, SIZE // 2)
    corner[:, :, : SIZE // 4, : SIZE // 4] = 1.0
    result = estimate_cameras(images, masks=corner)
    assert judge(result) is None
    assert errors(result, clip).rotation_deg < 0.5
    assert errors(result, clip).translation < 0.01
    assert result.mask_share == pytest.approx([0.25] * FRAMES)
    for sparse in result.sparse_depth:
        assert not bool((sparse.places < SIZE / 2 - 1).all(1).any())


@needs_pycolmap
@pytest.mark.slow
def test_camera_that_only_turns_is_rejected():
    _, images = still_clip(turning_path(start(), 0.3, FRAMES))
    result = estimate_cameras(images)
    assert judge(result) == "low_triangulation"
    assert {one.mapper for one in result.tries} == {"global", "incremental"}


@needs_pycolmap
@pytest.mark.slow
def test_camera_that_stands_still_has_no_model():
    _, images = still_clip(turning_path(start(), 0.0, FRAMES))
    result = estimate_cameras(images)
    assert judge(result) == "no_reconstruction"
    assert (result.cameras, result.registered, result.mapper) == (None, (), None)


@needs_pycolmap
@pytest.mark.slow
def test_masks_over_everything_are_told_and_break_nothing(temporary):
    clip = few_frames(12)
    result = estimate_cameras(clip, masks=torch.ones(12, 1, 32, 48))
    assert judge(result) == "mask_covers_frame"
    assert result.mask_share == (1.0,) * 12
    assert list(temporary.iterdir()) == []


@needs_pycolmap
@pytest.mark.slow
def test_radial_distortion_is_found_and_taken_out(arc):
    """A lens with k1 shows at p what a pinhole shows at u with p = u (1 + k1 u^2)."""
    k1, K = 0.15, arc.cameras.Ks_norm[0]
    side = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = torch.meshgrid(side, side, indexing="ij")
    lens = torch.stack([(x - 0.5) / K[0, 0], (y - 0.5) / K[1, 1]], -1)
    straight = lens
    for _ in range(50):
        straight = lens / (1 + k1 * (straight**2).sum(-1, keepdim=True))
    at = straight * K[0, 0] * 2
    bent = torch.stack(
        [F.grid_sample(one[None], at[None], align_corners=False)[0] for one in (*arc.images,)]
    )
    masks = F.grid_sample(grown(arc.masks), at.expand(FRAMES, -1, -1, -1), align_corners=False)
    result = estimate_cameras(bent, masks=masks, camera_model="SIMPLE_RADIAL")
    assert [lens["k1"] for lens in result.distortion] == pytest.approx([k1] * FRAMES, abs=0.03)
    assert errors(result, arc).rotation_deg < 0.5
    pictures, plain = result.undistorted(bent)
    assert not any(plain.distortion)
    assert pictures.shape == bent.shape


# ---- the child process --------------------------------------------------------------------------


def test_stopping_ends_the_child(child, temporary):
    child("time.sleep(60)")
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        estimate_cameras(few_frames(), progress=lambda step, total, _=None: False)
    assert time.monotonic() - begun < 5
    assert list(temporary.iterdir()) == []


def test_limit_of_time_is_told_plainly(child, temporary):
    child("print(json.dumps({'done': 2}), flush=True); time.sleep(60)")
    begun = time.monotonic()
    with pytest.raises(SfmFailedError, match=r"time_limit of 1 s was reached after step . of 7"):
        estimate_cameras(few_frames(), settings=SfmSettings(time_limit=1.0))
    assert time.monotonic() - begun < 5
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("sys.stderr.write('Check failed: x\\n'); sys.stderr.flush(); os.abort()", "Check failed"),
        ("os._exit(5)", "status 5: it said nothing"),
        ("print(json.dumps({'error': 'RuntimeError: bad'})); sys.exit(1)", "RuntimeError: bad"),
        ("print(json.dumps({'done': 6})); sys.exit(0)", "after step 6 of 7"),
    ],
)
def test_child_that_dies_is_told_plainly(child, temporary, program, told):
    child(program)
    with pytest.raises(SfmFailedError, match="because pycolmap stopped") as caught:
        estimate_cameras(few_frames())
    assert told in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_job_says_what_is_known_and_masks_say_what_is_still(child, tmp_path):
    copy = tmp_path / "copy"
    child(f"import shutil; shutil.copytree(sys.argv[2], {str(copy)!r}); os._exit(1)")
    masks = torch.zeros(3, 1, 16, 24)
    masks[1, 0, 4, 6] = 1.0  # one coarse pixel is two by two of the picture's
    K = torch.tensor([[0.75, 0.0, 0.5], [0.0, 1.125, 0.5], [0.0, 0.0, 1.0]])
    with pytest.raises(SfmFailedError):
        estimate_cameras(
            few_frames(), masks=masks, Ks_norm=K, settings=SfmSettings(seed=3, max_side=48)
        )
    job = json.loads((copy / "job.json").read_text(encoding="utf-8"))
    assert job["camera_model"] == "PINHOLE"
    assert [float(n) for n in job["params"].split(",")] == pytest.approx([36, 36, 24, 16])
    assert (job["known"], job["masked"], job["seed"]) == (True, True, 3)
    assert job["pairs"] == [[[0, 1], [0, 2], [1, 2]]]
    still = load_image(copy / "masks" / f"{job['names'][1]}.png").image[0]
    expected = torch.ones(32, 48)
    expected[8:10, 12:14] = 0.0
    assert torch.equal(still, expected)
    assert sorted(p.name for p in (copy / "images").iterdir()) == sorted(job["names"])


def test_without_pycolmap_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingDependencyError, match="extra 'curate'"):
        estimate_cameras(few_frames())


def test_pycolmap_that_cannot_be_loaded_is_told(child):
    child("print(json.dumps({'error': 'no GLIBC', 'missing': True})); sys.exit(1)")
    with pytest.raises(MissingDependencyError, match=r"cannot be imported \(no GLIBC\)"):
        estimate_cameras(few_frames())


def test_two_frames_are_a_result_without_cameras():
    result = estimate_cameras(few_frames(2))
    assert (result.frames, result.size, result.cameras) == (2, (48, 32), None)
    assert judge(result) == "too_few_frames"


# ---- what is refused before ---------------------------------------------------------------------

K = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.5, 0.5], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"masks": torch.zeros(2, 1, 32, 48)}, r"masks has shape \(2, 1, 32, 48\)"),
        ({"masks": torch.zeros(3, 1, 32, 32)}, "another shape than the pictures"),
        ({"Ks_norm": torch.eye(3)[:2]}, r"Ks_norm has shape \(2, 3\)"),
        ({"Ks_norm": torch.stack([K, K, K * torch.tensor([1.1, 1.1, 1.0])])}, "change along"),
        ({"Ks_norm": K * torch.tensor([[1.0], [0.5], [1.0]])}, "do not belong to pictures"),
        ({"Ks_norm": K, "camera_model": "SIMPLE_RADIAL"}, "are those of a pinhole"),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(options, told):
    with pytest.raises(InvalidInputError, match=told):
        estimate_cameras(few_frames(), **options)


def test_files_of_different_sizes_and_none_at_all_are_refused(tmp_path):
    files = save_frames(few_frames(3), tmp_path)
    save_image(torch.zeros(3, 8, 8), files[1])
    with pytest.raises(InvalidInputError, match="8 x 8 pixels, the first picture 48 x 32"):
        estimate_cameras(files)
    with pytest.raises(InvalidInputError, match=r"images is \[\]"):
        estimate_cameras([])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mappers": ()}, r"mappers is \(\)"),
        ({"max_features": 0}, "max_features is 0"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"window": 10, "window_overlap": 6}, "window_overlap is 6 of windows of 10"),
        ({"window": 10, "window_overlap": 2}, "window_overlap is 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, told):
    with pytest.raises(InvalidInputError, match=told):
        SfmSettings(**options)


def test_frames_of_short_clips_are_all_compared_and_of_long_ones_with_the_next():
    assert frame_pairs(4, SfmSettings()) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    pairs = frame_pairs(100, SfmSettings(overlap=3, window=20, window_overlap=5))
    assert sorted(j - i for i, j in pairs if i == 50) == [1, 2, 3, 4, 8, 16]
    assert len(pairs) == len(set(pairs))
    assert all(0 <= i < j < 100 for i, j in pairs)


def test_worker_is_where_it_is_looked_for():
    assert sfm._WORKER.is_file()
