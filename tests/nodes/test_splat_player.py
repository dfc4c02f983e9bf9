"""The player of moving splats: what the nodes write for it, and what it shows in a real browser."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import genxd_core
import genxd_core.lifting.motion_bases
from genxd_core import (
    Cameras,
    Gaussians4D,
    load_cameras,
    load_ply,
    orbit,
    render_views,
    save_cameras,
    save_gaussians_4d,
)
from tests.nodes.moving_splats import BALLS, moving_balls
from tests.nodes.splats import refusal

NUM_FRAMES, FPS = 5, 10.0
ELEVATION = 25.0
PLAYER = "app.graph.nodes.find((node) => node.genxdPlayer).genxdPlayer"
SAVED = {
    "splat4d": ["scene", 0],
    "num_frames": NUM_FRAMES,
    "fps": FPS,
    "cameras": ["path", 0],
}
GRAPH: dict[str, Any] = {
    "scene": {"class_type": "GenXD_Load4D", "inputs": {"file": "moving_balls.safetensors"}},
    "path": {
        "class_type": "GenXD_LoadCameras",
        "inputs": {"file": "balls_path.json", "scale_to": 0.0, "num_views": 0}
        | {"max_distortion": 0.02},
    },
    "shown": {"class_type": "GenXD_Preview4D", "inputs": SAVED},
}


def look(num_views: int = 3) -> Cameras:
    return orbit(num_views, elevation_deg=ELEVATION, azimuth_range_deg=(20.0, 80.0), radius=2.6)


# What the nodes write.


@pytest.fixture
def folders(host, tmp_path, monkeypatch) -> Path:
    """Output and temp folders of this test alone."""
    import folder_paths

    for name in ("output", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def told(host: Any, class_type: str, **inputs: Any) -> dict[str, Any]:
    """What an output node tells the page."""
    scene = host.module("genxd_core")
    host.module("genxd_core.lifting.motion_bases")
    path = look()
    graph: dict[str, Any] = {
        "scene": host.value(moving_balls(scene)),
        "path": host.value(scene.Cameras(path.c2w, path.Ks_norm)),
        "shown": {"class_type": class_type, "inputs": SAVED | inputs},
    }
    return dict(host.run(graph).ui["shown"])


def test_a_preview_is_a_new_sequence_in_the_temp_folder(host, folders):
    entries = [told(host, "GenXD_Preview4D", fps=fps)["genxd_splat4d"] for fps in (FPS, 20.0)]
    assert [len(entry) for entry in entries] == [1, 1]
    names = [entry[0]["folder"] for entry in entries]
    assert names[0] != names[1]
    assert {entry[0]["type"] for entry in entries} == {"temp"}
    assert json.loads(json.dumps(entries)) == entries
    folder = folders / "temp" / names[0]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["fps"], manifest["num_frames"]) == (FPS, NUM_FRAMES)
    last = load_ply(folder / manifest["frames"][-1]["file"])
    truth = moving_balls(genxd_core).at(1.0)
    assert torch.allclose(last.means, truth.means, atol=1e-6)
    assert torch.allclose(load_cameras(folder / "cameras.json").c2w, look().c2w, atol=1e-6)


def test_a_saved_sequence_is_told_and_a_model_alone_is_not(host, folders):
    saved = told(host, "GenXD_Save4D", filename_prefix="a/b")
    assert saved["genxd_splat4d"] == [{"folder": "a/b_00001", "type": "output"}]
    assert saved["text"] == ["saved output/a/b_00001.safetensors\nsaved output/a/b_00001/"]
    alone = told(host, "GenXD_Save4D", filename_prefix="a/b", num_frames=0)
    assert alone == {"text": ["saved output/a/b_00002.safetensors"]}


def test_a_preview_that_cannot_be_written_is_told_plainly(host, folders, monkeypatch):
    import folder_paths

    (folders / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setattr(folder_paths, "temp_directory", str(folders / "file"))
    host.module("genxd_core.lifting.motion_bases")
    scene = moving_balls(host.module("genxd_core"))
    given = {"splat4d": scene, "num_frames": 2, "fps": FPS}
    message = refusal(host, "GenXD_Preview4D", **given)
    assert "splat4d cannot be shown: ComfyUI's temp folder" in message
    assert "or take fewer num_frames than 2" in message


# What the page shows.


@pytest.fixture(scope="module")
def truth(server) -> Gaussians4D:
    """The scene that ComfyUI's menus list, with its path beside it."""
    scene = moving_balls(genxd_core, degree=1)
    save_gaussians_4d(scene, server.base / "input" / "moving_balls.safetensors")
    save_cameras(look(), server.base / "input" / "balls_path.json")
    return scene


@pytest.fixture
def console() -> list[str]:
    """What the page's console complains about, as it comes."""
    return []


@pytest.fixture
def opened(truth, page, console) -> Any:
    """The page with the graph in it, not run yet."""

    def listen(told: Any) -> None:
        # ComfyUI's list of jobs cannot read those of other tests that were given NaN.
        if told.type == "error" and not told.text.startswith("[Jobs API]"):
            console.append(told.text)

    page.wait_for_timeout(1000)
    page.on("console", listen)
    open_graph(page, GRAPH)
    console.clear()  # of the graph that ComfyUI itself opens
    return page


def open_graph(page: Any, graph: dict[str, Any]) -> None:
    page.evaluate("async (graph) => await app.loadApiJson(graph, 'player')", graph)
    page.wait_for_function(f"() => app.graph.nodes.length === {len(graph)}")


def run(page: Any, state: str = "ready") -> None:
    """Press the button, and wait until the player has everything."""
    page.evaluate("async () => await app.queuePrompt(0, 1)")
    page.wait_for_selector(f".genxd-player[data-state={state}]", timeout=60_000)


def picture(page: Any) -> np.ndarray:
    """The player's picture before black, (height, width, 3) in [0, 255]."""
    address = page.evaluate(
        f"""() => {{
          const player = {PLAYER};
          player.paint(performance.now());
          const copy = document.createElement("canvas");
          Object.assign(copy, {{ width: player.canvas.width, height: player.canvas.height }});
          const context = copy.getContext("2d");
          context.fillRect(0, 0, copy.width, copy.height);
          context.drawImage(player.canvas, 0, 0);
          return copy.toDataURL();
        }}"""
    )
    content = base64.b64decode(address.partition(",")[2])
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened.convert("RGB"), dtype=np.float64)


def seek(page: Any, frame: float) -> None:
    page.evaluate(f"(frame) => {PLAYER}.seek(frame)", frame)
    page.wait_for_timeout(100)


def expected(truth: Gaussians4D, time: float, like: np.ndarray) -> np.ndarray:
    """What the first camera sees; its square picture stands in the middle of the player's."""
    height, width = like.shape[:2]
    side = min(height, width)
    camera = look()[0]
    K = camera.Ks_norm[0]
    margin = [(width - side) / 2, (height - side) / 2]
    placed = torch.tensor(
        [
            [K[0, 0] * side / width, 0.0, (K[0, 2] * side + margin[0]) / width],
            [0.0, K[1, 1] * side / height, (K[1, 2] * side + margin[1]) / height],
            [0.0, 0.0, 1.0],
        ]
    )
    seen = Cameras(camera.c2w, placed[None])
    drawn = render_views(truth.at(time), seen, width=width, height=height).rgb[0]
    return drawn.clamp(0, 1).permute(1, 2, 0).double().numpy() * 255


def middle(shown: np.ndarray, colour: str) -> np.ndarray:
    """Mean pixel (x, y) of what is mostly red, green or blue."""
    channel = list(BALLS).index(colour)
    others = np.delete(shown, channel, axis=2).max(2)
    rows, columns = np.nonzero(shown[..., channel] > others + 40)
    assert len(rows) > 50, f"there is no {colour} ball"
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.slow
def test_player_shows_what_the_renderer_draws_at_every_time(opened, truth, page_errors, console):
    run(opened)
    frames = []
    for frame in (0, 1.5, NUM_FRAMES - 1):
        seek(opened, frame)
        frames.append(picture(opened))
        drawn = expected(truth, frame / (NUM_FRAMES - 1), frames[-1])
        for colour in BALLS:
            apart = np.abs(middle(frames[-1], colour) - middle(drawn, colour)).max()
            assert apart < 0.5, f"{colour} is {apart:.2f} pixels off at frame {frame}"
        if frame != 1.5:  # half way, rotations are those of neither frame
            difference = np.abs(frames[-1] - drawn)
            assert difference.mean() < 0.5
            assert difference.max() < 16
    assert frames[0].std() > 20
    moved = middle(frames[2], "red") - middle(frames[0], "red")
    assert np.abs(moved[0]) > 60
    assert page_errors == []
    assert console == []


@pytest.mark.slow
def test_dragging_turns_the_scene_and_leaves_the_graph_where_it_is(opened, page_errors):
    run(opened)
    canvas = "() => [app.canvas.ds.scale, ...app.canvas.ds.offset, ...app.graph.nodes[2].pos]"
    before, place = picture(opened), opened.evaluate(canvas)
    stage = opened.locator(".genxd-player-stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    opened.mouse.move(x, y)
    opened.mouse.down()
    opened.mouse.move(x + 0.25 * stage["width"], y, steps=4)
    opened.mouse.up()
    opened.wait_for_timeout(100)
    turned = picture(opened)
    # Dragged by a quarter: turned by 45 degrees about what is up. The green ball is on the axis,
    # and what is in front of it goes along with the hand.
    assert np.abs(middle(turned, "green") - middle(before, "green"))[1] < 6
    camera = opened.evaluate(f"() => {PLAYER}.view.position")
    start = look().c2w[0, :3, 3].double().numpy()
    angle = np.degrees(np.arctan2(camera[1], camera[0]) - np.arctan2(start[1], start[0]))
    assert angle == pytest.approx(-45, abs=2)  # the camera goes to its left
    assert camera[2] == pytest.approx(float(start[2]), abs=1e-3)
    opened.mouse.wheel(0, -200)
    opened.wait_for_timeout(100)
    assert (picture(opened) > 60).any(2).sum() > 1.2 * (turned > 60).any(2).sum()
    opened.mouse.dblclick(x, y)
    opened.wait_for_timeout(100)
    assert np.array_equal(picture(opened), before)
    assert opened.evaluate(canvas) == place
    assert page_errors == []


@pytest.mark.slow
def test_controls_play_scrub_and_answer_to_keys(opened, page_errors):
    run(opened)
    player = opened.locator(".genxd-player")
    assert player.get_by_role("status").inner_text() == f"{NUM_FRAMES} frames, 600 Gaussians"
    place = f"() => {PLAYER}.clock.place"
    player.get_by_role("button", name="Play").click()
    opened.wait_for_function(f"() => {PLAYER}.clock.place > 0.5")
    player.get_by_role("button", name="Pause").click()
    player.get_by_role("slider", name="Time").fill("2")
    assert opened.evaluate(place) == 2
    player.focus()
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate(place) == 3
    assert player.locator(".genxd-player-time").inner_text() == "4 / 5, t 0.75"
    opened.keyboard.press("End")
    assert opened.evaluate(place) == NUM_FRAMES - 1
    opened.keyboard.press("Space")
    assert opened.evaluate(f"() => {PLAYER}.clock.playing")
    opened.keyboard.press("Space")
    assert not opened.evaluate(f"() => {PLAYER}.clock.playing")
    assert page_errors == []


@pytest.mark.slow
def test_saving_plays_the_sequence_and_the_graphics_card_may_go(opened, console):
    graph = GRAPH | {
        "shown": {
            "class_type": "GenXD_Save4D",
            "inputs": SAVED | {"filename_prefix": "genxd/player"},
        }
    }
    open_graph(opened, graph)
    assert opened.locator(".genxd-player").count() == 0
    run(opened)
    shown = picture(opened)
    assert shown.std() > 20
    opened.evaluate(
        f"""async () => {{
          const {{ canvas, gl }} = {PLAYER}.renderer;
          const event = (name) => new Promise((done) => canvas.addEventListener(name, done));
          const losing = gl.getExtension("WEBGL_lose_context");
          const [lost, back] = [event("webglcontextlost"), event("webglcontextrestored")];
          losing.loseContext();
          await lost;
          await new Promise((done) => setTimeout(done)); // it may not come back within the event
          losing.restoreContext();
          await back;
        }}"""
    )
    assert np.array_equal(picture(opened), shown)
    values = opened.evaluate(
        "() => app.graph.serialize().nodes.find((n) => n.type === 'GenXD_Save4D').widgets_values"
    )
    assert values == ["genxd/player", NUM_FRAMES, FPS]
    lost = opened.evaluate(
        f"""() => {{
          const {{ gl }} = {PLAYER}.renderer;
          app.graph.remove(app.graph.nodes.find((node) => node.genxdPlayer));
          return gl.isContextLost();
        }}"""
    )
    assert lost
    assert console == []


@pytest.mark.slow
def test_a_file_that_is_gone_is_told_in_the_player(opened, server):
    opened.route("**/view?*frame_0003.ply*", lambda route: route.fulfill(status=404))
    run(opened, "failed")
    status = opened.locator(".genxd-player [role=status]").inner_text()
    assert status.startswith("3 frames; frame_0003.ply could not be fetched (404)")
    assert picture(opened).std() > 20
    opened.route("**/view?*manifest.json*", lambda route: route.abort())
    opened.evaluate("() => (app.graph.nodes.find((n) => n.genxdPlayer).widgets[1].value = 11)")
    opened.evaluate("async () => await app.queuePrompt(0, 1)")
    opened.get_by_text("manifest.json could not be fetched").wait_for(timeout=30_000)
