"""Picture sizes that a model can take."""

from .errors import InvalidInputError

__all__ = ["check_size", "nearest_sizes"]


def nearest_sizes(pixels: int, multiple: int) -> tuple[int, ...]:
    """The good sizes on either side of one: multiples of ``multiple``, at least one of it."""
    below = max(multiple, pixels // multiple * multiple)
    return (below,) if below >= pixels else (below, below + multiple)


def check_size(height: int, width: int, *, multiple: int, name: str = "") -> None:
    """Refuse a picture size that the network cannot halve often enough.

    Args:
        height: in pixels.
        width: in pixels.
        multiple: the VAE's factor times the UNet's stride (64 for the released model).
        name: of the argument that asks for the size; "" where pictures came with it.

    Raises:
        InvalidInputError: names the nearest good sizes.
    """
    if height < 1 or width < 1 or height % multiple or width % multiple:
        good = " and ".join(
            f"{side} {' or '.join(str(size) for size in nearest_sizes(value, multiple))}"
            for side, value in (("width", width), ("height", height))
            if value % multiple or value < 1
        )
        asked = f"{name} is" if name else "the pictures are"
        help = "" if name else " GenXD Fit Views (fit_views) makes such pictures."
        raise InvalidInputError(
            f"{asked} {width}x{height}; width and height must be multiples of {multiple} for this "
            f"model. Nearest: {good}.{help}"
        )
