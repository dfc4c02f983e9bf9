"""The benchmark of long paths counts what it says it counts."""

import pytest

import genxd_core as gx
from benchmarks.long_path import SETUPS, compare, memory_by_length, scenes_on_orbits
from tests.nodes.scenes import make_mini_model

pytest.importorskip("diffusers", reason="needs the extra `pipeline`")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return gx.GenXDPipeline.from_pretrained(
        make_mini_model(tmp_path_factory.mktemp("bench") / "mini")
    )


@pytest.mark.slow
@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: f"{setup[0]}, {setup[2]}")
def test_every_setup_is_measured_beside_the_truth(pipe, setup):
    row = compare(pipe, scenes_on_orbits(2, 26, 32), setup, num_inference_steps=1)
    assert row["groups"] > 1
    assert row["frames_through_the_network"] > 26
    assert sum(row["pairs"].values()) == 25
    for part, count in row["pairs"].items():
        assert (f"ours_{part}" in row) == (count > 0)
    assert row["truth_joined"] == pytest.approx(row["truth_inside"], rel=0.5)


@pytest.mark.slow
def test_memory_is_told_for_every_length(pipe):
    rows = memory_by_length(pipe, [14, 20], 32)
    assert [row["views"] for row in rows] == [14, 20]
    assert all(row["peak_mib"] >= 0 and row["result_mib"] > 0 for row in rows)
