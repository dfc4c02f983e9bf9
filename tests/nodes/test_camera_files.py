"""Camera paths in ComfyUI's input and output folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import DATA, assert_same_up_to

FORMATS = {
    "genxd": ".json",
    "transforms": ".json",
    "colmap": "",
    "colmap-text": "",
    "realestate10k": ".txt",
}


@pytest.fixture(scope="module")
def path(host) -> Any:
    gx = host.module("genxd_core")
    cameras = gx.orbit(6, elevation_deg=20.0, azimuth_range_deg=(0.0, 90.0), aspect=1.5)
    return host.module("genxd_core.cameras.editing").with_even_times(cameras)


@pytest.fixture
def folders(host, tmp_path, monkeypatch) -> Path:
    """Input and output folders of this test alone."""
    import folder_paths

    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def save(host: Any, cameras: Any, prefix: str = "genxd/cameras", format: str = "genxd") -> str:
    graph = {
        "path": host.value(cameras),
        "1": {
            "class_type": "GenXD_SaveCameras",
            "inputs": {
                "cameras": ["path", 0],
                "filename_prefix": prefix,
                "format": format,
                "width": 384,
                "height": 256,
            },
        },
        "2": host.capture(["1", 0]),
    }
    run = host.run(graph)
    assert list(run.ui["1"]["text"]) == [f"saved output/{run.captured['out']}"]
    return run.captured["out"]


AS_IT_IS = {"scale_to": 0.0, "num_views": 0, "max_distortion": 0.02}


def load(host: Any, file: str, **changes: Any) -> tuple[Any, str]:
    return host.run_node("GenXD_LoadCameras", file=file, **(AS_IT_IS | changes))


@pytest.mark.parametrize("format", FORMATS)
def test_saved_path_comes_back(host, path, folders, format):
    name = save(host, path, format=format)
    assert name == f"genxd/cameras_00001{FORMATS[format]}"
    shutil.move(folders / "output" / "genxd", folders / "input" / "from elsewhere")
    entry = f"from elsewhere/cameras_00001{FORMATS[format]}"
    cameras, report = load(host, entry if FORMATS[format] else f"{entry}/ (COLMAP)")
    assert_same_up_to(cameras.c2w, path.c2w, 1e-5)
    assert_same_up_to(cameras.Ks_norm, path.Ks_norm, 1e-5)
    if format in ("genxd", "realestate10k"):
        assert_same_up_to(cameras.times, path.times, 1e-5)
    assert "6 cameras" in report


def test_saving_again_takes_the_next_number_whatever_the_format(host, path, folders):
    prefix = "a [b].c"  # no pattern, and no suffix
    names = [save(host, path, prefix, format) for format in ("genxd", "colmap", "realestate10k")]
    assert names == [f"{prefix}_00001.json", f"{prefix}_00002", f"{prefix}_00003.txt"]
    assert len(list((folders / "output").iterdir())) == 3


def test_saved_numbers_can_be_read_by_others(host, path, folders):
    name = save(host, path, format="transforms")
    content = json.loads((folders / "output" / name).read_text(encoding="utf-8"))
    frame = content | content["frames"][-1]
    assert (frame["w"], frame["h"]) == (384, 256)
    # The shorter side has the focal length: 1.0938 x 256 pixels.
    assert [frame["fl_x"], frame["fl_y"]] == pytest.approx([1.0938 * 256] * 2, rel=1e-5)
    assert len(content["frames"]) == 6


def test_path_can_be_scaled_and_resampled_while_loading(host, path, folders):
    save(host, path, "p")
    shutil.copy(folders / "output" / "p_00001.json", folders / "input")
    cameras, report = load(host, "p_00001.json", scale_to=3.0, num_views=11)
    assert len(cameras) == 11
    distances = (cameras.centres - cameras.centres[0]).norm(dim=-1)
    assert float(distances.max()) == pytest.approx(3.0, rel=1e-5)
    assert "11 cameras" in report
    assert "path scale 3" in report


def test_colmap_model_of_real_photos_is_found_in_its_subfolder(host, folders):
    shutil.copytree(DATA / "lund" / "sparse", folders / "input" / "lund" / "sparse")
    name = "lund/sparse/0/ (COLMAP)"
    error = told(host, "GenXD_LoadCameras", file=name, **AS_IT_IS)
    assert "has lens distortion (k = -0.08741, allowed 0.02)" in error
    assert "raise max_distortion if only the path matters" in error
    cameras, report = load(host, name, max_distortion=0.1)
    assert len(cameras) == 15
    assert report.startswith("15 cameras")


def test_menu_lists_camera_files_and_models_only(host, path, folders):
    options = host.module("nodes.camera_files").list_camera_files
    assert host.call(options) == {}
    (folders / "input" / "sub").mkdir()
    for name in ("a.png", "b.txt", "sub/c.json", "cameras.json"):
        (folders / "input" / name).touch()
    shutil.copytree(DATA / "lund" / "sparse", folders / "input" / "lund")
    assert sorted(host.call(options)) == ["b.txt", "lund/0/ (COLMAP)", "sub/c.json"]


def test_changed_file_is_read_again(host, path, folders):
    save(host, path, "p")
    saved = folders / "output" / "p_00001.json"
    target = folders / "input" / "p.json"
    shutil.copy(saved, target)
    node = host.nodes.NODE_CLASS_MAPPINGS["GenXD_LoadCameras"]
    before = host.call(lambda: node.fingerprint_inputs("p.json", **AS_IT_IS))
    stamp = target.stat().st_mtime_ns + 10**9
    import os

    os.utime(target, ns=(stamp, stamp))
    assert host.call(lambda: node.fingerprint_inputs("p.json", **AS_IT_IS)) != before


# ---- what is refused ----------------------------------------------------------------------------


def told(host: Any, class_type: str, **inputs: Any) -> str:
    graph: dict[str, Any] = {"1": {"class_type": class_type, "inputs": inputs}}
    if "cameras" in inputs:
        graph["path"] = host.value(inputs["cameras"])
        graph["1"]["inputs"] = {**inputs, "cameras": ["path", 0]}
    graph["2"] = host.capture(["1", 0])
    run = host.run(graph, check=False)
    assert not run.captured
    return run.error.partition("\nTraceback")[0]


@pytest.mark.parametrize(
    "prefix",
    ["../outside", "a/../../outside", "/", "", "  ", ".", "a/..", "..\\outside", "nul\0l", "a\nb"],
)
def test_name_outside_the_output_folder_is_refused_before_running(host, path, folders, prefix):
    options = {"format": "genxd", "width": 8, "height": 8}
    error = told(host, "GenXD_SaveCameras", cameras=path, filename_prefix=prefix, **options)
    assert f"filename_prefix is {prefix!r}; expected a name inside the output folder" in error
    assert "Custom validation failed" in error
    assert list(folders.rglob("*outside*")) == []


def test_absolute_name_stays_inside(host, path, folders):
    assert save(host, path, "/etc/cameras") == "etc/cameras_00001.json"


def test_link_that_leads_outside_is_refused(host, path, folders):
    (folders / "elsewhere").mkdir()
    try:
        (folders / "output" / "link").symlink_to(folders / "elsewhere", target_is_directory=True)
    except OSError as error:
        pytest.skip(f"links need a privilege here: {error}")
    options = {"format": "genxd", "width": 8, "height": 8}
    error = told(host, "GenXD_SaveCameras", cameras=path, filename_prefix="link/x", **options)
    assert "expected a name inside the output folder" in error
    assert list((folders / "elsewhere").iterdir()) == []


def test_name_through_a_link_is_checked_too(host, path, folders):
    graph = {
        "path": host.value(path),
        "name": host.value("../outside"),
        "1": {
            "class_type": "GenXD_SaveCameras",
            "inputs": {
                "cameras": ["path", 0],
                "filename_prefix": ["name", 0],
                "format": "genxd",
                "width": 8,
                "height": 8,
            },
        },
        "2": host.capture(["1", 0]),
    }
    assert (
        "GenXD Save Cameras: filename_prefix is '../outside'" in host.run(graph, check=False).error
    )


def test_name_that_is_a_file_already_is_refused(host, path, folders):
    (folders / "output" / "taken").touch()
    options = {"format": "genxd", "width": 8, "height": 8}
    error = told(host, "GenXD_SaveCameras", cameras=path, filename_prefix="taken/x", **options)
    assert 'GenXD Save Cameras: filename_prefix is "taken/x"' in error
    assert "choose another name" in error


@pytest.mark.parametrize("file", ["../secret.json", "none.json", "/etc/passwd", ""])
def test_file_that_is_not_in_the_menu_is_refused(host, path, folders, file):
    (folders / "secret.json").write_text("{}", encoding="utf-8")
    error = told(host, "GenXD_LoadCameras", file=file, **AS_IT_IS)
    assert f"file: {file!r} not in" in error


def test_without_files_the_menu_says_so(host, folders):
    name = host.module("nodes.camera_files").NO_CAMERA_FILES
    error = told(host, "GenXD_LoadCameras", file=name, **AS_IT_IS)
    assert "GenXD Load Cameras: file is" in error
    assert "put a camera file there, press R and choose it" in error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "nothing of use", "is of no known format"),
        ("other.json", '{"a": 1}', "JSON of no known format"),
        ("cut.json", '{"frames": [', "is of no known format: neither JSON"),
        ("list.json", "[1, 2]", "holds a JSON list, no object"),
        ("new.json", '{"format": "genxd-cameras", "version": 99}', "Update ComfyUI-GenXD"),
        (
            "empty.json",
            '{"format": "genxd-cameras", "version": 1}',
            '"cameras" is missing or empty',
        ),
    ],
)
def test_file_that_holds_no_cameras_says_what_it_holds(host, folders, name, content, message):
    (folders / "input" / name).write_text(content, encoding="utf-8")
    error = told(host, "GenXD_LoadCameras", file=name, **AS_IT_IS)
    assert "GenXD Load Cameras: path" in error
    assert name in error
    assert message in error


def test_mirrored_camera_in_a_file_is_named(host, path, folders):
    save(host, path, "p")
    file = folders / "output" / "p_00001.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    content["cameras"][4]["c2w"] = (torch.tensor(content["cameras"][4]["c2w"]) @ flip).tolist()
    (folders / "input" / "p.json").write_text(json.dumps(content), encoding="utf-8")
    error = told(host, "GenXD_LoadCameras", file="p.json", **AS_IT_IS)
    assert "c2w of camera 4 is mirrored" in error
