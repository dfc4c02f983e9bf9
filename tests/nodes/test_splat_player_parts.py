"""The parts of the player of moving splats, in a real browser: files, time, order, what is up."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import genxd_core
import genxd_core.lifting.motion_bases
from genxd_core import orbit, save_ply
from genxd_core.cameras.conventions import splat_world_rotation
from genxd_core.lifting.upright import turn_cameras
from tests.nodes.moving_splats import moving_balls
from tools.comfy_server import PACK_NAME, ComfyServer

EXTENSION = f"/extensions/{PACK_NAME}"


@pytest.fixture(scope="module")
def page(browser: Any, server: ComfyServer) -> Iterator[Any]:
    """A page of the server without ComfyUI in it: the parts need none."""
    opened = browser.new_page()
    opened.goto(f"{server.url}/system_stats")
    yield opened
    opened.close()


def call(page: Any, module: str, body: str, *arguments: Any) -> Any:
    """Run a function body in the page, with what a module exports as ``m``."""
    script = f"""async (given) => {{
      const m = await import("{EXTENSION}/splat4d/{module}.js");
      {body}
    }}"""
    return page.evaluate(script, list(arguments))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_files_are_read_as_they_were_written(page, tmp_path, degree):
    scene = moving_balls(genxd_core, each=400, degree=degree).at(0.3)
    content = save_ply(scene, tmp_path / "a.ply").read_bytes()
    body = """
      const bytes = Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0));
      const { count, packed } = m.readFrame(bytes.buffer, "a.ply");
      const colours = m.readColours(bytes.buffer, "a.ply");
      return [count, Array.from(packed), colours.coefficients, colours.perRow,
              Array.from(colours.texels)];"""
    encoded = base64.b64encode(content).decode()
    count, packed, coefficients, per_row, texels = call(page, "ply", body, encoded)
    assert (count, coefficients) == (len(scene), (degree + 1) ** 2)
    words = np.array(packed, dtype="<u4").reshape(-1, 8)[:count]
    assert np.array_equal(words[:, :3].copy().view("<f4"), scene.means.numpy())
    halves = np.ascontiguousarray(words[:, [3, 6]]).view("<f2").astype(np.float64)
    assert np.abs(halves[:, 0] - scene.opacities.numpy()).max() < 1e-3
    scales = np.exp(halves[:, [2, 3, 1]])
    assert np.abs(scales / scene.scales.numpy() - 1).max() < 4e-3
    quats = np.ascontiguousarray(words[:, 4:6]).view("<i2") / 32767
    assert np.abs(quats - scene.quats.numpy()).max() < 1e-4
    rows = np.array(texels, dtype="<u2").view("<f2").astype(np.float64).reshape(-1, 2048, 4)
    used = rows[:, : per_row * coefficients].reshape(-1, coefficients, 4)[:count, :, :3]
    assert np.abs(used - scene.sh.numpy()).max() < 2e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-8], "is cut off or damaged"),
        (lambda text: text.replace(b"ply", b"pl", 1), "is no .ply file"),
        (lambda text: text.replace(b"binary_little", b"binary_big"), "not binary little-endian"),
        (lambda text: text.replace(b"scale_1", b"scale_7"), "has no scale_1"),
        (lambda text: text.replace(b"float opacity", b"uchar opacity"), "has opacity as uchar"),
        (lambda text: text.replace(b"vertex 60\n", b"vertex 0\n"), "of Gaussians alone"),
    ],
)
def test_damaged_files_are_told_plainly(page, tmp_path, change, message):
    scene = moving_balls(genxd_core, each=20).at(0.0)
    content = change(save_ply(scene, tmp_path / "a.ply").read_bytes())
    body = """
      const bytes = Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0));
      try { m.readFrame(bytes.buffer, "a.ply"); } catch (error) {
        return [error instanceof m.PlyError, error.message];
      }"""
    known, said = call(page, "ply", body, base64.b64encode(content).decode())
    assert known
    assert said.startswith("a.ply ")
    assert message in said


def test_halves_are_those_of_numpy(page):
    values = [0.0, -0.0, 1.0, -2.5, 1e-7, 6e-8, 6.1e-5, 0.1, 65504.0, -46.05, 1 / 3, 2049.0]
    made = call(page, "ply", "return given.map(m.toHalf);", *values)
    assert made == np.array(values, dtype=np.float16).view(np.uint16).tolist()
    assert call(page, "ply", "return m.toHalf(given[0]);", 1e9) == 0x7BFF


def test_long_sequences_keep_as_many_frames_as_memory_allows(page):
    """Of 100 frames of 10 million bytes half a gigabyte; the first and the last among them."""
    body = """
      const sequence = new m.Sequence(() => null);
      sequence.manifest = { frames: Array.from({ length: 100 }, () => ({ file: "" })) };
      sequence.begin({ count: 7, packed: { byteLength: 1e7 } }, null);
      sequence.frames = Array(sequence.kept.length).fill(0);
      return [sequence.kept, sequence.around(50.25), sequence.reached];"""
    kept, around, reached = call(page, "sequence", body)
    assert len(kept) == 512 * 1024**2 // 10**7
    assert (kept[0], kept[-1], reached) == (0, 99, 99)
    assert set(np.diff(kept)) == {1, 2}
    before, after = kept[around["before"]], kept[around["after"]]
    assert before <= 50.25 < after
    assert before + around["blend"] * (after - before) == pytest.approx(50.25)


def test_the_clock_goes_round_back_and_forth_or_stops(page):
    body = """
      const clock = new m.Clock();
      Object.assign(clock, { last: 4, fps: 2, playing: true });
      clock.setMode(given[0]);
      const places = [];
      for (let step = 0; step < 12; step++) { clock.advance(0.5); places.push(clock.place); }
      return [places, clock.playing];"""
    wanted = {
        "loop": ([1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2], True),
        "back and forth": ([1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4], True),
        "once": ([1, 2, 3] + [4] * 9, False),
    }
    for mode, (places, playing) in wanted.items():
        assert call(page, "clock", body, mode) == [places, playing], mode


@pytest.mark.parametrize("turn", ["as made", "upright"])
def test_what_is_up_is_told_by_the_cameras(page, turn):
    """Paths made here have +Z up, scenes that were turned upright -Y; steep or not."""
    up = [0.0, 0.0, 1.0] if turn == "as made" else [0.0, -1.0, 0.0]
    body = "return m.upOf(given[0]);"
    for elevation in (-40.0, 0.0, 30.0, 70.0):
        path = orbit(5, elevation_deg=elevation, azimuth_range_deg=(10.0, 130.0))
        if turn == "upright":
            path = turn_cameras(path, splat_world_rotation())
        given = [{"c2w": pose.tolist()} for pose in path.c2w.double()]
        assert call(page, "view", body, given) == up, elevation
    assert call(page, "view", body, []) == [0, -1, 0]


def test_order_is_from_the_farthest_to_the_nearest_in_front(page):
    means = moving_balls(genxd_core).at(0.5).means.double()
    body = """
      const packed = new Uint32Array(given[0].length * 8);
      given[0].forEach((mean, i) => new Float32Array(packed.buffer).set(mean, 8 * i));
      const order = new m.DepthOrder(given[0].length);
      const row = { rotation: [[], [], given[1]], translation: [0, 0, 0.3] };
      order.sort(packed, packed, 0, row);
      return Array.from(order.order.slice(0, order.length));"""
    axis = [0.48, -0.6, 0.64]
    order = call(page, "sort", body, means.tolist(), axis)
    depths = (means @ torch.tensor(axis, dtype=torch.float64) + 0.3).numpy()
    assert sorted(order) == np.nonzero(depths > 0.01)[0].tolist()
    span = depths.max() - depths.min()
    assert np.diff(depths[order]).max() < span / 60_000
