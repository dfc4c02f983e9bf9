"""GenXD as a native ComfyUI MODEL. The one file that knows both the network and the backend.

Frames ride on the batch axis, as SVD's do: a LATENT is (F, 4, h, w) in VAE units. Raw values of
the condition sit in the CONDITIONING dict under ``genxd_`` names; `GenXDBase.extra_conds` turns
them into tensors for the noise at hand, and `ComfyGenXDUNet` assembles the network's input.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ..genxd_core.cameras.cameras import Cameras
from ..genxd_core.cameras.rays import plucker_rays
from ..genxd_core.errors import InvalidInputError, WeightsError
from ..genxd_core.model.conditioning import MODE_VIDEO
from ..genxd_core.model.config import GenXDUNetConfig
from ..genxd_core.model.embeddings import sinusoid
from ..genxd_core.model.unet import GenXDUNet
from ..genxd_core.model.weights import CONFIG_TENSOR, UNetWeights, read_unet
from ..genxd_core.sizes import check_size

__all__ = ["SIGMA_MAX", "SIGMA_MIN", "condition_values", "load_genxd_model"]

SIGMA_MIN, SIGMA_MAX = 0.002, 700.0
_NETWORK_CHANNELS = 15  # 4 latent, 4 zero, 6 of rays, 1 of the mask
_LATENT_CHANNELS = 4
_ADDED_IDS = 2
_WRAPPERS = comfy.patcher_extension.WrappersMP


def condition_values(
    *,
    context_latent: Tensor,
    context_mask: Tensor,
    cameras: Cameras,
    reference: int,
    indicator: int,
    motion_strength: float,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the positive and the negative CONDITIONING carry.

    Args:
        context_latent: (F, 4, h, w) clean latents in VAE units, zero at frames to generate.
        context_mask: (F,) 1 at conditioned frames.
        cameras: F cameras.
        reference: position of the first conditioned view.
        indicator: the mode's number.
        motion_strength: what the network takes.
    """
    positive = {
        "genxd_context_latent": context_latent,
        "genxd_context_mask": context_mask,
        "genxd_cameras": cameras,
        "genxd_reference": reference,
        "genxd_indicator": indicator,
        "genxd_motion_strength": motion_strength,
    }
    return positive, {**positive, "genxd_uncond": True}


class ComfyAttentionHooks:
    """ComfyUI's attn1 patches around the spatial self-attention, whose tokens are a picture's.

    As with SVD in ComfyUI, they do not reach the layers over views and time: patches take tokens
    to be the pixels of one frame.
    """

    def __init__(self, transformer_options: dict[str, Any]) -> None:
        self.options = transformer_options
        self.patches = transformer_options.get("patches", {})

    def before(self, x: Tensor, **call: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Apply every ``attn1_patch``."""
        q = k = v = x
        if call["branch"] == "spatial":
            for patch in self.patches.get("attn1_patch", []):
                q, k, v = patch(q, k, v, _extra_options(self.options, call, x))
        return q, k, v

    def after(self, x: Tensor, **call: Any) -> Tensor:
        """Apply every ``attn1_output_patch``."""
        if call["branch"] == "spatial":
            for patch in self.patches.get("attn1_output_patch", []):
                x = patch(x, _extra_options(self.options, call, x))
        return x


def comfy_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, *, transformer_options: dict[str, Any], **call: Any
) -> Tensor:
    """ComfyUI's attention, or what a node put in place of this block's spatial one."""
    replacements = transformer_options.get("patches_replace", {}).get("attn1", {})
    if replacements and call["branch"] == "spatial":
        block = call["block"]
        replace = replacements.get((*block, 0), replacements.get(block))
        if replace is not None:
            extra = _extra_options(transformer_options, {**call, "heads": heads}, q)
            replaced: Tensor = replace(q, k, v, extra)
            return replaced
    out: Tensor = optimized_attention(q, k, v, heads, transformer_options=transformer_options)
    return out


def _extra_options(
    transformer_options: dict[str, Any], call: dict[str, Any], tokens: Tensor
) -> dict[str, Any]:
    """What ComfyUI's own networks tell the patches of an attention."""
    kept = {k: v for k, v in transformer_options.items() if k not in ("patches", "patches_replace")}
    return {
        **kept,
        "n_heads": call["heads"],
        "dim_head": tokens.shape[-1] // call["heads"],
        "attn_precision": None,
        "block": call["block"],
        "block_index": 0,
    }


class ComfyGenXDUNet(GenXDUNet):
    """The network behind the call that ComfyUI makes of a diffusion model."""

    def __init__(
        self,
        genxd_config: dict[str, Any],
        *,
        model_channels: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        # model_channels is there for nodes that look it up in the configuration (FreeU, HyperTile).
        super().__init__(
            GenXDUNetConfig.from_dict(genxd_config),
            operations=operations,
            dtype=dtype,
            device=device,
            attention=comfy_attention,
        )
        self.dtype = dtype

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> Tensor:
        """Predict v for (B F, 4, h, w) scaled noisy latents; ``conds`` are those of extra_conds."""
        options = {} if transformer_options is None else transformer_options
        wrappers = comfy.patcher_extension.get_all_wrappers(_WRAPPERS.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._denoise, self, wrappers
        )
        out: Tensor = executor.execute(x, timesteps, context, control, options, **conds)
        return out

    def _denoise(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        *,
        ctx_latent: Tensor,
        ctx_mask: Tensor,
        rays: Tensor,
        added_sinusoids: Tensor,
        num_video_frames: int,
        indicator: int,
        motion_sinusoid: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        options = {} if transformer_options is None else transformer_options
        if control is not None:
            raise InvalidInputError(
                "a ControlNet is connected, but there are none for GenXD; remove it from the "
                "conditioning."
            )
        views = num_video_frames
        # Guidance puts several conditions in one batch; each must have whole clips.
        if x.shape[0] % (views * len(options.get("cond_or_uncond", [0]))):
            raise InvalidInputError(
                f"the network is given {x.shape[0]} frames of paths with {views}; sample the "
                "latent of GenXD Condition Views, repeated or not, with all of its frames at once."
            )
        clips = x.shape[0] // views
        latents = torch.where(ctx_mask > 0.5, ctx_latent, x)
        sample = torch.cat([latents, torch.zeros_like(latents), rays, ctx_mask], dim=1)
        options = {**options, "original_shape": list(x.shape)}
        hooked = any(name in options.get("patches", {}) for name in _ATTENTION_PATCHES)
        predicted = self.forward_embedded(
            sample.unflatten(0, (clips, views)),
            time_sinusoid=sinusoid(timesteps[::views], self.config.block_out_channels[0]),
            added_sinusoids=added_sinusoids.unflatten(0, (clips, views)),
            motion_sinusoid=None if motion_sinusoid is None else motion_sinusoid[::views],
            indicator=(int(indicator),) * clips,
            transformer_options=options,
            hooks=ComfyAttentionHooks(options) if hooked else None,
        )
        return predicted.flatten(0, 1)

    def after_input_layer(
        self, x: Tensor, block: tuple[str, int], options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Apply ComfyUI's patches of input blocks."""
        transformer_options = {**options["transformer_options"], "block": block}
        patches = transformer_options.get("patches", {})
        for patch in patches.get("input_block_patch", []):
            x = patch(x, transformer_options)
        skip = x
        for patch in patches.get("input_block_patch_after_skip", []):
            x = patch(x, transformer_options)
        return x, skip

    def before_output_layer(
        self, x: Tensor, skip: Tensor, block: tuple[str, int], options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Apply ComfyUI's patches of output blocks."""
        transformer_options = {**options["transformer_options"], "block": block}
        for patch in transformer_options.get("patches", {}).get("output_block_patch", []):
            x, skip = patch(x, skip, transformer_options)
        return x, skip


_ATTENTION_PATCHES = ("attn1_patch", "attn1_output_patch")


class GenXDBase(comfy.model_base.BaseModel):
    """ComfyUI's model around the network: what conditions it, and how it is sampled."""

    def __init__(
        self, model_config: "GenXDComfyConfig", device: torch.device | None = None
    ) -> None:
        super().__init__(
            model_config,
            comfy.model_base.ModelType.V_PREDICTION_EDM,
            device=device,
            unet_model=ComfyGenXDUNet,
        )

    def extra_conds(self, **values: Any) -> dict[str, Any]:
        """Tensors of one CONDITIONING entry for the noise at hand."""
        if "genxd_cameras" not in values:
            raise InvalidInputError(
                "this conditioning was not made for GenXD: connect the positive and negative "
                "outputs of GenXD Condition Views to the sampler."
            )
        noise: Tensor = values["noise"]
        unconditional = values.get("prompt_type") == "negative" or values.get("genxd_uncond", False)
        latent, mask = values["genxd_context_latent"], values["genxd_context_mask"]
        self._check_latents(noise, latent, values.get("latent_image"))
        return self._conds(values, noise, latent, mask, unconditional)

    def _conds(
        self,
        values: dict[str, Any],
        noise: Tensor,
        latent: Tensor,
        mask: Tensor,
        unconditional: bool,
    ) -> dict[str, Any]:
        network = self.diffusion_model.config
        frames, (height, width) = len(mask), noise.shape[-2:]
        indicator = int(values["genxd_indicator"])
        plane = mask.float().view(-1, 1, 1, 1).expand(-1, 1, height, width).clone()
        strength = 0.0 if unconditional else float(values["genxd_motion_strength"])
        ids = torch.zeros(frames, _ADDED_IDS)
        if not network.motion_condition:
            ids[:, 0] = strength  # networks without an embedding of their own take it so
        rays = torch.zeros(frames, 6, height, width)
        if unconditional:
            clean = torch.zeros_like(latent)
        else:
            clean = self.process_latent_in(latent) * mask.view(-1, 1, 1, 1)
            if indicator != MODE_VIDEO:
                ids[:, 1] = 1.0
                rays = plucker_rays(
                    values["genxd_cameras"],
                    height=height,
                    width=width,
                    reference=values["genxd_reference"],
                )
        # Sinusoids are made here, in float32: the backend casts what it passes on.
        added = sinusoid(ids, network.addition_time_embed_dim).flatten(1)
        shaped = {"ctx_latent": clean, "ctx_mask": plane, "rays": rays}
        vectors = {"added_sinusoids": added}
        if network.motion_condition:
            strengths = torch.full((frames,), strength)
            vectors["motion_sinusoid"] = sinusoid(strengths, network.block_out_channels[0])
        # Here once, not in every step.
        device = values.get("device", noise.device)
        return {
            **{k: comfy.conds.CONDNoiseShape(v.to(device)) for k, v in shaped.items()},
            **{k: comfy.conds.CONDRegular(v.to(device)) for k, v in vectors.items()},
            # Plain ints, equal in both branches, so that guidance runs them in one call.
            "num_video_frames": comfy.conds.CONDConstant(frames),
            "indicator": comfy.conds.CONDConstant(indicator),
        }

    def _check_latents(self, noise: Tensor, latent: Tensor, start: Tensor | None) -> None:
        if noise.dim() != 4 or noise.shape[1] != latent.shape[1]:
            raise InvalidInputError(
                f"latent_image has shape {tuple(noise.shape)}, expected (frames, 4, height, "
                "width); use the latent output of GenXD Condition Views."
            )
        height, width = noise.shape[-2:]
        check_size(height * 8, width * 8, multiple=8 * self.diffusion_model.config.stride)
        if latent.shape[-2:] != noise.shape[-2:]:
            raise InvalidInputError(
                f"latent_image is {width}x{height} but the conditioned views were encoded at "
                f"{latent.shape[-1]}x{latent.shape[-2]} latent pixels; run GenXD Condition Views "
                "again at the size to be sampled."
            )
        if noise.shape[0] % latent.shape[0]:
            raise InvalidInputError(
                f"latent_image has {noise.shape[0]} frames, but the camera path has "
                f"{latent.shape[0]}; use the latent output of GenXD Condition Views."
            )
        if not all(bool(x.isfinite().all()) for x in (noise, start) if x is not None):
            raise InvalidInputError(
                "latent_image or its noise holds values that are not finite (NaN or infinity); "
                "look at the node before."
            )

    def resize_cond_for_context_window(self, *_: Any, **__: Any) -> Any:
        """Refuse context windows: rays and conditioned views belong to the path as a whole."""
        raise InvalidInputError(
            "context windows cannot split a GenXD path: all of its frames are made together. "
            "Remove the context window node; GenXD Sample Path makes long paths."
        )


class GenXDComfyConfig(comfy.supported_models_base.BASE):
    """ComfyUI's configuration object of a GenXD model."""

    unet_config: ClassVar[dict[str, Any]] = {}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    latent_format = comfy.latent_formats.SD15
    sampling_settings: ClassVar[dict[str, float]] = {
        "sigma_min": SIGMA_MIN,
        "sigma_max": SIGMA_MAX,
    }
    memory_usage_factor = 2.0

    def get_model(
        self, state_dict: dict[str, Tensor], prefix: str = "", device: torch.device | None = None
    ) -> GenXDBase:
        """Build the model."""
        return GenXDBase(self, device=device)

    def process_unet_state_dict_for_saving(
        self, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Under ComfyUI's prefix, with the configuration, so that a saved file can be loaded."""
        text = json.dumps(self.unet_config["genxd_config"]).encode()
        saved: dict[str, Tensor] = super().process_unet_state_dict_for_saving(state_dict)
        return {**saved, CONFIG_TENSOR: torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def load_genxd_model(
    path: str | Path,
    options: dict[str, Any] | None = None,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """Load a GenXD UNet as a MODEL.

    Args:
        path: what `genxd_core.load_unet` takes.
        options: ``dtype`` of the weights (None: ComfyUI chooses).
        disable_dynamic: ask for the plain patcher; the backend calls this function so.

    Raises:
        WeightsError: the file cannot be used.
    """
    options = dict(options or {})
    weights = read_unet(path)
    config = weights.config
    for name, value, expected in (
        ("in_channels", config.in_channels, _NETWORK_CHANNELS),
        ("out_channels", config.out_channels, _LATENT_CHANNELS),
        ("added ids", config.num_added_ids, _ADDED_IDS),
    ):
        if value != expected:
            raise WeightsError(
                f"{weights.path} has {value} for {name}, expected {expected}; it is a GenXD "
                "network for another kind of input."
            )
    patcher = _patch(weights, options.get("dtype"), disable_dynamic)
    patcher.cached_patcher_init = (load_genxd_model, (str(path), options))
    return patcher


def _patch(
    weights: UNetWeights, dtype: torch.dtype | None, disable_dynamic: bool
) -> comfy.model_patcher.ModelPatcher:
    management = comfy.model_management
    state = dict(weights.state_dict)
    config = GenXDComfyConfig(
        {
            "genxd_config": weights.config.to_dict(),
            "model_channels": weights.config.block_out_channels[0],
        }
    )
    device, offload = management.get_torch_device(), management.unet_offload_device()
    if dtype is None:
        dtype = management.unet_dtype(
            model_params=comfy.utils.calculate_parameters(state),
            supported_dtypes=config.supported_inference_dtypes,
            weight_dtype=comfy.utils.weight_dtype(state),
        )
    cast = management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast, device=device)
    model = config.get_model(state)
    # Looked up now, not at import: ComfyUI rebinds it when dynamic memory is available.
    kind = (
        comfy.model_patcher.ModelPatcher
        if disable_dynamic
        else comfy.model_patcher.CoreModelPatcher
    )
    patcher = kind(model, load_device=device, offload_device=offload)
    if not management.is_device_cpu(offload):
        model.to(offload)
    model.load_model_weights(state, "", assign=patcher.is_dynamic())
    patcher.add_wrapper_with_key(_WRAPPERS.OUTER_SAMPLE, "genxd_pin", pin_conditioned_latents)
    return patcher


def pin_conditioned_latents(
    executor: Any,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Give conditioned frames their clean latents back, bit for bit, after any sampler.

    A noise mask alone is exact for some samplers only, and wrong for several stages of sampling.
    """
    out: Tensor = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    for entry in (executor.class_obj.conds or {}).get("positive", []):
        latent, mask = entry.get("genxd_context_latent"), entry.get("genxd_context_mask")
        if latent is not None and mask is not None:
            out = out.clone()  # it may be the tensor that went in
            keep = mask.bool()
            clips = out.shape[0] // len(keep)
            out[keep.repeat(clips).to(out.device)] = latent[keep].repeat(clips, 1, 1, 1).to(out)
            break
    return out
