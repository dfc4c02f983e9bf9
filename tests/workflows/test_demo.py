"""The demo: it names its results, and runs any example workflow."""

import pytest

from tools import demo

GRAPH = {
    "1": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "Contact sheet"}},
    "2": {"class_type": "SaveVideo", "inputs": {}, "_meta": {"title": "Video (4D)"}},
    "3": {"class_type": "Preview", "inputs": {}, "_meta": {"title": "Path"}},
    "4": {"class_type": "Preview", "inputs": {}, "_meta": {"title": "Path"}},
}


def test_results_are_named_after_workflow_and_node():
    assert demo.file_stems("01_x", GRAPH) == {
        "1": "01_x_contact_sheet",
        "2": "01_x_video_4d",
        "3": "01_x_path_3",
        "4": "01_x_path_4",
    }


def test_the_scene_and_the_spin_have_the_names_that_the_readme_tells():
    stems = demo.file_stems("06_image_to_splat", demo.load_prompt("06_image_to_splat"))
    assert {"scene", "spin"} <= set(stems.values())
    assert "06_image_to_splat_comparisons" in stems.values()


def test_a_saved_scene_is_collected_and_the_one_in_a_viewer_is_not(tmp_path):
    class Server:
        def view(self, file):
            return f"{file['type']}:{file['subfolder']}/{file['filename']}".encode()

    outputs = {
        "1": {"result": ["genxd/scene_00001_.ply", None, []]},
        "2": {"result": ["preview_splat_0123.ply", {"fov": 35}, []]},
        "3": {"result": ["no file"]},
    }
    paths = demo.collect(Server(), {"outputs": outputs}, tmp_path, {"1": "scene"})
    assert [path.name for path in paths] == ["scene.ply"]
    assert paths[0].read_bytes() == b"output:genxd/scene_00001_.ply"


def test_collected_files_have_the_names_of_their_nodes(tmp_path):
    class Server:
        def view(self, file):
            return file["filename"].encode()

    def made(*names, kind="output"):
        return {"images": [{"filename": n, "subfolder": "", "type": kind} for n in names]}

    entry = {
        "outputs": {
            "1": made("ComfyUI_00001_.png", kind="temp"),
            "2": made("a_00001_.png", "a_00002_.png"),
            "3": made("given.png", kind="input"),
            "9": made("other.png"),
        }
    }
    stems = {"1": "sheet", "2": "frame", "3": "given"}
    paths = demo.collect(Server(), entry, tmp_path, stems)
    names = ["sheet.png", "frame_00.png", "frame_01.png", "other.png"]
    assert [path.name for path in paths] == names
    assert (tmp_path / "frame_01.png").read_bytes() == b"a_00002_.png"


def test_unknown_workflow_is_told_with_those_that_exist(capsys):
    with pytest.raises(demo.UnknownWorkflow, match=r"no workflow .nonsense.; there are: 01_image"):
        demo.load_prompt("nonsense")
    assert demo.main(["--comfy-root", "none", "nonsense"]) == 1
    assert "no workflow 'nonsense'" in capsys.readouterr().err


def test_run_leaves_named_results(server, client, tmp_path, capsys):
    paths = demo.run(server, "04_camera_paths", tmp_path)
    assert len(paths) == 12
    assert tmp_path / "04_camera_paths_orbit.png" in paths
    assert "Running workflows/api/04_camera_paths.json" in capsys.readouterr().out
