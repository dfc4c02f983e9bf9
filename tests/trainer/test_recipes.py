"""Recipes against the paper's numbers, and combinations that cannot work."""

from dataclasses import replace
from pathlib import Path

import pytest

from genxd_core.assets import NANO
from genxd_core.data.registry import DATASETS
from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig
from tests.trainer.support import tiny_run
from trainer.config import LoraConfig, ValidationConfig
from trainer.recipes import RECIPES


def recipe(name):
    return RECIPES[name](Path("data"), Path("runs") / name)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_whole_and_knows_its_name(name):
    run = recipe(name)
    assert run.recipe == name
    assert run.data.accumulation(1) >= 1
    assert {source.dataset for source in run.data.sources} <= set(DATASETS)


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage3"])
def test_stages_have_the_papers_numbers(name):
    run = recipe(name)
    assert (run.engine.steps, run.optim.name, run.optim.lr) == (500_000, "adamw", 5e-5)
    assert (run.data.batch_size, run.data.size, run.data.views) == (128, 256, (12,))
    assert run.model.unet == GenXDUNetConfig()
    assert run.data.accumulation(32) * 32 * run.data.micro_batch == 128


def test_stages_differ_in_data_views_and_fit_as_the_paper_says():
    first, second, third = (recipe(f"stage{n}") for n in (1, 2, 3))
    assert {source.mode for source in first.data.sources} == {"3d"}
    assert {source.dataset for source in first.data.sources} == {
        "objaverse",
        "mvimgnet",
        "co3d",
        "realestate10k",
        "acid",
    }
    moving = {source.dataset for source in second.data.sources if source.mode == "4d"}
    assert moving == {"objaverse_animation", "camvid"}
    assert second.data.sources == third.data.sources
    shares = [run.loss.multi_view_share for run in (first, second, third)]
    assert shares == [0.0, 0.0, 0.5]
    assert [run.data.fit for run in (first, second, third)] == ["crop", "crop", "either"]


@pytest.mark.parametrize("family", ["", "released_", "nano_"])
def test_each_stage_starts_from_the_one_before(family):
    for number in (2, 3):
        run = recipe(f"{family}stage{number}")
        assert run.model.start == "weights"
        assert run.model.start_from == Path("runs") / f"{family}stage{number - 1}" / "unet"
    assert recipe(f"{family}stage1").model.start == ("weights" if family == "nano_" else "svd")


@pytest.mark.parametrize("name", ["finetune", "finetune_full"])
def test_finetuning_takes_the_network_of_the_weights(name):
    run = recipe(name)
    assert run.model.unet is None
    assert (run.model.start, run.model.start_from) == ("weights", Path("data/weights"))
    assert (run.model.lora is None) == (name == "finetune_full")


def test_released_stages_have_the_released_numbers():
    run = recipe("released_stage3")
    assert (run.optim.name, run.optim.lr, run.optim.warmup) == ("adamw8bit", 2e-5, 2000)
    assert (run.engine.steps, run.engine.mixed_precision, run.engine.seed) == (
        300_000,
        "fp16",
        3407,
    )
    assert run.model.gradient_checkpointing
    assert run.loss.multi_view_share == 0.5


def test_recipes_of_the_embedded_model_are_for_its_network():
    embedded = GenXDUNetConfig.from_json(NANO / "unet" / "config.json")
    for name in ("nano", "nano_stage1", "nano_stage2", "nano_stage3"):
        assert recipe(name).model.unet == embedded


def test_ablations_change_one_thing_each():
    from trainer.settings import differences, to_record

    full = to_record(recipe("ablation_full"))

    def changed(name):
        found = differences(full, to_record(recipe(name)))
        return {key for key in found if key not in ("recipe", "out")}

    assert changed("ablation_no_disentangling") == {"loss.disentangle_motion"}
    assert changed("ablation_camera_attention") == {"model.camera"}
    assert changed("ablation_without_3d") == {"data.modes"}
    assert changed("ablation_without_4d") == {"data.modes"}


@pytest.fixture
def config(tmp_path):
    return tiny_run(tmp_path / "latents", tmp_path / "run")


def part(section, **changes):
    return lambda run: replace(run, **{section: replace(getattr(run, section), **changes)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (part("data", sources=()), "data.sources has no source"),
        (part("data", modes=("video",)), r"no source of a weight above 0 in data.modes \('video'"),
        (
            part("data", batch_size=3),
            r"data.batch_size is 3, no multiple of data.micro_ba",
        ),
        (part("data", size=60), "data.size is 60, expected a multiple of 16"),
        (part("data", views=(1,)), r"data.views is \(1,\)"),
        (part("data", max_broken=2.0), "data.max_broken is 2.0"),
        (part("loss", drop_condition=1.5), "loss.drop_condition is 1.5"),
        (part("optim", lr=0.0), "optim.lr is 0.0"),
        (part("engine", steps=0), "engine.steps is 0"),
        (part("model", start="svd"), "model.start is 'svd' and model.start_from is not set"),
        (part("model", unet=None), "model.unet is null and model.start is 'scratch'"),
        (part("model", lora=LoraConfig()), "adapters need trained weights beneath"),
        (part("model", frozen_dtype="bf16"), "nothing is frozen"),
        (
            lambda run: part("engine", sharding="fsdp")(part("optim", name="muon")(run)),
            "optim.name is 'muon' and engine.sharding is 'fsdp'",
        ),
        (
            lambda run: part("engine", mixed_precision="fp16")(part("optim", name="muon")(run)),
            "engine.mixed_precision is 'fp16' and optim.name is 'muon'",
        ),
        (
            part(
                "model",
                start="weights",
                start_from=Path("weights"),
                lora=LoraConfig(),
                frozen_dtype="bf16",
            ),
            "model.frozen_dtype is 'bf16' and engine.mixed_precision is 'no'",
        ),
        (
            lambda run: replace(run, validation=ValidationConfig(every=5)),
            "validation.every is 5 and no source holds scenes out",
        ),
    ],
)
def test_impossible_runs_are_refused_by_the_option_to_change(config, change, message):
    with pytest.raises(InvalidInputError, match=message):
        change(config)


def test_batch_that_processes_cannot_share_is_refused(config):
    with pytest.raises(InvalidInputError, match=r"data.micro_batch x processes \(2 x 3\)"):
        config.data.accumulation(3)
