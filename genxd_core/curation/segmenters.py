"""Learned providers of what may move: a tiny person segmenter that comes along, and Mask2Former.

The paper uses Mask2Former (Sec. 3.1). Nothing is ever downloaded: its folder must be there.
"""

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ..assets import PERSON_SEGMENTER
from ..errors import InvalidInputError
from ..optional import require
from ..pictures import check_pictures
from ..progress import Progress, report
from .motion_masks import MotionSegmenter
from .movable_masks import (
    MovableMasks,
    MovableSegmenter,
    Union,
    check_available,
    of_one_object,
)
from .tflite_network import TfliteNetwork

__all__ = [
    "CARRIED_CLASSES",
    "MOVABLE_CLASSES",
    "MOVING_STUFF",
    "Mask2FormerSegmenter",
    "PersonSegmenter",
    "default_segmenters",
]

MOVABLE_CLASSES = frozenset(
    {
        *{"person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"},
        *{"bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"},
        *{"backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"},
        *{"sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"},
        "tennis racket",
    }
)
"""Classes of COCO that move or are moved."""

CARRIED_CLASSES = frozenset(
    {
        *{"bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"},
        *{"sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"},
        *{"laptop", "mouse", "remote", "keyboard", "cell phone", "book", "scissors"},
        *{"teddy bear", "hair drier", "toothbrush", "chair"},
    }
)
"""Classes of COCO that count where they touch a person."""

MOVING_STUFF = frozenset({"sky", "water", "sea", "river"})
"""What moves without being an object: masked, but not labelled."""

_STUFF_ENDINGS = ("-merged", "-other", "-stuff")
_TOUCHING = 7  # pixels


def default_segmenters(
    mask2former: str | Path | None = None, *, device: torch.device | str = "cpu"
) -> tuple[MovableSegmenter, ...]:
    """Providers in the order of preference: Mask2Former if its folder is named, then what is here.

    Args:
        mask2former: folder with its ``config.json``, weights and ``preprocessor_config.json``.
        device: for Mask2Former.
    """
    offline = Union(PersonSegmenter(), MotionSegmenter())
    if mask2former is None:
        return (offline,)
    return Mask2FormerSegmenter(mask2former, device=device), offline


class PersonSegmenter:
    """MediaPipe's person segmenter of 0.25 MB, on the whole frame and on square tiles.

    Good on persons, fair on animals and on things in hands; some of the background is taken for
    a person. All that it finds is one object.

    Args:
        threshold: of its map, above which a pixel may move.
        tiles: squares of the frame's smaller side, spread over the larger one; 0 for none.
        network: the file, for another place of it.
    """

    name = "person-segmenter"
    version = "mediapipe-0.10.21"
    licence = "Apache-2.0"
    needs = ("the file selfie-segmentation.tflite, which comes with the package",)

    def __init__(
        self, *, threshold: float = 0.3, tiles: int = 3, network: Path = PERSON_SEGMENTER
    ) -> None:
        if not 0 < threshold < 1:
            raise InvalidInputError(f"threshold is {threshold}; expected a number in (0, 1).")
        if tiles < 0:
            raise InvalidInputError(f"tiles is {tiles}; expected 0 or more.")
        self.threshold, self.tiles, self._file = threshold, tiles, network

    def available(self) -> str | None:
        """Why it cannot work."""
        return None if self._file.is_file() else f"The file {self._file} is missing."

    def segment(
        self, images: Shaped[Tensor, "..."], *, progress: Progress | None = None
    ) -> MovableMasks:
        """Find persons, animals and what they hold; always of low confidence.

        Raises:
            InvalidInputError: no pictures.
            MissingDependencyError: the file is missing.
            WeightsError: the file is damaged.
        """
        check_available(self)
        check_pictures(images, "images")
        network = TfliteNetwork(self._file)
        masks = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
        for index in range(len(images)):
            picture = images[index : index + 1].detach().float().cpu().clamp(0, 1)
            masks[index] = self._map(network, picture)[0] > self.threshold
            report(progress, index + 1, len(images))
        return of_one_object(
            masks, name="person", low_confidence=True, provider=f"{self.name} {self.version}"
        )

    def _map(self, network: TfliteNetwork, picture: Tensor) -> Float[Tensor, "1 1 h w"]:
        found = _seen(network, picture)
        for rows, columns in _tiles(picture.shape[2], picture.shape[3], self.tiles):
            part = found[:, :, rows, columns]
            part.copy_(torch.maximum(part, _seen(network, picture[:, :, rows, columns])))
        return found


def _seen(network: TfliteNetwork, picture: Tensor) -> Tensor:
    resized = F.interpolate(picture, network.size, mode="bilinear", antialias=True)
    return F.interpolate(network(resized), picture.shape[2:], mode="bilinear")


def _tiles(height: int, width: int, count: int) -> list[tuple[slice, slice]]:
    """Squares of the smaller side, evenly spread; none in a square picture."""
    side, room = min(height, width), max(height, width) - min(height, width)
    if room == 0 or count == 0:
        return []
    starts = sorted({round(room * index / max(1, count - 1)) for index in range(count)})
    whole = slice(0, side)
    spans = [slice(start, start + side) for start in starts]
    return [(whole, span) if width > height else (span, whole) for span in spans]


class Mask2FormerSegmenter:
    """Mask2Former (panoptic or instance, COCO classes) through transformers, from a local folder.

    Args:
        folder: with ``config.json``, weights and ``preprocessor_config.json``.
        movable: names of classes that may move.
        carried: names of classes that may where they touch a person.
        stuff: names of classes that are masked without being objects.
        threshold: score that a segment needs; low, for masks are to be greedy.
        device: to work on.
    """

    name = "mask2former"
    licence = "as its weights say"
    needs = ("the package transformers", "a local folder with the model")

    def __init__(
        self,
        folder: str | Path,
        *,
        movable: Collection[str] = MOVABLE_CLASSES,
        carried: Collection[str] = CARRIED_CLASSES,
        stuff: Collection[str] = MOVING_STUFF,
        threshold: float = 0.3,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 < threshold < 1:
            raise InvalidInputError(f"threshold is {threshold}; expected a number in (0, 1).")
        self.folder, self.threshold, self.device = Path(folder), threshold, device
        self.movable, self.carried, self.stuff = set(movable), set(carried), set(stuff)
        self.version = self.folder.name

    def available(self) -> str | None:
        """Why it cannot work."""
        if not (self.folder / "config.json").is_file():
            return (
                f"There is no config.json in {self.folder}; put the files of a model such as "
                "facebook/mask2former-swin-large-coco-panoptic there."
            )
        if importlib.util.find_spec("transformers") is None:
            return "The package transformers is missing; pip install transformers."
        return None

    def segment(
        self, images: Shaped[Tensor, "..."], *, progress: Progress | None = None
    ) -> MovableMasks:
        """Find segments of the classes that may move.

        Raises:
            InvalidInputError: no pictures, or no such model in the folder.
            MissingDependencyError: transformers or the folder is missing.
        """
        check_available(self)
        check_pictures(images, "images")
        processor, model = self._load()
        names = {int(key): str(value) for key, value in model.config.id2label.items()}
        size = (images.shape[2], images.shape[3])
        masks, labels, classes = [], [], []
        for index in range(len(images)):
            pixels = processor(
                images=images[index].detach().float().cpu().clamp(0, 1),
                do_rescale=False,
                return_tensors="pt",
            ).to(self.device)
            with torch.no_grad():
                outputs = model(**pixels)
            (found,) = processor.post_process_panoptic_segmentation(
                outputs, threshold=self.threshold, target_sizes=[size]
            )
            segments = [
                (names[one["label_id"]], found["segmentation"].cpu() == one["id"])
                for one in found["segments_info"]
            ]
            mask, label, named = chosen(segments, size, self.movable, self.carried, self.stuff)
            masks.append(mask)
            labels.append(label)
            classes.append(named)
            report(progress, index + 1, len(images))
        return MovableMasks(
            torch.stack(masks).float()[:, None],
            torch.stack(labels),
            tuple(classes),
            low_confidence=False,
            provider=f"{self.name} {self.version}",
        )

    def _load(self) -> tuple[Any, Any]:
        transformers = require(
            "transformers", extra="curate", purpose="find what may move with Mask2Former"
        )
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(
                self.folder, local_files_only=True
            )
            model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInputError(
                f"mask2former {self.folder} cannot be loaded ({error}); put config.json, "
                "model.safetensors and preprocessor_config.json of one model there."
            ) from error
        return processor, model.to(self.device).eval()


def chosen(
    segments: Sequence[tuple[str, Bool[Tensor, "h w"]]],
    size: tuple[int, int],
    movable: Collection[str],
    carried: Collection[str],
    stuff: Collection[str],
) -> tuple[Tensor, Tensor, Mapping[int, str]]:
    """Mask (H, W), labels (H, W) and names of a frame's segments that may move.

    Args:
        segments: class and place of each.
        size: (height, width) of the frame.
        movable: names of classes that may move.
        carried: of those that do where they touch a person.
        stuff: of those that are masked without being objects.
    """
    mask, labels = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.long)
    classes = dict[int, str]()
    persons = torch.zeros(size, dtype=torch.bool)
    for name, place in segments:
        if name == "person":
            persons |= place
    near = F.max_pool2d(persons.float()[None, None], 2 * _TOUCHING + 1, 1, _TOUCHING)[0, 0] > 0
    for name, place in segments:
        plain = _without_ending(name)
        is_object = name in movable or (name in carried and bool((near & place).any()))
        if is_object:
            classes[len(classes) + 1] = name
            labels[place] = len(classes)
        if is_object or name in stuff or plain in stuff:
            mask |= place
    return mask, labels, classes


def _without_ending(name: str) -> str:
    """The panoptic set's "sky-other-merged" is "sky"."""
    for ending in _STUFF_ENDINGS:
        name = name.removesuffix(ending)
    return name
