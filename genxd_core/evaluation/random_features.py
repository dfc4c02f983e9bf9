"""A distance between pictures by what a random network sees in them; it needs no weights.

It is made as LPIPS is (features of several layers, channels of unit length, squared differences,
averaged over the picture, summed over the layers), but the network is drawn from a seed and has
learned nothing: it tells displaced edges and textures from right ones, and nothing of what people
find alike. Its values are no LPIPS and compare only with values of the same seed and widths. Where
weights of a trained network are at hand, `picture_distance` takes those.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, relu

from ..errors import InvalidInputError
from ..lifting.losses import check_pair
from ..lifting.perceptual import load_perceptual

__all__ = ["RandomFeatures", "picture_distance"]

PictureDistance = Callable[[Tensor, Tensor], Tensor]
"""``distance(a, b)`` of two batches (V, 3, H, W) in [0, 1]; (V,), 0 for equal pictures."""

_MEAN, _STD = 0.5, 0.25  # of the values of pictures, about
_LEAST_SQUARE = 1e-20  # of the length of features; below it they count as nothing


class RandomFeatures:
    """Distances of pictures by a random convolutional network; the same for a seed everywhere.

    Args:
        seed: of the weights.
        widths: channels of the layers; each but the first sees the one before at half its size.
    """

    def __init__(self, seed: int = 0, widths: tuple[int, ...] = (32, 64, 128, 128)) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.layers: list[tuple[Tensor, Tensor]] = []
        before = 3
        for width in widths:
            # He's scale keeps the size of values; biases let flat regions differ in brightness.
            weight = torch.randn(width, before, 3, 3, generator=rng) * (2 / (9 * before)) ** 0.5
            self.layers.append((weight, 0.3 * torch.randn(width, generator=rng)))
            before = width

    def __call__(self, a: Tensor, b: Tensor) -> Float[Tensor, " v"]:
        """Distances, 0 for equal pictures, at most 2 for each layer.

        Args:
            a: (V, 3, H, W) in [0, 1]; sides of at least ``2 ** (layers - 1)`` pixels.
            b: the same.

        Raises:
            InvalidInputError: the shapes differ, or the pictures are too small.
        """
        check_pair(a, b)
        smallest = 2 ** (len(self.layers) - 1)
        if min(a.shape[-2:]) < smallest:
            raise InvalidInputError(
                f"the pictures are {a.shape[-1]} x {a.shape[-2]} pixels; expected at least "
                f"{smallest} x {smallest} for {len(self.layers)} layers."
            )
        pairs = zip(self._features(a), self._features(b), strict=True)
        layers = [(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in pairs]
        return torch.stack(layers).sum(dim=0)

    def _features(self, images: Tensor) -> list[Tensor]:
        x = (images.float() - _MEAN) / _STD
        features = []
        for number, (weight, bias) in enumerate(self.layers):
            if number:
                x = avg_pool2d(x, 2)
            x = relu(conv2d(x, weight.to(x.device), bias.to(x.device), padding=1))
            squares = x.square().sum(dim=1, keepdim=True).clamp_min(_LEAST_SQUARE)
            features.append(x * squares.rsqrt())
        return features


def picture_distance(weights: str | Path | None = None) -> tuple[str, PictureDistance]:
    """A distance between pictures, and its name for a report.

    Args:
        weights: a file of a trained network for LPIPS (see `load_perceptual`), or None for the
            random one.

    Returns:
        ("lpips_alex" or the like, the distance) with weights, else ("random_feature_distance", the
        distance).

    Raises:
        WeightsError: the file is none that LPIPS can use.
    """
    if weights is None:
        return "random_feature_distance", RandomFeatures()
    model = load_perceptual(weights)
    return f"lpips_{model.name}", model
