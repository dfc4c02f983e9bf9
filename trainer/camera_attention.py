"""The variant "Camera CA" of App. G: cameras as 1-D embeddings through cross-attention, no rays.

Every frame's 3 x 4 pose and focal length become one token; a cross-attention layer between
self-attention and feed-forward of every spatial transformer lets a frame's pixels look at the
tokens of all frames of its clip, its own one marked. Attending to the own token alone would be
no attention: the softmax of one value is 1, and the layer would add the same vector everywhere.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int, Num
from safetensors.torch import save_file
from torch import Tensor, nn

from genxd_core.cameras.conventions import relative_c2w
from genxd_core.errors import InvalidInputError, WeightsError
from genxd_core.files import write_atomically
from genxd_core.model.config import GenXDUNetConfig
from genxd_core.model.embeddings import EmbeddingMLP
from genxd_core.model.transformer import AttentionFunction, MVTemporalTransformer, TransformerBlock
from genxd_core.model.unet import GenXDUNet
from genxd_core.model.weights import load_unet, read_safetensors

__all__ = [
    "CAMERA_VALUES",
    "VARIANT",
    "CameraAttentionUNet",
    "camera_vector",
    "load_network",
    "write_weights",
]

CAMERA_VALUES = 13
"""Numbers of one camera: 12 of the pose, one focal length."""
VARIANT = "camera_attention"
"""What ``config.json`` has under ``"variant"``."""

_FILE_NAME = "diffusion_pytorch_model.safetensors"
_RAYS = slice(8, 14)  # among the channels of the network's input


def camera_vector(
    c2w: Float[Tensor, "b v 4 4"], Ks_norm: Float[Tensor, "b v 3 3"], reference: Int[Tensor, "b"]
) -> Float[Tensor, "b v 13"]:
    """What `CameraAttentionUNet` is told of cameras (App. G).

    Args:
        c2w: camera-to-world poses, OpenCV axes, scene units.
        Ks_norm: normalised intrinsics.
        reference: each clip's reference view, in whose frame poses are given.

    Returns:
        The upper three rows of the pose, row by row, then the focal length over the picture's
        smaller side.
    """
    origin = c2w[torch.arange(len(c2w), device=c2w.device), reference.to(c2w.device)]
    rows = relative_c2w(c2w, origin[:, None])[..., :3, :].flatten(-2)
    focal = torch.maximum(Ks_norm[..., 0, 0], Ks_norm[..., 1, 1])
    return torch.cat([rows, focal[..., None].to(rows)], dim=-1)


class CameraCrossAttention(nn.Module):
    """Cross-attention from the tokens of a picture to those of cameras; starts by adding nothing.

    Args:
        dim: width of the picture's tokens.
        camera_dim: width of the cameras' tokens.
        heads: number of heads.
        attention: as of the network's self-attention.
        operations: namespace of layers.
        factory: ``dtype`` and ``device``.
    """

    def __init__(
        self,
        dim: int,
        camera_dim: int,
        heads: int,
        *,
        attention: AttentionFunction,
        operations: ModuleType | Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        ops = operations
        self.heads, self.attention = heads, attention
        self.to_q = ops.Linear(dim, dim, bias=False, **factory)
        self.to_k = ops.Linear(camera_dim, dim, bias=False, **factory)
        self.to_v = ops.Linear(camera_dim, dim, bias=False, **factory)
        last: nn.Linear = ops.Linear(dim, dim, **factory)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.to_out = nn.ModuleList([last])

    def forward(
        self, x: Float[Tensor, "n l c"], cameras: Float[Tensor, "n v e"]
    ) -> Float[Tensor, "n l c"]:
        """Attend from every token of a row to the row's cameras."""
        seen = self.attention(self.to_q(x), self.to_k(cameras), self.to_v(cameras), self.heads)
        out: Tensor = self.to_out[0](seen)
        return out


class CameraTransformerBlock(nn.Module):
    """A plain spatial transformer block with a cross-attention to cameras in its middle.

    The names of the plain block's parts stay, so that its weights fit; ``norm2`` and ``attn2`` are
    the places that cross-attention has in SVD.

    Args:
        block: whose parts are taken over.
        camera_dim: width of the cameras' tokens.
        operations: namespace of layers.
        factory: ``dtype`` and ``device``.
    """

    def __init__(
        self, block: TransformerBlock, camera_dim: int, *, operations: Any, **factory: Any
    ) -> None:
        super().__init__()
        dim = int(block.attn1.to_q.in_features)
        self.norm1, self.attn1 = block.norm1, block.attn1
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.attn2 = CameraCrossAttention(
            dim,
            camera_dim,
            block.attn1.heads,
            attention=block.attn1.attention,
            operations=operations,
            **factory,
        )
        self.norm3, self.ff = block.norm3, block.ff

    def forward(
        self, x: Float[Tensor, "n l c"], *, camera_tokens: Float[Tensor, "n v e"], **options: Any
    ) -> Float[Tensor, "n l c"]:
        """Run on the tokens of each frame; other options go to the self-attention."""
        x = x + self.attn1(self.norm1(x), **options)
        x = x + self.attn2(self.norm2(x), camera_tokens)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class CameraAttentionUNet(GenXDUNet):
    """`GenXDUNet` that is told cameras by cross-attention instead of rays (App. G, Table 10).

    As long as the new layers' output is zero, as at the start, it is the plain network without
    rays; its weights are drawn first, so that one seed gives both networks the same start.

    Args:
        config: as of `GenXDUNet`.
        operations: as there.
        dtype: as there.
        device: as there.
        attention: as there; also of the cross-attention.
    """

    def __init__(
        self,
        config: GenXDUNetConfig,
        *,
        operations: ModuleType | Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attention: AttentionFunction | None = None,
    ) -> None:
        factory: dict[str, Any] = {"dtype": dtype, "device": device}
        super().__init__(config, operations=operations, attention=attention, **factory)
        width = config.time_embed_dim
        self.camera_embedding = EmbeddingMLP(
            CAMERA_VALUES, width, width, operations=operations, **factory
        )
        self.own_camera = nn.Parameter(torch.empty(width, **factory))
        nn.init.normal_(self.own_camera, std=0.1)
        for transformer in [m for m in self.modules() if isinstance(m, MVTemporalTransformer)]:
            blocks = transformer.transformer_blocks
            for number, block in enumerate(blocks):
                assert isinstance(block, TransformerBlock)
                blocks[number] = CameraTransformerBlock(
                    block, width, operations=operations, **factory
                )

    def forward(
        self,
        sample: Float[Tensor, "b v i h w"],
        timestep: Num[Tensor, "*b1"] | float,
        *,
        added_time_ids: Num[Tensor, "b *v1 k"],
        indicator: Num[Tensor, "b"] | Any,
        motion_ids: Num[Tensor, "b"] | None = None,
        cameras: Float[Tensor, "b v 13"] | None = None,
        **attention_options: Any,
    ) -> Float[Tensor, "b v o h w"]:
        """Predict v for every frame.

        Args:
            sample: as of `GenXDUNet.forward`, rays included. They are replaced by zeros, and only
                tell which frames have a camera: where all of them are zero (a dropped condition,
                video mode), the frame's camera is not told either.
            timestep: as there.
            added_time_ids: as there.
            indicator: as there.
            motion_ids: as there.
            cameras: of `camera_vector`.
            attention_options: as there.

        Raises:
            InvalidInputError: there are no cameras, or not one for each frame; or as there.
        """
        shape = (*sample.shape[:2], CAMERA_VALUES)
        if cameras is None or tuple(cameras.shape) != shape:
            found = "missing" if cameras is None else f"of shape {tuple(cameras.shape)}"
            raise InvalidInputError(
                f"cameras is {found}, expected shape {shape}: this network is told cameras by "
                "cross-attention. Make them with camera_vector(c2w, Ks_norm, reference)."
            )
        told = (sample[:, :, _RAYS] != 0).flatten(2).any(dim=2)
        without_rays = sample.clone()
        without_rays[:, :, _RAYS] = 0
        return super().forward(
            without_rays,
            timestep,
            added_time_ids=added_time_ids,
            indicator=indicator,
            motion_ids=motion_ids,
            camera_tokens=self.camera_tokens(cameras.to(sample) * told[..., None]),
            **attention_options,
        )

    def camera_tokens(self, cameras: Float[Tensor, "b v 13"]) -> Float[Tensor, "bv v e"]:
        """For every frame the tokens of all cameras of its clip, its own one marked."""
        tokens: Tensor = self.camera_embedding(cameras)
        views = tokens.shape[1]
        own = torch.eye(views, dtype=tokens.dtype, device=tokens.device)
        marked = tokens[:, None] + own[None, :, :, None] * self.own_camera
        return rearrange(marked, "b v w e -> (b v) w e")

    def save(self, folder: str | Path, *, metadata: dict[str, str] | None = None) -> Path:
        """Write ``config.json`` and the weights into a folder; returns the weights' file."""
        return write_weights(Path(folder), self.config, self.state_dict(), metadata=metadata)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        attention: AttentionFunction | None = None,
    ) -> "CameraAttentionUNet":
        """Read what `save` wrote, for inference.

        Args:
            folder: with ``config.json`` and the weights.
            dtype: of the parameters.
            device: of the parameters.
            attention: as of the class.

        Raises:
            WeightsError: a file is missing or damaged, or belongs to another network.
        """
        folder = Path(folder)
        if _variant_of(folder) != VARIANT:
            raise WeightsError(
                f"{folder / 'config.json'} is missing or has no variant {VARIANT!r}; expected the "
                "folder of a network with camera attention. Load others with load_unet."
            )
        if not (folder / _FILE_NAME).is_file():
            raise WeightsError(f"{folder} has no {_FILE_NAME}; give the folder it was saved in.")
        state, _ = read_safetensors(folder / _FILE_NAME)
        with torch.device("meta"):
            network = cls(GenXDUNetConfig.from_json(folder / "config.json"), attention=attention)
        state = {key: value.to(device, dtype, copy=True) for key, value in state.items()}
        try:
            network.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            raise WeightsError(
                f"{folder / _FILE_NAME} does not fit its config.json, and nothing was loaded: "
                f"{error}"
            ) from error
        return network.eval().requires_grad_(False)


def write_weights(
    folder: Path,
    config: GenXDUNetConfig,
    state: dict[str, Tensor],
    *,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write weights of a `CameraAttentionUNet`, averaged ones for instance, for it to load.

    Args:
        folder: made if needed.
        config: of the network.
        state: by the network's own keys.
        metadata: further strings for the file.

    Returns:
        The file of the weights; files appear whole or not at all.
    """
    values = {"variant": VARIANT, **config.to_dict()}
    text = json.dumps(values, indent=2) + "\n"
    meta = {**(metadata or {}), "variant": VARIANT}
    tensors = {key: value.detach().contiguous() for key, value in state.items()}
    file = folder / _FILE_NAME
    write_atomically(file, lambda path: save_file(tensors, path, metadata=meta))
    write_atomically(folder / "config.json", lambda path: path.write_text(text, encoding="utf-8"))
    return file


def load_network(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> GenXDUNet:
    """Load the network of a run, a plain one or one with camera attention, for inference.

    Args:
        folder: a run's ``unet``, or any that `genxd_core.load_unet` reads.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        WeightsError: a file is missing or damaged, or belongs to another network.
    """
    if _variant_of(Path(folder)) is not None:
        return CameraAttentionUNet.load(folder, dtype=dtype, device=device)
    return load_unet(folder, dtype=dtype, device=device)


def _variant_of(folder: Path) -> str | None:
    """What ``config.json`` names as its variant; None without any."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{file} cannot be read as JSON ({error}).") from error
    variant = values.get("variant") if isinstance(values, dict) else None
    return None if variant is None else str(variant)
