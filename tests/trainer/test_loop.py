"""A whole tiny run: data on disk, training, resuming, exporting."""

import json
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.transformer import sdpa
from genxd_core.model.weights import load_unet
from tests.support import seeded
from trainer.attention import plain_attention
from trainer.config import LossConfig, MixEntry, RunConfig
from trainer.data import ClipStore, draw_batch
from trainer.loop import train
from trainer.muon import Muon, orthogonalised
from trainer.recipes import nano
from trainer.synthetic_shards import RenderJob, render_shards

TINY = GenXDUNetConfig.with_widths(
    (32, 32), (1, 1), addition_time_embed_dim=32, projection_class_embeddings_input_dim=64
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Rendered clips with random latents in the pictures' place."""
    folder = tmp_path_factory.mktemp("shards")
    for family in ("nano_3d", "nano_4d"):
        job = RenderJob(folder, family, clips=4, num_frames=6, size=16, clips_per_shard=2)
        for path in render_shards(job):
            shard = load_file(path)
            shard.pop("images")
            shard["latents"] = torch.randn(2, 6, 4, 2, 2, generator=seeded()).half()
            save_file(shard, path)
    return folder


@pytest.fixture
def config(shards, tmp_path):
    return RunConfig(
        shards=shards,
        out=tmp_path / "run",
        unet=TINY,
        mix=(
            MixEntry(family="nano_3d", mode="3d", weight=1),
            MixEntry(family="nano_4d", mode="4d", weight=1),
        ),
        steps=4,
        frames_per_step=6,
        clip_lengths=(3,),
        peak_lr=1e-3,
        warmup=1,
        log_every=2,
        save_every=2,
    )


def weights(folder):
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopped_run_goes_on_bit_exactly(config, tmp_path, optimizer):
    whole = replace(config, optimizer=optimizer)
    expected = weights(train(whole))
    parts = replace(whole, out=tmp_path / "parts")
    stopped_at = _stop_after(parts, 2)
    assert stopped_at == 2
    assert_equal(weights(train(parts)), expected)


def _stop_after(config, steps):
    """Run until a checkpoint is written, as a kill at that moment would leave it."""
    import trainer.loop as loop

    class Killed(Exception):
        pass

    saved = loop.save_weights

    def save_and_die(run, values, step):
        saved(run, values, step)
        if step == steps:
            raise Killed

    loop.save_weights = save_and_die
    try:
        with pytest.raises(Killed):
            train(config)
    finally:
        loop.save_weights = saved
    return int(torch.load(config.out / "state.pt", weights_only=True)["step"])


def test_run_from_given_weights_starts_there_and_trains_them(config, tmp_path):
    source = train(config)
    goes_on = replace(config, out=tmp_path / "on", init_from=source, steps=1, save_every=1)
    start, end = weights(source), weights(train(replace(goes_on, peak_lr=1e-6)))
    change = {key: float((end[key] - start[key]).abs().max()) for key in start}
    assert max(change.values()) < 1e-5
    assert sum(value > 0 for value in change.values()) > len(change) / 2


def test_given_weights_of_another_network_are_refused(config, tmp_path):
    source = train(config)
    other = GenXDUNetConfig.with_widths(
        (64, 64), (1, 1), addition_time_embed_dim=32, projection_class_embeddings_input_dim=64
    )
    with pytest.raises(InvalidInputError, match=r"init_from is .*, a network of another config"):
        train(replace(config, out=tmp_path / "on", init_from=source, unet=other))


def test_half_precision_run_differs_by_rounding_alone(config, tmp_path):
    single = weights(train(replace(config, steps=1, save_every=1)))
    AcceleratorState._reset_state()  # it keeps the first run's precision for the whole process
    half = replace(config, out=tmp_path / "half", steps=1, save_every=1, mixed_precision="bf16")
    difference = [(single[key] - value).norm() for key, value in weights(train(half)).items()]
    AcceleratorState._reset_state()
    # Adam's first step is lr times the gradient's sign: rounding flips only the smallest ones.
    lr, count = config.peak_lr, sum(value.numel() for value in single.values())
    assert 0 < float(torch.stack(difference).norm()) < 0.5 * 2 * lr * count**0.5


def test_run_writes_weights_that_load_and_a_log(config):
    folder = train(config)
    assert load_unet(folder).config == TINY
    rows = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["seconds_per_step"] > 0 for row in rows)


@pytest.mark.slow
def test_loss_falls_on_one_clip(config):
    # Only the noise is new in every step.
    easy = replace(
        config,
        mix=(MixEntry(family="nano_3d", mode="3d", weight=1),),
        loss=LossConfig(log_sigma_mean=2.0, log_sigma_std=0.5, drop_condition=0.0),
        steps=60,
        optimizer="muon",
        log_every=20,
        save_every=60,
        peak_lr=3e-3,
        muon_lr=0.05,
    )
    train(easy)
    rows = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss_3d"] < 0.9 * rows[0]["loss_3d"]


def test_loss_that_is_not_finite_stops_the_run(config, shards, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in shards.glob("*.safetensors"):
        shard = load_file(path)
        shard["latents"] = torch.full_like(shard["latents"], float("nan"))
        save_file(shard, broken / path.name)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        train(replace(config, shards=broken))
    assert not (config.out / "unet").exists()


def test_batches_have_one_mode_and_the_asked_length(config):
    store, rng, modes = ClipStore(config.shards), seeded(), set()
    for _ in range(20):
        batch = draw_batch(store, config, rng)
        modes.add(batch.mode)
        assert batch.latents.shape == (2, 3, 4, 2, 2)
        assert batch.mode == "4d" or float(batch.motion_strength.abs().max()) == 0.0
    assert modes == {"3d", "4d"}


def test_new_shards_are_picked_up(config, shards, tmp_path):
    folder = tmp_path / "growing"
    folder.mkdir()
    paths = sorted(shards.glob("nano_3d*.safetensors"))
    (folder / paths[0].name).write_bytes(paths[0].read_bytes())
    store = ClipStore(folder)
    assert store.count("nano_3d") == 2
    (folder / paths[1].name).write_bytes(paths[1].read_bytes())
    assert store.refresh() == 1
    assert store.count("nano_3d") == 4


def test_rendering_goes_on_where_it_was_stopped(tmp_path):
    job = RenderJob(tmp_path, "nano_3d", clips=3, num_frames=2, size=8, clips_per_shard=2)
    paths = render_shards(job)
    stamps = [p.stat().st_mtime_ns for p in paths]
    paths[1].unlink()
    assert render_shards(job) == paths
    assert paths[0].stat().st_mtime_ns == stamps[0]
    assert [len(load_file(p)["gamma"]) for p in paths] == [2, 1]


def test_orthogonalised_matrix_has_nearly_equal_singular_values():
    for shape in ((8, 20), (20, 8)):
        for dtype in (None, torch.bfloat16):
            out = orthogonalised(torch.randn(shape, generator=seeded()), dtype=dtype)
            values = torch.linalg.svdvals(out)
            assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_plain_attention_is_the_networks_own():
    q, k, v = (torch.randn(3, n, 8, generator=seeded(n)) for n in (5, 7, 7))
    torch.testing.assert_close(plain_attention(q, k, v, 2), sdpa(q, k, v, 2))


def test_muon_treats_every_weight_as_if_it_were_alone():
    shapes = [(4, 6), (4, 2, 3), (6, 4), (4, 6)]
    starts = [torch.randn(shape, generator=seeded(i)) for i, shape in enumerate(shapes)]

    def stepped(values):
        parameters = [torch.nn.Parameter(value.clone()) for value in values]
        optimizer = Muon(parameters, lr=0.1)
        sum(parameter.pow(3).sum() for parameter in parameters).backward()
        optimizer.step()
        return [parameter.detach() for parameter in parameters]

    alone = [stepped([start])[0] for start in starts]
    for together, one in zip(stepped(starts), alone, strict=True):
        torch.testing.assert_close(together, one)


def test_muon_finds_a_minimum():
    target = torch.randn(4, 6, generator=seeded())
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([weight], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert float((weight - target).detach().abs().max()) < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mix": ()}, "mix is empty"),
        ({"frames_per_step": 2}, "frames_per_step is 2, expected at least the longest"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"mixed_precision": "int8"}, "mixed_precision is 'int8'"),
    ],
)
def test_impossible_runs_are_refused(config, changes, message):
    with pytest.raises(InvalidInputError, match=message):
        replace(config, **changes)


def test_nano_recipe_is_the_embedded_models_configuration(tmp_path):
    config = nano(tmp_path, tmp_path)
    assert config.unet.stride == 2
    assert {entry.mode for entry in config.mix} == {"3d", "4d", "video"}
