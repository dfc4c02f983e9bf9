"""A whole tiny run: data on disk, training, stopping, going on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from genxd_core.errors import InvalidInputError
from genxd_core.media import load_image
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.weights import load_unet
from tests.trainer.support import TINY, tiny_run, write_scenes
from trainer.__main__ import configured
from trainer.config import LoraConfig, LossConfig, ModelConfig
from trainer.loop import NonFiniteLossError, TrainingRun, _Pending, train
from trainer.metrics_log import RunLog
from trainer.settings import apply_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    write_scenes(folder, "still", "3d", ["a", "b", "c"])
    write_scenes(folder, "moving", "4d", ["d", "e", "f"])
    return folder


@pytest.fixture
def config(latents, tmp_path):
    return tiny_run(latents, tmp_path / "run")


def weights(folder):
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def log_rows(config):
    return [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]


def optim(config, **changes):
    return replace(config, optim=replace(config.optim, **changes))


def engine(config, **changes):
    return replace(config, engine=replace(config.engine, **changes))


class Killed(Exception):
    pass


def run_until(config, step, *, resume=False):
    """Run to a step and die without another word, as a kill would have it."""
    run = TrainingRun(config, resume=resume)
    one_step = run._one_step

    def dying(*given):
        if run.step == step:
            raise Killed
        return one_step(*given)

    run._one_step = dying
    with pytest.raises(Killed):
        run.go()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adamw8bit"])
def test_killed_run_goes_on_bit_exactly(config, tmp_path, optimizer):
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    whole = optim(config, name=optimizer)
    expected = weights(train(whole))
    parts = replace(whole, out=tmp_path / "parts")
    run_until(parts, 3)
    state = torch.load(parts.out / "state.pt", weights_only=True)
    assert state["step"] == 2
    assert_equal(weights(train(parts, resume=True)), expected)
    assert [row["step"] for row in log_rows(parts)] == [2, 4]
    strip = [{k: v for k, v in row.items() if "loss" in k} for row in log_rows(parts)]
    assert strip == [{k: v for k, v in row.items() if "loss" in k} for row in log_rows(whole)]


def test_accumulated_gradient_is_the_mean_over_its_micro_batches(config):
    run = TrainingRun(replace(config, data=replace(config.data, micro_batch=1, batch_size=2)))
    assert run.accumulate == 2
    expected = {}
    for number in (0, 1):
        run._loss(run.batches[number]).backward()
        for name, value in run.network.named_parameters():
            if value.grad is not None:
                expected[name] = expected.get(name, 0) + value.grad / 2
        run.network.zero_grad(set_to_none=True)
    seen = {}
    run.optimizers[0].step = lambda: seen.update(
        {n: p.grad.clone() for n, p in run.network.named_parameters() if p.grad is not None}
    )
    clipped = run.accelerator.clip_grad_norm_
    run.accelerator.clip_grad_norm_ = lambda values, _: clipped(values, 1e9)
    run._one_step(run._loader(), RunLog(config.out, run.accelerator, 0), _Pending())
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(seen[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_run_from_given_weights_starts_there_and_trains_them(config, tmp_path):
    source = train(config)
    start = replace(config.model, start="weights", start_from=source)
    goes_on = replace(config, out=tmp_path / "on", model=start)
    goes_on = engine(optim(goes_on, lr=1e-6), steps=1, save_every=1)
    before, after = weights(source), weights(train(goes_on))
    change = {key: float((after[key] - before[key]).abs().max()) for key in before}
    assert max(change.values()) < 1e-5
    assert sum(value > 0 for value in change.values()) > len(change) / 2


@pytest.mark.slow
def test_given_weights_of_another_network_are_refused_with_what_differs(config, tmp_path):
    source = train(config)
    other = GenXDUNetConfig.with_widths(
        (64, 64), (1, 1), addition_time_embed_dim=32, projection_class_embeddings_input_dim=64
    )
    model = replace(config.model, unet=other, start="weights", start_from=source)
    message = r"block_out_channels \(32, 32\) instead of \(64, 64\)"
    with pytest.raises(InvalidInputError, match=message):
        train(replace(config, out=tmp_path / "on", model=model))


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_network_that_is_not_told_is_that_of_the_weights(config, tmp_path, lora):
    start = train(config)
    model = ModelConfig(unet=None, start="weights", start_from=start, lora=lora)
    first = train(replace(config, model=model, out=tmp_path / "tuned"))
    record = json.loads((tmp_path / "tuned" / "run.json").read_text())
    assert record["model"]["unet"]["block_out_channels"] == [32, 32]
    if lora is None:
        assert load_unet(first).config == TINY
        # All weights are in the checkpoint, so that what the run started from may go.
        start.rename(tmp_path / "gone")
    before = max(row["step"] for row in log_rows(replace(config, out=tmp_path / "tuned")))
    longer = replace(config, model=model, out=tmp_path / "tuned")
    train(engine(longer, steps=before + 2), resume=True)
    assert log_rows(longer)[-1]["step"] == before + 2


def test_size_that_the_weights_network_cannot_take_is_refused(config, tmp_path):
    model = ModelConfig(unet=None, start="weights", start_from=train(config))
    data = replace(config.data, size=24)
    with pytest.raises(InvalidInputError, match=r"data\.size is 24, expected a multiple of 16"):
        train(replace(config, model=model, data=data, out=tmp_path / "tuned"))


def test_folder_with_a_run_is_refused_without_resume(config):
    train(engine(config, steps=2))
    with pytest.raises(InvalidInputError, match="which holds a run; go on with it by --resume"):
        train(config)


@pytest.mark.slow
def test_checkpoint_of_another_configuration_is_refused_with_what_differs(config):
    train(engine(config, steps=2))
    with pytest.raises(InvalidInputError, match=r"optim\.lr was 0\.001 and is 0\.002"):
        train(optim(config, lr=2e-3), resume=True)
    loss = LossConfig(drop_condition=0.5)
    with pytest.raises(InvalidInputError, match=r"loss\.drop_condition was 0\.1 and is 0\.5"):
        train(replace(config, loss=loss), resume=True)
    # Other micro-batches are other clips.
    with pytest.raises(InvalidInputError, match=r"data\.micro_batch was 2 and is 1"):
        train(replace(config, data=replace(config.data, micro_batch=1)), resume=True)


def test_damaged_checkpoint_is_told_plainly(config):
    train(engine(config, steps=2))
    (config.out / "state.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InvalidInputError, match="cannot be read as a checkpoint"):
        train(config, resume=True)


@pytest.mark.slow
def test_half_precision_run_differs_by_rounding_alone(config, tmp_path):
    one_step = engine(config, steps=1, save_every=1)
    single = weights(train(one_step))
    AcceleratorState._reset_state()  # it keeps the first run's precision for the whole process
    half = replace(engine(one_step, mixed_precision="bf16"), out=tmp_path / "half")
    difference = [(single[key] - value).norm() for key, value in weights(train(half)).items()]
    AcceleratorState._reset_state()
    # Adam's first step is lr times the gradient's sign: rounding flips only the smallest ones.
    lr, count = config.optim.lr, sum(value.numel() for value in single.values())
    assert 0 < float(torch.stack(difference).norm()) < 0.5 * 2 * lr * count**0.5


def test_run_writes_weights_that_load_and_a_log(config):
    folder = train(engine(config, keep_every=2))
    assert load_unet(folder).config == TINY
    assert load_unet(config.out / "unet_0000002").config == TINY
    rows = log_rows(config)
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["seconds_per_step"] > 0 and row["clips_per_second"] > 0 for row in rows)
    assert rows[0]["lr"] == pytest.approx(1e-3)


@pytest.mark.slow
def test_tensorboard_gets_the_losses(config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(engine(config, trackers=("tensorboard",)))
    files = list(config.out.rglob("events.out*"))
    events = EventAccumulator(str(files[0].parent)).Reload()
    logged = {row["step"]: row["loss_4d"] for row in log_rows(config) if "loss_4d" in row}
    seen = {event.step: event.value for event in events.Scalars("loss_4d")}
    assert seen == pytest.approx(logged)


@pytest.mark.slow
def test_loss_falls_on_one_scene(config, tmp_path):
    # Only the noise is new in every step.
    write_scenes(tmp_path / "one", "still", "3d", ["a"])
    easy = replace(
        config,
        data=replace(config.data, modes=("3d",), latents=tmp_path / "one"),
        loss=LossConfig(log_sigma_mean=2.0, log_sigma_std=0.5, drop_condition=0.0),
    )
    easy = optim(easy, name="muon", lr=3e-3, muon_lr=0.05, schedule="cosine")
    train(engine(easy, steps=60, log_every=20, save_every=60))
    rows = log_rows(config)
    assert rows[-1]["loss_3d"] < 0.9 * rows[0]["loss_3d"]


def test_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(config, tmp_path):
    for source, kind in (("still", "3d"), ("moving", "4d")):
        path = write_scenes(tmp_path / "broken", source, kind, ["nan"])
        _spoil(path)
    broken = replace(config, data=replace(config.data, latents=tmp_path / "broken"))
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at step \d, micro-batch 0"):
        train(broken)
    assert not (config.out / "unet").exists()
    saved = load_file(config.out / "bad_batch_0.safetensors")
    assert saved["latents"].shape == (2, 3, 4, 2, 2)
    assert saved["latents"].isnan().all()


def _spoil(path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as opened:
        meta = opened.metadata()
    shard = load_file(path)
    shard["latents"] = torch.full_like(shard["latents"], float("nan"))
    save_file(shard, path, metadata=meta)


@pytest.mark.slow
def test_too_many_broken_scenes_stop_the_run_and_are_listed(config, tmp_path):
    write_scenes(tmp_path / "short", "still", "3d", ["whole", "other"])
    write_scenes(tmp_path / "short", "still", "3d", ["brief"], file="000001", frames=2)
    data = replace(config.data, latents=tmp_path / "short", modes=("3d",), max_broken=0.1)
    with pytest.raises(InvalidInputError, match=r"scenes are broken, more than data\.max_bro"):
        train(engine(replace(config, data=data), steps=200, save_every=200))
    text = (config.out / "broken_0.jsonl").read_text()
    listed = [json.loads(line) for line in text.splitlines()]
    assert listed == [
        {
            "source": "still",
            "scene_id": "brief",
            "reason": "scene brief has 2 frames, expected at least 3.",
            "rejected": False,
        }
    ]


@pytest.mark.slow
def test_few_broken_scenes_are_left_out_and_training_goes_on(config, tmp_path):
    write_scenes(tmp_path / "short", "still", "3d", ["whole", "other"])
    write_scenes(tmp_path / "short", "still", "3d", ["brief"], file="000001", frames=2)
    data = replace(config.data, latents=tmp_path / "short", modes=("3d",), max_broken=0.5)
    folder = train(engine(replace(config, data=data), steps=10))
    assert load_unet(folder).config == TINY
    assert "brief" in (config.out / "broken_0.jsonl").read_text()


@pytest.mark.slow
def test_stop_request_saves_between_two_steps(config):
    run = TrainingRun(config)
    one_step = run._one_step

    def interrupted(*given):
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return one_step(*given)

    run._one_step = interrupted
    run.go()
    assert torch.load(config.out / "state.pt", weights_only=True)["step"] == 3
    assert len(weights(train(config, resume=True))) > 0


def program(config, out, *settings, processes=1):
    """The command of a tiny run in processes of its own, and its environment."""
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    command = [sys.executable, *(launch if processes > 1 else [])]
    command += [str(ROOT / "tests" / "trainer" / "run_tiny.py"), str(config.data.latents), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    return [*command, *settings], environment


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_give_the_weights_of_one(config, tmp_path, sharding):
    # Sharded layers have to be run by all processes at once, and so in the same mode.
    block = 2 if sharding == "fsdp" else 1
    changes = (
        "data.batch_size=4",
        f"data.mode_block={block}",
        "data.sources.still.held_out=1",
        "validation.every=2",
        "validation.steps=2",
    )
    alone = apply_settings(config, changes)
    expected = weights(train(alone))
    out = tmp_path / "two"
    # In two parts: what one process saved for all is read by all.
    for steps in (2, 4):
        settings = (f"engine.sharding={sharding}", f"engine.steps={steps}", *changes)
        command, environment = program(config, out, *settings, processes=2)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    for name, value in weights(out / "unet").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-6)
    validated = [row for row in log_rows(alone) if "validation/loss/3d" in row]
    same = [row for row in log_rows(replace(config, out=out)) if "validation/loss/3d" in row]
    assert [row["step"] for row in validated] == [row["step"] for row in same] == [2, 4]
    for one, two in zip(validated, same, strict=True):
        assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_run_killed_at_any_moment_ends_with_the_same_weights(config, tmp_path):
    steps = ("engine.steps=24", "engine.save_every=1", "engine.log_every=1")
    expected = weights(train(engine(config, steps=24, save_every=24, threads=1)))
    out, rng = tmp_path / "killed", random.Random(0)
    seen = []
    for _ in range(3):
        command, environment = program(config, out, *steps, "engine.threads=1")
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        begun = saved_step(out)
        while saved_step(out) < begun + 2 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        process.wait()
        seen.append(saved_step(out))
    assert 2 <= seen[0] < seen[1] < seen[2] < 24
    command, environment = program(config, out, *steps, "engine.threads=1")
    subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    assert_equal(weights(out / "unet"), expected)
    assert [row["step"] for row in log_rows(replace(config, out=out))] == list(range(1, 25))
    assert not list(out.glob(".*part*"))


def saved_step(out):
    """The step of the checkpoint that lies in a folder."""
    file = out / "state.pt"
    return torch.load(file, weights_only=True)["step"] if file.exists() else 0


@pytest.fixture(scope="module")
def debug_run(tmp_path_factory):
    """The quick try of the README, cut to two steps: pictures made and encoded while training."""
    out = tmp_path_factory.mktemp("debug") / "run"
    settings = ("engine.steps=2", "engine.log_every=1", "validation.every=2")
    train(configured("debug", Path("data"), out, settings))
    return out


@pytest.mark.slow
def test_debug_recipe_trains_on_pictures_and_draws_a_sheet(debug_run):
    sheet = load_image(debug_run / "sheets" / "step_0000002.png").image
    assert min(sheet.shape[1:]) >= 32
    assert float(sheet.std()) > 0.05
    rows = [json.loads(line) for line in (debug_run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert 5 < rows[-1]["validation/psnr/3d_single"] < 40
    assert rows[-1]["validation/loss/4d"] > 0


@pytest.mark.slow
def test_sheet_reaches_tensorboard(debug_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = next(path for path in debug_run.rglob("events.out*") if path.parent.name == "genxd")
    events = EventAccumulator(str(file.parent)).Reload()
    assert [event.step for event in events.Images("held_out")] == [2]
