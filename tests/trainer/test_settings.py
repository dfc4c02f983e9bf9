"""Settings by name, records, and what differs between two."""

import pytest

from genxd_core.errors import InvalidInputError
from tests.trainer.support import tiny_run
from trainer.config import LoraConfig
from trainer.settings import apply_settings, differences, to_record


@pytest.fixture
def config(tmp_path):
    return tiny_run(tmp_path / "latents", tmp_path / "run")


def test_settings_reach_any_depth_and_keep_their_types(config, tmp_path):
    new = apply_settings(
        config,
        [
            "optim.lr=1e-4",
            "data.views=[3, 4]",
            'data.modes=["3d"]',
            f"data.sources.still.root={tmp_path}",
            "data.sources.still.options.family=nano_3d",
            "data.sources.still.frames.strides=[1, 2]",
            "engine.mixed_precision=bf16",
        ],
    )
    assert new.optim.lr == 1e-4
    assert new.data.views == (3, 4)
    assert new.data.modes == ("3d",)
    assert new.data.sources[0].root == tmp_path
    assert new.data.sources[0].options == {"family": "nano_3d"}
    assert new.data.sources[0].frames.strides == (1, 2)
    assert new.engine.mixed_precision == "bf16"
    assert new.data.sources[1] == config.data.sources[1]


def test_settings_count_together_in_any_order(config, tmp_path):
    changes = ["data.micro_batch=3", "data.batch_size=6", "model.start=weights"]
    changes += ["model.lora.rank=4", "model.frozen_dtype=bf16", f"model.start_from={tmp_path}"]
    for settings in (changes, changes[::-1]):
        new = apply_settings(config, settings)
        assert (new.data.micro_batch, new.data.batch_size) == (3, 6)
        assert (new.model.lora, new.model.frozen_dtype) == (LoraConfig(rank=4), "bf16")


def test_later_setting_replaces_an_earlier_one_and_what_is_in_it(config, tmp_path):
    start = ["model.start_from=weights", "model.start=weights"]
    new = apply_settings(
        config, [*start, "optim.lr=1", "optim.lr=2", "model.lora.rank=9", 'model.lora={"alpha": 2}']
    )
    assert new.optim.lr == 2.0
    assert new.model.lora == LoraConfig(alpha=2.0)
    assert apply_settings(new, ["model.lora=null", "model.lora.rank=5"]).model.lora.rank == 5


def test_absent_part_is_made_when_one_of_its_fields_is_set(config, tmp_path):
    start = ["model.start_from=weights", "model.start=weights"]
    new = apply_settings(config, [*start, "model.lora.rank=4"])
    assert new.model.lora == LoraConfig(rank=4)
    assert apply_settings(new, ["model.lora=null"]).model.lora is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lr", "expected name=value"),
        ("optim.rate=1", "--set optim.rate: 'rate' is no field; expected one of name, lr"),
        ("optim.lr=fast", r"--set optim.lr: 'fast' is no float"),
        ("engine.mixed_precision=int8", "engine.mixed_precision: 'int8' is no"),
        ("data.sources.moon.root=x", "expected a name of still, moving"),
        ("out.name=x", "what stands before the last dot has no fields"),
        ("optim.lr=-1", "optim.lr is -1"),
    ],
)
def test_impossible_settings_are_refused(config, setting, message):
    with pytest.raises(InvalidInputError, match=message):
        apply_settings(config, [setting])


def test_differences_are_told_by_dotted_names(config):
    before = to_record(config)
    after = to_record(apply_settings(config, ["optim.lr=0.5", "data.sources.still.weight=2"]))
    assert differences(before, after) == {
        "optim.lr": (1e-3, 0.5),
        "data.sources.still.weight": (1.0, 2.0),
    }
    assert differences(before, before) == {}
