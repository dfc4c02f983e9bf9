"""What shapes a GenXD UNet: a frozen configuration, read from and written to `config.json`."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError

__all__ = ["GenXDUNetConfig"]

_ATTENTION_DOWN = "CrossAttnDownBlockMVCascadeTemporal"
_PLAIN_DOWN = "DownBlockMVCascadeTemporal"
_ATTENTION_UP = "CrossAttnUpBlockMVCascadeTemporal"
_PLAIN_UP = "UpBlockMVCascadeTemporal"

NORM_GROUPS = 32  # of every group norm in the network


@dataclass(frozen=True)
class GenXDUNetConfig:
    """Configuration of `GenXDUNet`; the defaults are the released model's.

    Attributes:
        in_channels: 4 latent + 4 zero + 6 ray + 1 mask channels.
        out_channels: channels of the prediction, those of a latent.
        block_out_channels: width of each level, a multiple of 32.
        down_block_types: per level, with (``CrossAttn...``) or without attention.
        up_block_types: the same from the deepest level up.
        layers_per_block: residual blocks of a level on the way down; one more on the way up.
        transformer_layers_per_block: transformer layers in each attention module.
        num_attention_heads: heads per level; the head size is width / heads.
        addition_time_embed_dim: sinusoid width of each added time id.
        projection_class_embeddings_input_dim: that width times the number of added ids.
        motion_condition: the network has a motion embedding (Sec. 4.1, motion strength).
        num_frames: frames of the training clips; the network takes any number.
        sample_size: nominal latent size; the network takes any multiple of its stride.
    """

    in_channels: int = 15
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = (_ATTENTION_DOWN,) * 3 + (_PLAIN_DOWN,)
    up_block_types: tuple[str, ...] = (_PLAIN_UP,) + (_ATTENTION_UP,) * 3
    layers_per_block: int | tuple[int, ...] = 2
    transformer_layers_per_block: int | tuple[int, ...] = 1
    num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20)
    addition_time_embed_dim: int = 256
    projection_class_embeddings_input_dim: int = 512
    motion_condition: bool = True
    num_frames: int = 8
    sample_size: int = 96

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types"):
            self._expect_levels(name, levels)
        for name in ("layers_per_block", "transformer_layers_per_block", "num_attention_heads"):
            value = getattr(self, name)
            if not isinstance(value, int):
                self._expect_levels(name, levels)
        known = {_ATTENTION_DOWN, _PLAIN_DOWN, _ATTENTION_UP, _PLAIN_UP}
        unknown = set(self.down_block_types + self.up_block_types) - known
        if unknown:
            raise InvalidInputError(
                f"config: block types {sorted(unknown)} are not GenXD's; expected "
                f"{sorted(known)}. This looks like the configuration of another model."
            )
        for width, heads in zip(
            self.block_out_channels, self.per_level("num_attention_heads"), strict=True
        ):
            if width % NORM_GROUPS or width % heads:
                raise InvalidInputError(
                    f"config: block_out_channels has {width}, expected a multiple of "
                    f"{NORM_GROUPS} and of its num_attention_heads ({heads})."
                )
        if self.projection_class_embeddings_input_dim % self.addition_time_embed_dim:
            raise InvalidInputError(
                "config: projection_class_embeddings_input_dim is "
                f"{self.projection_class_embeddings_input_dim}, expected a multiple of "
                f"addition_time_embed_dim ({self.addition_time_embed_dim})."
            )

    def _expect_levels(self, name: str, levels: int) -> None:
        value = getattr(self, name)
        if len(value) != levels:
            raise InvalidInputError(
                f"config: {name} has {len(value)} entries ({list(value)}), expected {levels}, "
                "one for each entry of block_out_channels."
            )

    @property
    def levels(self) -> int:
        """Number of resolution levels."""
        return len(self.block_out_channels)

    @property
    def stride(self) -> int:
        """What latent heights and widths must be multiples of (8 for the released model)."""
        return int(2 ** (self.levels - 1))

    @property
    def time_embed_dim(self) -> int:
        """Width of the time (and of the motion) embedding."""
        return 4 * self.block_out_channels[0]

    @property
    def num_added_ids(self) -> int:
        """How many added time ids a frame has (2 for the released model)."""
        return self.projection_class_embeddings_input_dim // self.addition_time_embed_dim

    def per_level(self, name: str) -> tuple[int, ...]:
        """A field that is an int or one int a level, as one int a level."""
        value = getattr(self, name)
        return (value,) * self.levels if isinstance(value, int) else tuple(value)

    def has_attention(self, level: int, *, up: bool = False) -> bool:
        """Whether a level has attention; ``level`` counts from the outside also when ``up``."""
        if up:
            return self.up_block_types[self.levels - 1 - level] == _ATTENTION_UP
        return self.down_block_types[level] == _ATTENTION_DOWN

    @classmethod
    def with_widths(
        cls,
        widths: tuple[int, ...],
        heads: tuple[int, ...],
        *,
        layers_per_block: int = 1,
        **overrides: Any,
    ) -> "GenXDUNetConfig":
        """A smaller network of the same kind: attention on all levels but the deepest."""
        inner = len(widths) - 1
        return cls(
            block_out_channels=widths,
            num_attention_heads=heads,
            layers_per_block=layers_per_block,
            down_block_types=(_ATTENTION_DOWN,) * inner + (_PLAIN_DOWN,),
            up_block_types=(_PLAIN_UP,) + (_ATTENTION_UP,) * inner,
            **overrides,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GenXDUNetConfig":
        """Build from a dict; keys of other software (``_class_name``...) are ignored.

        Raises:
            InvalidInputError: a value is out of range, or switches on a part that the released
                model does not have (camera embeddings, cross-attention, uncertainty).
        """
        for name, absent in _UNSUPPORTED.items():
            if name in values and values[name] not in absent:
                raise InvalidInputError(
                    f"config: {name} is {values[name]!r}, expected {absent[0]!r}: the released "
                    "GenXD network has no such part. Is this the configuration of another model?"
                )
        names = {field.name for field in fields(cls)}
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in names
        }
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict that `from_dict` and the released loader read."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {
            **values,
            "cross_attention_dim": None,
            "ray_condition": True,
            "uncertainty_condition": False,
            "camera_embedding_dim": -1,
            "camera_add_time": False,
            "scale_add_time": False,
        }

    @classmethod
    def from_json(cls, path: str | Path) -> "GenXDUNetConfig":
        """Read `config.json`.

        Raises:
            InvalidInputError: the file is not JSON, or `from_dict` refuses its values.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InvalidInputError(f"config: {path} is not a JSON file ({error}).") from error
        if not isinstance(values, dict):
            raise InvalidInputError(f"config: {path} holds a {type(values).__name__}, not a dict.")
        return cls.from_dict(values)

    def to_json(self, path: str | Path) -> None:
        """Write `config.json`."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


# Parts of the original code that no released weights use: the values that leave them out.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "cross_attention_dim": (None,),
    "camera_embedding_dim": (-1, None),
    "uncertainty_condition": (False, None),
    "camera_add_time": (False, None),
    "scale_add_time": (False, None),
    "ray_condition": (True, None),
}
