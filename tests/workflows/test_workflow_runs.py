"""Every API prompt in a real server: being in the folder makes a workflow a test case."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from genxd_core import load_ply
from genxd_core.media import load_video
from tools.comfy_client import output_files
from tools.demo import PROMPTS
from tools.workflows_inputs import PHOTOGRAPH

FEW_STEPS, FEW_ITERATIONS = 2, 20
LONGEST = 45.0  # seconds a workflow may take with few steps

# Width and height of what comes out, by the title of the node; pictures are counted.
VIEWS = {
    "Contact sheet": [(4 * 256 + 3 * 4, 3 * 256 + 2 * 4)],
    "Camera path": [(1024, 512)],
    "Video": [(12, 256, 256)],
}
EXPECTED = {
    "01_image_to_3d_views": VIEWS,
    "02_image_to_4d_video": VIEWS,
    "02b_first_middle_last_to_4d_video": VIEWS,
    "03_few_views_to_path": VIEWS,
    "05_motion_strength": {
        "Contact sheet": [(12 * 128 + 11 * 4, 4 * 128 + 3 * 4)],
        "Video": [(12, 4 * 256 + 3 * 4, 256)],
    },
    "06_image_to_splat": {
        "Camera path": [(1024, 512)],
        "Comparisons": [(480, 5 * 160 + 4 * 4)],
        "Spin": [(78, 512, 512)],
    },
    "07_few_views_to_splat": {
        "Camera path": [(1024, 512)],
        "Video": [(36, 2 * 384 + 4, 384)],
    },
    "08_capture_to_splat": {
        "Camera path": [(1024, 512)],
        "Comparisons": [(480, 2 * 120 + 4)],
        "Walk": [(60, 512, 384)],
    },
    "09_image_to_4d_object": {
        "Moments": [(12 * 96 + 11 * 4, 6 * 96 + 3 * 4 + 2 * 4)],
        "Video": [(24, 3 * 256 + 2 * 4, 256)],
    },
    "10_video_to_4d": {
        "Moments": [(12 * 96 + 11 * 4, 3 * 96 + 2 * 4)],
        "Video": [(12, 2 * 256 + 4, 256)],
    },
    "11_multiview_videos": {
        "Camera path": [(1024, 512)],
        "Rough videos": [(12 * 96 + 11 * 4, 4 * 96 + 3 * 4)],
        "Refined videos": [(12 * 96 + 11 * 4, 4 * 96 + 3 * 4)],
        "Video": [(12, 4 * 256 + 3 * 4, 256)],
    },
    "12_scene_4d_motion_bases": {
        "Camera path": [(1024, 512)],
        "Comparisons": [(6 * 112, 3 * 126 + 2 * 4)],
        "Moments": [(8 * 112 + 7 * 4, 9 * 63 + 6 * 4 + 2 * 4)],
        "Video": [(24, 3 * 320 + 2 * 4, 180)],
    },
}


def load(name: str, steps: int = FEW_STEPS) -> dict:
    graph = json.loads((PROMPTS / f"{name}.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = steps
        if node["class_type"] in ("GenXD_LiftTo3DGS", "GenXD_LiftTo4DGS"):
            node["inputs"]["iterations"] = FEW_ITERATIONS
        if node["class_type"] == "GenXD_LiftToMotionBases":
            node["inputs"]["recipe"] = "test"
    return graph


def read(client, file: dict, tmp_path) -> np.ndarray:
    """Return frames, (v, height, width, 3) in [0, 1]."""
    content = client.view(file)
    if file["filename"].endswith(".mp4"):
        path = tmp_path / "video.mp4"
        path.write_bytes(content)
        return load_video(path).permute(0, 2, 3, 1).numpy()
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32)[None] / 255


def check_splat(content: bytes, tmp_path) -> None:
    """A scene that a viewer can show."""
    path = tmp_path / "scene.ply"
    path.write_bytes(content)
    scene = load_ply(path)
    assert len(scene) > 1000
    assert float(scene.opacities.max()) > 0.05
    assert scene.means.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in PROMPTS.glob("*.json")))
def test_prompt_runs_and_makes_pictures(name, client, tmp_path):
    graph = load(name)
    started = time.monotonic()
    entry = client.run(graph, timeout=4 * LONGEST)
    assert time.monotonic() - started < LONGEST
    sizes: dict[str, list[tuple[int, ...]]] = {}
    for node_id, output in entry["outputs"].items():
        for file in output_files({"outputs": output}):
            if file["type"] == "input":
                continue
            if file["filename"].endswith(".ply"):
                check_splat(client.view(file), tmp_path)
                continue
            frames = read(client, file, tmp_path)
            assert np.isfinite(frames).all()
            assert frames.std(axis=(1, 2, 3)).min() > 0.01, "a picture is all of one colour"
            count, height, width = frames.shape[:3]
            size = (count, width, height) if count > 1 else (width, height)
            sizes.setdefault(graph[node_id]["_meta"]["title"], []).append(size)
    assert sizes, "nothing came out"
    assert sizes == EXPECTED.get(name, sizes)


@pytest.mark.slow
def test_picture_of_another_shape_needs_no_other_change(client):
    """What the README tells people to do first: a photograph that is not square."""
    graph = load("01_image_to_3d_views")
    for node in graph.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = PHOTOGRAPH
    assert output_files(client.run(graph, timeout=4 * LONGEST))


def test_gallery_of_paths_has_a_picture_for_each(client):
    graph = load("04_camera_paths")
    entry = client.run(graph)
    shown = {graph[node_id]["_meta"]["title"] for node_id in entry["outputs"]}
    previews = [n for n in graph.values() if n["class_type"] == "GenXD_PreviewCameras"]
    assert shown == {node["_meta"]["title"] for node in previews}
    assert len(shown) == len(previews) == 12


@pytest.mark.slow
def test_strength_changes_the_frames_and_not_the_given_one(client, tmp_path):
    """The rows of 05 differ in strength alone: the given first frame is the same in all."""
    graph = load("05_motion_strength", steps=3)
    for node in graph.values():
        if node["class_type"] == "TextOverlay":
            node["inputs"]["text"] = ""
    entry = client.run(graph)
    (sheet_id,) = [i for i, n in graph.items() if n["_meta"]["title"] == "Contact sheet"]
    (file,) = output_files({"outputs": entry["outputs"][sheet_id]})
    sheet = read(client, file, tmp_path)[0]
    rows = [sheet[row * 132 : row * 132 + 128] for row in range(4)]
    for row in rows[1:]:
        difference = np.abs(row - rows[0])
        # The temporal decoder lets neighbours into the first frame a little.
        assert difference[:, :128].mean() < 0.5 * difference[:, 132:].mean() + 1 / 255
        assert difference[:, 132:].max() > 0
