"""UNet weights on disk: finding, recognising, checking, loading and saving them.

Only safetensors are read. Nothing is loaded unless every key and shape fits.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InvalidInputError, WeightsError
from ..files import write_atomically
from .config import GenXDUNetConfig
from .unet import GenXDUNet

__all__ = [
    "CONFIG_TENSOR",
    "UNetWeights",
    "check_state_dict",
    "find_unet_file",
    "load_unet",
    "read_safetensors",
    "read_unet",
    "save_unet",
]

CONFIG_TENSOR = "genxd_config"  # bytes of the configuration, in files that ComfyUI saves
_FILE_NAME = "diffusion_pytorch_model.safetensors"
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.")
_PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
# Configurations that can be told by the shape of a file without one: width, count of keys.
_PRESETS = {(320, 1770): GenXDUNetConfig()}


@dataclass(frozen=True)
class UNetWeights:
    """A checked UNet file.

    Attributes:
        path: the file.
        config: what network it is for.
        state_dict: its tensors, under the network's own keys, in the file's precision.
        metadata: the strings stored in the file.
    """

    path: Path
    config: GenXDUNetConfig
    state_dict: dict[str, Tensor]
    metadata: dict[str, str]


def load_unet(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> GenXDUNet:
    """Load a UNet from a file or a folder.

    Args:
        path: a folder in the released layout (with ``unet/`` in it, or that folder itself), or a
            ``.safetensors`` file; keys may carry a checkpoint's prefix such as
            ``model.diffusion_model.``. The configuration comes from the file's metadata
            (``genxd_config``), ``<stem>.json``, ``config.json`` beside it, or, for the released
            shapes, is known.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        WeightsError: there is no such file, it cannot be read, it holds another model, or keys
            or shapes do not fit; nothing is loaded then.
    """
    weights = read_unet(path)
    with torch.device("meta"):
        unet = GenXDUNet(weights.config)
    # A file is memory-mapped: a copy keeps working when the file is replaced.
    state = {k: v.to(device, dtype, copy=True) for k, v in weights.state_dict.items()}
    unet.load_state_dict(state, strict=True, assign=True)
    return unet.eval().requires_grad_(False)


def read_unet(path: str | Path) -> UNetWeights:
    """Read and check a UNet file without building the network.

    Args:
        path: as for `load_unet`.

    Raises:
        WeightsError: as `load_unet`.
    """
    file = find_unet_file(path)
    raw, metadata = read_safetensors(file)
    if CONFIG_TENSOR in raw:
        metadata = {**metadata, "genxd_config": bytes(raw.pop(CONFIG_TENSOR).tolist()).decode()}
    state = strip_prefix(raw)
    _refuse_other_models(file, state)
    config = _find_config(file, state, metadata)
    check_state_dict(state, config, source=str(file))
    return UNetWeights(file, config, state, metadata)


def save_unet(unet: GenXDUNet, path: str | Path, *, metadata: dict[str, str] | None = None) -> Path:
    """Save a UNet to a ``.safetensors`` file, or into a folder in the released layout.

    The configuration goes into the file's metadata, so that the file can be loaded by itself.

    Args:
        unet: the network.
        path: a file name ending in ``.safetensors``, or a folder (made if needed).
        metadata: further strings to store, for instance under which licence the weights come.

    Returns:
        The file written; it appears whole or not at all.
    """
    path = Path(path)
    is_file = path.suffix == ".safetensors"
    file = path if is_file else path / _FILE_NAME
    meta = {**(metadata or {}), "genxd_config": json.dumps(unet.config.to_dict())}
    state = {key: value.detach().contiguous() for key, value in unet.state_dict().items()}
    write_atomically(file, lambda unfinished: save_file(state, unfinished, metadata=meta))
    if not is_file:
        unet.config.to_json(path / "config.json")
    return file


def find_unet_file(path: str | Path) -> Path:
    """The UNet file that a path stands for.

    Raises:
        WeightsError: nothing is there, or a folder has no UNet file in it.
    """
    path = Path(path)
    if path.is_dir():
        for candidate in (path / "unet" / _FILE_NAME, path / _FILE_NAME):
            if candidate.is_file():
                return candidate
        raise WeightsError(
            f"{path} has no UNet in it: expected unet/{_FILE_NAME} or {_FILE_NAME}. Give the "
            "folder that holds unet/ and vae/, or a .safetensors file."
        )
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; give a .safetensors file or a folder.")
    return path


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        WeightsError: the file is empty, truncated, a pickle, or not a safetensors file.
    """
    size = path.stat().st_size
    if size == 0:
        raise WeightsError(f"{path} is empty (0 bytes); download or copy it again.")
    with path.open("rb") as stream:
        head = stream.read(8)
        length = int.from_bytes(head, "little") if len(head) == 8 else 0
        usable = 2 <= length <= 100_000_000
        # The length of a good header may begin with the same byte as a pickle.
        is_pickle = head[:2] == b"PK" or head[:1] == b"\x80"
        if path.suffix.lower() in _PICKLES or (
            is_pickle and not (usable and path.suffix == ".safetensors")
        ):
            raise WeightsError(
                f"{path} is a pickle, which can run code when it is opened, and is not read. "
                "Convert it to safetensors first, or get the .safetensors file."
            )
        if not usable:
            raise WeightsError(f"{path} is not a safetensors file ({size} bytes).")
        text = stream.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        metadata = header.pop("__metadata__", {})
        last = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file, or is cut off in its header ({size} bytes)."
        ) from error
    expected = 8 + length + last
    if size < expected:
        raise WeightsError(
            f"{path} is cut off: {size} bytes of {expected}; download or copy it again."
        )
    try:
        return load_file(path), metadata
    except SafetensorError as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}.") from error


def strip_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's own entries of a checkpoint, under the UNet's own keys."""
    for prefix in _PREFIXES:
        inside = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        if inside:
            return inside
    return state


def check_state_dict(
    state: dict[str, Tensor], config: GenXDUNetConfig, *, source: str = "state dict"
) -> None:
    """Compare keys and shapes with those of a network.

    Raises:
        WeightsError: with the numbers of missing, unexpected and misshaped keys, and up to ten of
            each by name.
    """
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in GenXDUNet(config).state_dict().items()}
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    misshaped = [
        f"{key} {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in state and state[key].shape != shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    if any(problems.values()):
        told = "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:10])}{', ...' if len(keys) > 10 else ''})"
            for kind, keys in problems.items()
            if keys
        )
        raise WeightsError(
            f"{source} does not fit the GenXD network of its configuration: {told}. "
            "Nothing was loaded. Is the config.json the one that belongs to it?"
        )


def _refuse_other_models(path: Path, state: dict[str, Tensor]) -> None:
    if any(".mv_res_block." in key for key in state):
        return
    keys = set(state)

    def some(*parts: str) -> bool:
        return any(all(part in key for part in parts) for key in keys)

    if some("time_mixer.mix_factor") and some("attn2"):
        what = (
            "an SVD UNet. GenXD starts from it but is another network; init_unet_from_svd "
            "makes an untrained GenXD network of it"
        )
    elif some("input_blocks.") and some("time_stack"):
        what = "an SVD checkpoint in its original layout, not GenXD"
    elif some("input_blocks.") or some("down_blocks.", "attn2"):
        what = "a Stable Diffusion model, not GenXD"
    elif some("encoder.", "conv") and some("decoder.", "conv"):
        what = "a VAE, not a UNet. GenXD's folder has the UNet in unet/"
    elif some("lora_"):
        what = "a LoRA, not a whole model; load it with a LoRA loader on top of GenXD"
    else:
        what = f"not a GenXD UNet ({len(keys)} tensors, such as {', '.join(sorted(keys)[:3])})"
    raise WeightsError(f"{path} is {what}. Nothing was loaded.")


def _find_config(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> GenXDUNetConfig:
    try:
        if "genxd_config" in metadata:
            return GenXDUNetConfig.from_dict(json.loads(metadata["genxd_config"]))
        for beside in (path.with_suffix(".json"), path.with_name("config.json")):
            if beside.is_file():
                return GenXDUNetConfig.from_json(beside)
    except (InvalidInputError, json.JSONDecodeError, TypeError) as error:
        raise WeightsError(f"the configuration of {path} cannot be used: {error}") from error
    conv_in = state.get("conv_in.weight")
    width = conv_in.shape[0] if conv_in is not None else 0
    preset = _PRESETS.get((width, len(state)))
    if preset is None:
        raise WeightsError(
            f"{path} has no configuration: none in its metadata, no {path.stem}.json and no "
            "config.json beside it, and it does not have the released model's shapes. Put the "
            "config.json that belongs to it in the same folder."
        )
    return preset
