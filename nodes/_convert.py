"""ComfyUI's layouts to the core's, and back."""

from torch import Tensor

__all__ = ["image_to_views", "mask_to_maps", "views_to_image"]


def image_to_views(image: Tensor) -> Tensor:
    """BHWC -> VCHW in [0, 1]; a fourth channel is left out."""
    return image[..., :3].movedim(-1, 1).clamp(0.0, 1.0).contiguous()


def views_to_image(views: Tensor) -> Tensor:
    """VCHW -> BHWC, float32 on the CPU."""
    return views.movedim(1, -1).float().cpu().contiguous()


def mask_to_maps(mask: Tensor) -> Tensor:
    """(B, H, W) -> (V, 1, H, W)."""
    return (mask if mask.dim() == 3 else mask[None])[:, None]
