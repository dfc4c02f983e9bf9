"""Micro-batches: mixed, of one mode, the same whoever makes them; encoded scenes on disk."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from genxd_core.data.scene import BrokenSceneError
from genxd_core.errors import InvalidInputError
from genxd_core.model.motion_strength import gamma_to_motion_strength
from tests.trainer.support import encoded_scene, tiny_run, write_scenes
from trainer.data import MicroBatches, load_micro_batches
from trainer.latent_shards import LatentShards, write_shard
from trainer.sources import split_scenes


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    write_scenes(folder, "still", "3d", ["a", "b", "c"])
    write_scenes(folder, "moving", "4d", ["d", "e"], frames=9)
    write_scenes(folder, "moving", "4d", ["f"], frames=7, file="000001")
    return folder


@pytest.fixture
def data(latents, tmp_path):
    return tiny_run(latents, tmp_path).data


def same(a, b):
    return (
        a.number == b.number
        and a.mode == b.mode
        and torch.equal(a.latents, b.latents)
        and a.provenance == b.provenance
    )


def test_micro_batches_have_one_mode_and_the_asked_length(data):
    batches = [MicroBatches(data, seed=0)[n] for n in range(20)]
    assert {batch.mode for batch in batches} == {"3d", "4d"}
    for batch in batches:
        assert batch.latents.shape == (2, 3, 4, 2, 2)
        assert {p.dataset for p in batch.provenance} == {
            "still" if batch.mode == "3d" else "moving"
        }
        expected = 0.0 if batch.mode == "3d" else gamma_to_motion_strength(0.02)
        assert batch.motion_strength.tolist() == pytest.approx([expected] * 2)


def test_weights_decide_how_often_a_source_is_drawn(data):
    still, moving = data.sources
    mixed = replace(data, sources=(replace(still, weight=3.0), moving))
    batches = MicroBatches(mixed, seed=0)
    share = sum(batches._block(n)[0] == "3d" for n in range(400)) / 400
    assert share == pytest.approx(0.75, abs=0.07)


def test_blocks_share_mode_and_length(data):
    blocks = replace(data, mode_block=4, views=(2, 4))
    made = [MicroBatches(blocks, seed=1)[n] for n in range(64)]
    for block in range(16):
        four = made[4 * block : 4 * block + 4]
        assert len({(batch.mode, batch.latents.shape[1]) for batch in four}) == 1
    assert len({(batch.mode, batch.latents.shape[1]) for batch in made}) == 4


def test_shorter_clips_come_in_larger_numbers(data):
    shapes = {
        MicroBatches(replace(data, views=(2, 4)), seed=1)[n].latents.shape[:2] for n in range(12)
    }
    assert shapes == {(4, 2), (2, 4)}


def test_workers_and_processes_make_the_same_batches(data):
    alone = [MicroBatches(data, seed=3)[n] for n in range(8)]
    with_workers = MicroBatches(replace(data, workers=1), seed=3)
    read = list(load_micro_batches(with_workers, first=0, last=8))
    assert all(same(a, b) for a, b in zip(alone, read, strict=True))
    second = load_micro_batches(MicroBatches(data, seed=3), first=4, last=8, rank=1, processes=2)
    assert [batch.number for batch in second] == [5, 7]
    assert same(next(load_micro_batches(MicroBatches(data, seed=3), first=5, last=6)), alone[5])


def test_other_seeds_make_other_batches(data):
    one, other = (list(islice(map(MicroBatches(data, s).__getitem__, range(4)), 4)) for s in (0, 1))
    assert not all(same(a, b) for a, b in zip(one, other, strict=True))


def test_rows_of_a_clip_are_those_of_its_frames(latents):
    shards = LatentShards(latents / "moving" / "crop")
    stored = load_file(latents / "moving" / "crop" / "000000.safetensors")
    # Scene e lies behind the nine frames of scene d.
    rows = shards.read("e", "latents", (7, 5, 3))
    assert torch.equal(rows, stored["latents"][[16, 14, 12]].float())


def test_scale_by_depth_brings_the_first_frame_to_two(data):
    still = replace(data.sources[0], scale="depth")
    scaled = MicroBatches(replace(data, sources=(still,), modes=("3d",)), seed=0)[0]
    plain = MicroBatches(replace(data, sources=data.sources[:1], modes=("3d",)), seed=0)[0]
    # The scenes' depth is 4 everywhere.
    torch.testing.assert_close(scaled.c2w[:, :, :3, 3], plain.c2w[:, :, :3, 3] / 2)
    torch.testing.assert_close(scaled.c2w[:, :, :3, :3], plain.c2w[:, :, :3, :3])


def test_scenes_held_out_are_never_drawn_and_stay_when_others_join():
    names = [f"scene{n}" for n in range(50)]
    train, held = split_scenes(names, 5)
    assert len(held) == 5
    assert sorted(train + held) == sorted(names)
    assert split_scenes(list(reversed(names)), 5) == (train, held)
    more = split_scenes([*names, "new"], 5)[1]
    assert len(set(more) & set(held)) >= 4
    with pytest.raises(InvalidInputError, match="held_out is 3 of 3 scenes"):
        split_scenes(["a", "b", "c"], 3)


def test_folder_without_encoded_clips_is_refused(data, tmp_path):
    with pytest.raises(InvalidInputError, match=r"data.latents has no encoded clips in .*still"):
        MicroBatches(replace(data, latents=tmp_path), seed=0)


def test_clips_of_another_size_are_refused(data):
    with pytest.raises(InvalidInputError, match=r"data.size is 32, but .* encoded at 16"):
        MicroBatches(replace(data, size=32), seed=0)


def test_shards_made_in_different_ways_are_refused(tmp_path):
    write_scenes(tmp_path, "still", "3d", ["a"])
    path = tmp_path / "still" / "crop" / "000001.safetensors"
    write_shard(path, [encoded_scene("b")], {"size": 32})
    with pytest.raises(InvalidInputError, match=r"was made with .*32.*, its neighbours with"):
        LatentShards(tmp_path / "still" / "crop")


def test_damaged_shard_is_told_by_name(tmp_path):
    path = write_scenes(tmp_path, "still", "3d", ["a"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InvalidInputError, match=r"000000\.safetensors is damaged"):
        LatentShards(path.parent)


@pytest.mark.parametrize("workers", [0, 1])
def test_source_without_a_usable_scene_is_told_without_a_traceback(data, workers):
    # The longest scene that moves has nine frames.
    endless = replace(data, views=(20,), workers=workers)
    with pytest.raises(BrokenSceneError) as told:
        next(load_micro_batches(MicroBatches(endless, seed=0), first=0, last=1))
    assert "scenes in a row cannot be used" in str(told.value)
    assert "Traceback" not in str(told.value)
