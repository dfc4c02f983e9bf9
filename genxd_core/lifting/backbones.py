"""The networks whose features a perceptual model compares: AlexNet, VGG16, SqueezeNet 1.1.

Only their convolutions, with the layout and the keys (``features.N.weight``) of torchvision's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import WeightsError
from ..model_folders import PERCEPTUAL_FILES

__all__ = ["BACKBONES", "Backbone", "recognise"]

_PREFIX = "features."
_MOST_NAMED = 3


@dataclass(frozen=True)
class Backbone:
    """A network up to its last compared layer.

    Attributes:
        name: "alex", "vgg" or "squeeze".
        title: its name in words.
        layers: makes the layers; their numbers are those of the keys.
        taps: numbers of the layers whose output is compared, all behind a ReLU.
        channels: of these outputs.
        smallest: side in pixels below which the last layers have nothing to see.
    """

    name: str
    title: str
    layers: Callable[[], list[nn.Module]]
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    smallest: int

    def build(self, state: dict[str, Tensor]) -> nn.Sequential:
        """The network with the weights of a state dict that `recognise` took for it.

        Its weights take no gradients.

        Args:
            state: by torchvision's keys; what is behind the convolutions is left out.
        """
        with torch.device("meta"):
            network = nn.Sequential(*self.layers())
        own = {key[len(_PREFIX) :]: value for key, value in state.items() if _is_conv(key)}
        network.load_state_dict(own, strict=True, assign=True)
        return network.eval().requires_grad_(False)

    @property
    def file(self) -> str:
        """Name under which torchvision publishes its weights."""
        return PERCEPTUAL_FILES[self.name]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its weights by torchvision's keys."""
        return _shapes(self.layers)


def recognise(state: dict[str, Tensor], source: str) -> Backbone:
    """The network that a state dict of torchvision is for, told by keys and shapes.

    Args:
        state: with the whole network or its convolutions alone.
        source: where it is from, for the message.

    Raises:
        WeightsError: it is none of the known ones; the message tells what is there and what is
            missing of the nearest.
    """
    found = {key: tuple(value.shape) for key, value in state.items() if _is_conv(key)}
    for backbone in BACKBONES.values():
        if backbone.shapes == found:
            return backbone
    shown = [f"{key} {list(value.shape)}" for key, value in state.items()]
    there = ", ".join(shown[:_MOST_NAMED]) + (", ..." if len(shown) > _MOST_NAMED else "")
    expected = "; ".join(
        f"{b.title} ({b.file}) with features.0.weight {list(b.shapes['features.0.weight'])}"
        for b in BACKBONES.values()
    )
    raise WeightsError(
        f"{source} is no perceptual model that is known: it holds {len(state)} tensors "
        f"({there or 'none'}). {_nearest(found)}Expected a state dict of torchvision: {expected}."
    )


def _nearest(found: dict[str, tuple[int, ...]]) -> str:
    def fitting(backbone: Backbone) -> int:
        return len(backbone.shapes.items() & found.items())

    best = max(BACKBONES.values(), key=fitting)
    wanted = best.shapes
    if fitting(best) < len(wanted) / 2:
        return ""
    odd = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    more = ", ..." if len(odd) > _MOST_NAMED else ""
    return (
        f"It is like {best.title}, but {len(odd)} of the convolutions' tensors are missing, "
        f"unexpected or of another shape ({', '.join(odd[:_MOST_NAMED])}{more}). "
    )


def _is_conv(key: str) -> bool:
    return key.startswith(_PREFIX)


@cache
def _shapes(layers: Callable[[], list[nn.Module]]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = nn.Sequential(*layers()).state_dict()
    return {_PREFIX + key: tuple(value.shape) for key, value in state.items()}


def _alexnet() -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True)]
    before = 64
    for width, kernel, pooled in ((192, 5, True), (384, 3, True), (256, 3, False), (256, 3, False)):
        if pooled:
            layers.append(nn.MaxPool2d(3, 2))
        layers += [nn.Conv2d(before, width, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
        before = width
    return layers


def _vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
    return layers


def _squeezenet() -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(inplace=True)]
    before = 64
    for narrow, wide, count in ((16, 128, 2), (32, 256, 2)):
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for _ in range(count):
            layers.append(_Fire(before, narrow, wide // 2))
            before = wide
    layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    for narrow, wide in ((48, 384), (48, 384), (64, 512), (64, 512)):
        layers.append(_Fire(before, narrow, wide // 2))
        before = wide
    return layers


class _Fire(nn.Module):
    """Few channels, then many by two kernels side by side; a ReLU behind each."""

    def __init__(self, before: int, narrow: int, half: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, half, 1)
        self.expand3x3 = nn.Conv2d(narrow, half, 3, padding=1)

    def forward(self, x: Float[Tensor, "v c h w"]) -> Float[Tensor, "v d h w"]:
        few = self.squeeze(x).relu_()
        return torch.cat([self.expand1x1(few), self.expand3x3(few)], 1).relu_()


BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            *("alex", "AlexNet", _alexnet),
            taps=(1, 4, 7, 9, 11),
            channels=(64, 192, 384, 256, 256),
            smallest=31,
        ),
        Backbone(
            *("vgg", "VGG16", _vgg16),
            taps=(3, 8, 15, 22, 29),
            channels=(64, 128, 256, 512, 512),
            smallest=16,
        ),
        Backbone(
            *("squeeze", "SqueezeNet 1.1", _squeezenet),
            taps=(1, 4, 7, 9, 10, 11, 12),
            channels=(64, 128, 256, 384, 384, 512, 512),
            smallest=17,
        ),
    )
}
