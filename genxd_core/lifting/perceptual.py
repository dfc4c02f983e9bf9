"""LPIPS: a distance between pictures by what a network trained on photographs sees in them.

The definition (Zhang et al. 2018, v0.1): features of five or seven layers, channels normalised to
unit length, squared differences weighted by the embedded non-negative heads, averaged over the
picture, summed over the layers. The paper's losses have it as a term (Sec. 4.2).

No weights of a network come with the package and none are downloaded. Who has none says
``"gradient"`` where a perceptual model is asked for: `genxd_core.lifting.losses.gradient_loss`.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from ..assets import LPIPS_HEADS
from ..errors import InvalidInputError, WeightsError
from ..model_folders import resolve_perceptual
from ..tensor_files import read_tensors
from .backbones import Backbone, recognise
from .losses import check_pair

__all__ = ["GRADIENT", "PerceptualModel", "PreparedTargets", "load_perceptual"]

GRADIENT = "gradient"  # in the place of a model: the loss that needs no weights

# What the networks were trained with, for values in [0, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEAST_SQUARE = 1e-20  # of the length of features; below it they count as nothing


@dataclass(frozen=True, eq=False)
class PreparedTargets:
    """What a model sees in V pictures, kept so that it has to look only once.

    Attributes:
        features: per layer (V, C, h, w), channels of unit length.
        size: height and width of the pictures in pixels.
    """

    features: tuple[Tensor, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.features[0])

    def __getitem__(self, views: int | slice | Sequence[int] | Tensor) -> "PreparedTargets":
        """Some of the views: a number, a slice, or several numbers; always a batch."""
        index: slice | Tensor
        if isinstance(views, slice):
            index = views
        else:
            index = torch.as_tensor(views, device=self.features[0].device).reshape(-1)
        return PreparedTargets(tuple(feature[index] for feature in self.features), self.size)

    def to(self, device: torch.device | str) -> "PreparedTargets":
        """The same on another device."""
        return PreparedTargets(tuple(feature.to(device) for feature in self.features), self.size)


class PerceptualModel:
    """LPIPS distances of pictures; made by `load_perceptual`.

    Nothing in it changes or takes gradients; gradients flow through it to pictures. Pictures
    smaller than its network can see (16 to 31 pixels) are enlarged.

    Attributes:
        name: "alex", "vgg" or "squeeze".
    """

    def __init__(self, backbone: Backbone, network: nn.Sequential, heads: list[Tensor]) -> None:
        """Keep the parts; they are not copied.

        Args:
            backbone: which network it is.
            network: its layers.
            heads: per compared layer (1, C, 1, 1), at least 0.
        """
        self.name = backbone.name
        self._backbone, self._network, self._heads = backbone, network, heads
        like = heads[0]
        self._mean = like.new_tensor(_MEAN).view(1, 3, 1, 1)
        self._std = like.new_tensor(_STD).view(1, 3, 1, 1)

    @property
    def device(self) -> torch.device:
        """Where its weights lie and pictures have to."""
        return self._heads[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its weights, in which it works."""
        return self._heads[0].dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "PerceptualModel":
        """A copy of the model on another device or in another precision."""
        # Under ComfyUI all happens in inference mode, whose tensors no gradient can pass.
        with torch.inference_mode(False):
            network = copy.deepcopy(self._network).to(device, dtype)
            heads = [head.to(device=device, dtype=dtype) for head in self._heads]
            return PerceptualModel(self._backbone, network, heads)

    def __call__(self, a: Tensor, b: Tensor) -> Float[Tensor, " v"]:
        """Distances of pictures, 0 for equal ones.

        Args:
            a: (V, 3, H, W) in [0, 1], on the model's device.
            b: the same.

        Raises:
            InvalidInputError: the shapes differ, or the pictures are on another device.
        """
        check_pair(a, b)
        return self._compare(self._features(a), self._features(b))

    def prepare(self, targets: Tensor) -> PreparedTargets:
        """Look at pictures once, to compare others with them by `distance`.

        Memory: 10 values a pixel and view with AlexNet, 33 with SqueezeNet, 124 with VGG16.

        Args:
            targets: (V, 3, H, W) in [0, 1], on the model's device; no gradient flows to them.

        Raises:
            InvalidInputError: the shape is another, or the pictures are on another device.
        """
        check_pair(targets, targets)
        with torch.inference_mode(False), torch.no_grad():
            # One by one: the layers between those that are kept take memory too.
            views = [self._features(targets[view : view + 1]) for view in range(len(targets))]
            features = tuple(torch.cat(layer) for layer in zip(*views, strict=True))
        return PreparedTargets(features, (targets.shape[-2], targets.shape[-1]))

    def distance(self, images: Tensor, prepared: PreparedTargets) -> Float[Tensor, " v"]:
        """Distances of pictures from what `prepare` made, as of a call with the targets.

        Args:
            images: (V, 3, H, W) in [0, 1], on the model's device.
            prepared: V targets of the same size.

        Raises:
            InvalidInputError: number or size differ, or the pictures are on another device.
        """
        expected = (len(prepared), 3, *prepared.size)
        if tuple(images.shape) != expected:
            raise InvalidInputError(
                f"images has shape {tuple(images.shape)}, but the prepared targets are of shape "
                f"{expected}; prepare targets of the same size, and select the same views."
            )
        return self._compare(self._features(images), list(prepared.features))

    def __repr__(self) -> str:
        return f"PerceptualModel({self.name!r}, {self.dtype}, {self.device})"

    def _features(self, images: Tensor) -> list[Tensor]:
        if images.device != self.device:
            raise InvalidInputError(
                f"the pictures are on {images.device} and the perceptual model is on "
                f"{self.device}; bring one to the other with .to(...)."
            )
        x = (_enlarged(images.to(self.dtype), self._backbone.smallest) - self._mean) / self._std
        features = []
        for number, layer in enumerate(self._network):
            x = layer(x)
            if number in self._backbone.taps:
                features.append(_normalised(x))
        return features

    def _compare(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        layers = [
            conv2d((a - b).square(), head).mean(dim=(1, 2, 3))
            for a, b, head in zip(first, second, self._heads, strict=True)
        ]
        return torch.stack(layers).sum(dim=0)


def load_perceptual(path: str | Path, *, heads: str | Path | None = None) -> PerceptualModel:
    """Load LPIPS with a network from a file, on the CPU in float32.

    Args:
        path: a state dict of torchvision's AlexNet, VGG16 or SqueezeNet 1.1, which of them is
            recognised: ``.safetensors``, or ``.pth`` and ``.pt`` with nothing but tensors in them.
            Also the name of one in ``perceptual`` of the `genxd_core.model_folders`. Only the
            convolutions are kept.
        heads: a file with other weights of the layers than the embedded ones of LPIPS v0.1: a
            vector for each layer under ``<name>.<layer>``, or a file of the package lpips.

    Raises:
        WeightsError: a file is missing, cut off, holds more than tensors, or is for no such
            network; the message says what is expected and where.
    """
    file = resolve_perceptual(path)
    with torch.inference_mode(False):  # see PerceptualModel.to
        state = read_tensors(file)
        backbone = recognise(state, str(file))
        kept = {key: _usable(state[key], key, file) for key in backbone.shapes}
        head_file = LPIPS_HEADS if heads is None else Path(heads)
        return PerceptualModel(backbone, backbone.build(kept), _load_heads(backbone, head_file))


def _load_heads(backbone: Backbone, file: Path) -> list[Tensor]:
    state = read_tensors(file)
    heads = []
    for number, channels in enumerate(backbone.channels):
        keys = (f"{backbone.name}.{number}", f"lin{number}.model.1.weight")
        key = next((key for key in keys if key in state), None)
        if key is None or state[key].numel() != channels:
            came = "missing" if key is None else f"of shape {list(state[key].shape)}"
            raise WeightsError(
                f"{file} has no heads for {backbone.title}: {key or keys[0]} is {came}, expected "
                f"{channels} values. Leave heads out to use the embedded ones."
            )
        values = _usable(state[key], key, file)
        if float(values.min()) < 0:
            raise WeightsError(
                f"{file}: {key} holds negative values, with which distances would be no "
                "distances. Leave heads out to use the embedded ones."
            )
        heads.append(values.reshape(1, channels, 1, 1))
    return heads


def _usable(values: Tensor, key: str, file: Path) -> Tensor:
    """A copy in float32: a file is mapped into memory and may be replaced."""
    copied = values.to(torch.float32, copy=True)
    if not values.is_floating_point() or not bool(copied.isfinite().all()):
        raise WeightsError(
            f"{file}: {key} holds values that are not finite numbers; download or copy it again."
        )
    return copied


def _enlarged(images: Float[Tensor, "v 3 h w"], smallest: int) -> Tensor:
    height, width = images.shape[-2:]
    if min(height, width) >= smallest:
        return images
    factor = smallest / min(height, width)
    size = (math.ceil(height * factor - 1e-6), math.ceil(width * factor - 1e-6))
    return interpolate(images, size=size, mode="bilinear", align_corners=False)


def _normalised(features: Float[Tensor, "v c h w"]) -> Tensor:
    # The bound before the root: of nothing at all, the root's gradient would be infinite.
    squares = features.square().sum(dim=1, keepdim=True).clamp_min(_LEAST_SQUARE)
    return features * squares.rsqrt()
