"""The pack in a real ComfyUI server: it loads, and what the server says about it is complete."""

import json
import urllib.error
from pathlib import Path

import pytest

from tools.comfy_client import ComfyClient, PromptError, output_files, referenced_inputs
from tools.comfy_server import PACK_NAME, ComfyServer, HostError


@pytest.fixture(scope="module")
def client(server: ComfyServer) -> ComfyClient:
    return ComfyClient(server.url, server.check_alive)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (32, 16), (255, 0, 0)).save(path)
    return path


def save_graph(image: str) -> dict:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "t"}},
    }


def test_server_has_every_node_of_the_pack(server, host):
    in_process = {
        name
        for name, node in host.nodes.NODE_CLASS_MAPPINGS.items()
        if getattr(node, "RELATIVE_PYTHON_MODULE", "") == f"custom_nodes.{PACK_NAME}"
    }
    assert server.pack_nodes() == sorted(in_process)


def test_server_log_has_no_complaint_about_the_pack(server):
    lines = server.log.read_text(encoding="utf-8").splitlines()
    complaints = ("WARNING", "ERROR", "FAILED", "Traceback")
    ours = [line for line in lines if PACK_NAME in line or "genxd" in line.lower()]
    assert not [line for line in ours if any(word in line for word in complaints)]


def test_upload_run_and_view_return_the_picture(client, picture, tmp_path):
    name = client.upload(picture, subfolder="genxd")
    assert name == "genxd/red.png"
    entry = client.run(save_graph(name))
    (file,) = output_files(entry)
    assert file["type"] == "output"
    saved = tmp_path / "back.png"
    saved.write_bytes(client.view(file))

    from PIL import Image

    with Image.open(saved) as back, Image.open(picture) as sent:
        assert back.convert("RGB").tobytes() == sent.tobytes()


def test_run_reports_the_nodes_in_their_order(client, picture):
    name = client.upload(picture, subfolder="events")
    seen = []
    client.run(save_graph(name), on_event=lambda kind, data: seen.append((kind, data.get("node"))))
    executing = [node for kind, node in seen if kind == "executing" and node]
    assert executing == ["1", "2"]
    assert seen[-1][0] == "execution_success"


def test_refused_prompt_names_node_and_input(client):
    with pytest.raises(PromptError, match=r"node 1 \(LoadImage\).*nowhere\.png"):
        client.queue(save_graph("nowhere.png"))


def test_unknown_node_is_refused(client):
    graph = {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    with pytest.raises(PromptError, match="NoSuchNode"):
        client.queue(graph)


def test_view_of_a_missing_file_is_an_error(client):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        client.view({"filename": "none.png", "subfolder": "", "type": "output"})


def test_referenced_inputs_are_the_files_that_a_prompt_names(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "b.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "c"}},
    }
    assert referenced_inputs(graph, tmp_path) == [tmp_path / "b.png"]


def test_server_that_cannot_start_says_why(comfy_root, tmp_path):
    broken = ComfyServer(
        comfy_root, tmp_path / "base", flags=["--no-such-option"], log=tmp_path / "log.txt"
    )
    with pytest.raises(HostError, match=r"(?s)exit status 2.*--no-such-option"):
        broken.start(timeout=120)


def test_every_node_has_a_help_page(client, server):
    for name in server.pack_nodes():
        page = client.get_bytes(f"/extensions/{PACK_NAME}/docs/{name}.md").decode()
        assert page.startswith("# "), f"web/docs/{name}.md has no title"


def test_templates_are_those_of_the_workflows_folder(client):
    from tests.support import ROOT

    expected = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    assert sorted(client.get("/workflow_templates").get(PACK_NAME, [])) == expected


def test_object_info_is_plain_json(client, server):
    info = client.object_info()
    for name in server.pack_nodes():
        json.dumps(info[name])
        assert info[name]["category"].startswith("GenXD/"), name
