"""Files that come with the package."""

from pathlib import Path

__all__ = ["LPIPS_HEADS", "NANO", "PERSON_SEGMENTER"]

NANO = Path(__file__).parent / "genxd-nano"
# The weights of layers of LPIPS v0.1, by the name of the network and the layer: "alex.0", ...
LPIPS_HEADS = Path(__file__).parent / "lpips-heads.safetensors"
# MediaPipe's selfie segmentation: 256 x 256 pixels, RGB in [0, 1]; gives how much of a person is.
PERSON_SEGMENTER = Path(__file__).parent / "selfie-segmentation.tflite"
