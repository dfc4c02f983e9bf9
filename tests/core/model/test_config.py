"""Configurations: reading, writing, refusing."""

import pytest

from genxd_core.errors import InvalidInputError
from genxd_core.model.config import GenXDUNetConfig


def test_json_round_trip_gives_the_same_configuration(tmp_path):
    config = GenXDUNetConfig.with_widths((32, 64), (1, 2), motion_condition=False)
    config.to_json(tmp_path / "config.json")
    assert GenXDUNetConfig.from_json(tmp_path / "config.json") == config


def test_unknown_keys_are_ignored():
    assert GenXDUNetConfig.from_dict({"_class_name": "X", "future": 1}) == GenXDUNetConfig()


def test_per_level_fields_are_an_int_or_a_list():
    config = GenXDUNetConfig.from_dict({"layers_per_block": [1, 2, 1, 2]})
    assert config.per_level("layers_per_block") == (1, 2, 1, 2)
    assert GenXDUNetConfig().per_level("layers_per_block") == (2, 2, 2, 2)


def test_derived_sizes_of_the_released_network():
    config = GenXDUNetConfig()
    assert (config.stride, config.time_embed_dim, config.num_added_ids) == (8, 1280, 2)
    assert [config.has_attention(i) for i in range(4)] == [True, True, True, False]
    assert [config.has_attention(i, up=True) for i in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cross_attention_dim": 1024}, "cross_attention_dim is 1024, expected None"),
        ({"down_block_types": ["DownBlock2D"] * 4}, "DownBlock2D.*are not GenXD's"),
        ({"num_attention_heads": [1, 2]}, "num_attention_heads has 2 entries"),
        ({"block_out_channels": [33, 64, 64, 64]}, "block_out_channels has 33"),
        ({"addition_time_embed_dim": 7}, "expected a multiple of addition_time_embed_dim"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(InvalidInputError, match=message):
        GenXDUNetConfig.from_dict(values)


@pytest.mark.parametrize(("text", "message"), [("{", "not a JSON file"), ("[1]", "not a dict")])
def test_damaged_file_is_refused(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message):
        GenXDUNetConfig.from_json(path)
