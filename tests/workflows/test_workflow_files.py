"""The committed workflows: made by their descriptions, complete, and readable when opened."""

import json
from itertools import combinations

import pytest
from PIL import Image

from genxd_core import load_capture, load_capture_masks
from tests.support import ROOT
from tools.demo import DEMO, INPUTS
from tools.workflows import FOLDER, PAGE, file_texts
from tools.workflows_graph import NOTE
from tools.workflows_inputs import CAPTURE, FILM, PHOTOGRAPH, SCENES
from tools.workflows_pictures import read_times, updated_page
from tools.workflows_recipes import recipes

NAMES = [flow.name for flow in recipes()]
TITLE_BAR = 30
_FILES = {"LoadImage": ["image"], "LoadVideo": ["file"], "GenXD_LoadCameras": ["file"]}


def graph_of(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def prompt_of(name: str) -> dict:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def boxes(graph: dict) -> dict[int, tuple[float, float, float, float]]:
    """Left, top, right, bottom of every node, its title included."""
    found = {}
    for node in graph["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        bottom = y if node["flags"].get("collapsed") else y + height
        found[node["id"]] = (x, y - TITLE_BAR, x + width, bottom)
    return found


def frames(graph: dict) -> dict[str, tuple[float, float, float, float]]:
    boundings = {group["title"]: group["bounding"] for group in graph["groups"]}
    return {title: (x, y, x + w, y + h) for title, (x, y, w, h) in boundings.items()}


def overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def within(inner, outer) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def test_every_description_has_its_files_and_every_file_its_description():
    expected = sorted(NAMES)
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == expected
    assert sorted(path.stem for path in (FOLDER / "api").iterdir()) == expected
    assert sorted(path.stem for path in FOLDER.glob("*.jpg")) == expected


@pytest.mark.parametrize("flow", recipes(), ids=NAMES)
def test_files_are_what_the_description_makes(flow, client):
    for path, text in file_texts(flow, client.object_info()).items():
        committed = path.read_text(encoding="utf-8")
        assert json.loads(committed) == json.loads(text), "run: python dev.py workflows build"
        assert committed == text


def test_table_is_up_to_date_and_every_time_is_measured():
    page = PAGE.read_text(encoding="utf-8")
    assert updated_page(page, recipes(), {}) == page, "run: python dev.py workflows build"
    assert sorted(read_times(page)) == sorted(NAMES)
    assert all(" s, " in time for time in read_times(page).values())


@pytest.mark.parametrize("name", NAMES)
def test_thumbnail_is_a_small_picture(name):
    path = FOLDER / f"{name}.jpg"
    with Image.open(path) as picture:
        assert picture.size == (640, 480)
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("name", NAMES)
def test_nodes_do_not_overlap_and_stand_in_one_group_each(name):
    graph = graph_of(name)
    places, groups = boxes(graph), frames(graph)
    touching = [
        pair for pair in combinations(places, 2) if overlap(places[pair[0]], places[pair[1]])
    ]
    assert touching == []
    crossing = [pair for pair in combinations(groups, 2) if overlap(*(groups[t] for t in pair))]
    assert crossing == []
    for node in graph["nodes"]:
        inside = [title for title, frame in groups.items() if within(places[node["id"]], frame)]
        assert len(inside) == (0 if node["type"] == NOTE else 1), node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_text_can_be_read_when_the_page_shows_the_whole_graph(name):
    """The page fits templates into three quarters of itself and hides text below scale 0.57."""
    corners = list(boxes(graph_of(name)).values()) + list(frames(graph_of(name)).values())
    width = max(c[2] for c in corners) - min(c[0] for c in corners)
    height = max(c[3] for c in corners) - min(c[1] for c in corners)
    assert 0.75 * min(1920 / width, 1080 / height) > 0.58


@pytest.mark.parametrize("name", NAMES)
def test_note_says_what_is_shown(name):
    (note,) = [node for node in graph_of(name)["nodes"] if node["type"] == NOTE]
    (text,) = note["widgets_values"]
    assert text.startswith("# ")
    assert len(text) < 1500
    if any(node["class_type"] == "GenXD_LoadModel" for node in prompt_of(name).values()):
        assert "Released weights" in text
        assert "256 x 256" in text


@pytest.mark.parametrize("name", NAMES)
def test_links_agree_with_the_sockets_at_their_ends(name):
    graph = graph_of(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert graph["last_node_id"] == max(nodes)
    for number, start, output, end, position, kind in graph["links"]:
        assert number in nodes[start]["outputs"][output]["links"]
        assert nodes[end]["inputs"][position]["link"] == number
        assert nodes[start]["outputs"][output]["type"] == kind
        assert start < end, "a node comes before what it is connected to"


@pytest.mark.parametrize("name", NAMES)
def test_prompt_loads_bundled_files_alone_and_saves_into_one_folder(name):
    for node in prompt_of(name).values():
        kind, inputs = node["class_type"], node["inputs"]
        for key in _FILES.get(kind, []):
            assert (INPUTS / inputs[key]).is_file()
        if kind == "GenXD_LoadCapture":
            assert (INPUTS / inputs["file"].removesuffix(" (COLMAP)")).is_dir()
        if kind == "GenXD_LoadModel":
            assert inputs["model"] == "genxd-nano (built in)"
        if "filename_prefix" in inputs:
            assert inputs["filename_prefix"].startswith("genxd/")


def test_every_input_is_used_and_its_origin_is_told():
    used = {v for name in NAMES for node in prompt_of(name).values() for v in _texts(node)}
    files = {path.name for path in INPUTS.iterdir()} - {"README.md"}
    made = {name for scene in SCENES for name in scene.files}
    assert files == made | {PHOTOGRAPH, CAPTURE, FILM}
    assert made <= used
    for folder in (CAPTURE, FILM):
        assert any(text.startswith(f"{folder}/") for text in used)
    page = (INPUTS / "README.md").read_text(encoding="utf-8")
    assert PHOTOGRAPH in page
    assert f"`{CAPTURE}/`" in page
    assert f"`{FILM}/`" in page
    assert all(f"`{scene.name}" in page for scene in SCENES)


def test_capture_is_small_and_complete():
    folder = INPUTS / CAPTURE
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_500_000
    capture = load_capture(folder)
    assert len(capture.images) == len(capture.cameras) == 13
    assert capture.points is not None
    assert len(capture.points) == 624


def test_film_is_small_and_complete():
    folder = INPUTS / FILM
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_500_000
    film = load_capture(folder)
    assert len(film.images) == len(film.cameras) == 24
    assert film.points is not None
    assert len(film.points) == 4000
    masks = load_capture_masks(folder / "masks", folder / "sparse/0", film.names, **_size(film))
    assert 0.03 < float(masks.mean()) < 0.2


def _size(film) -> dict[str, int]:
    height, width = film.images.shape[2:]
    return {"width": width, "height": height}


def _texts(node: dict) -> list[str]:
    return [value for value in node["inputs"].values() if isinstance(value, str)]


def test_demo_runs_workflows_that_exist():
    assert set(DEMO) <= set(NAMES)


def test_template_browser_lists_the_workflows(client):
    from tools.comfy_server import PACK_NAME

    assert sorted(client.get("/workflow_templates")[PACK_NAME]) == sorted(NAMES)
    for name in NAMES:
        served = client.get(f"/api/workflow_templates/{PACK_NAME}/{name}.json")
        assert served == graph_of(name)
        picture = client.get_bytes(f"/api/workflow_templates/{PACK_NAME}/{name}.jpg")
        assert picture == (FOLDER / f"{name}.jpg").read_bytes()


def test_workflows_are_in_the_registry_archive():
    ignored = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    assert not [line for line in ignored if line.startswith("/workflows")]
