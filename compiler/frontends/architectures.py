"""The denoising networks of diffusers that fick knows: where a pipeline keeps one, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...ir.errors import UserError

Shapes = dict[str, tuple[int, ...]]

TOKENS = 77
"""Of a prompt, as CLIP counts them."""

FRAMES = 16
"""Of a video, as many as the pipelines of diffusers draw unless they are told otherwise."""


@dataclass(frozen=True)
class Architecture:
    """``folder`` is the component's in a pipeline. ``inputs`` gives the shapes of its inputs from its
    configuration: the sample first, batch 1. A model that is not ``resizable`` takes no other height and width.
    ``channels`` is their axis in the sample.
    """

    folder: str
    inputs: Callable[[Any], Shapes]
    resizable: bool = True
    channels: int = 1


def _unet(config: Any) -> Shapes:
    """Of UNet2DModel and UNet2DConditionModel."""
    shapes: Shapes = {"sample": _sample(config), "timestep": (1,)}
    width = _width(getattr(config, "cross_attention_dim", None) or 0)
    given: int = getattr(config, "encoder_hid_dim", None) or width
    kind = getattr(config, "encoder_hid_dim_type", None)
    added = getattr(config, "addition_embed_type", None)
    if kind == "ip_image_proj" or added == "image_hint":
        raise UserError(
            f"a UNet that reads {'images of an adapter' if kind == 'ip_image_proj' else 'a hint'} is not supported; "
            "leave the adapter out, or compile a module of your own that takes tensors alone"
        )
    if width and kind != "image_proj":
        # What the text encoder gives may be projected to the width that the blocks read.
        shapes["encoder_hidden_states"] = (1, TOKENS, given)
    if added == "text_time":
        ids = 6 * config.addition_time_embed_dim
        shapes["text_embeds"] = (1, config.projection_class_embeddings_input_dim - ids)
        shapes["time_ids"] = (1, 6)
    if added == "text_image":
        shapes["text_embeds"] = (1, width)
    if kind in ("image_proj", "text_image_proj") or added in ("image", "text_image"):
        shapes["image_embeds"] = (1, width if kind == "text_image_proj" or added == "text_image" else given)
    if (labels := _labels(config)) is not None:
        shapes["class_labels"] = labels
    if getattr(config, "time_cond_proj_dim", None):
        # The guidance scale's embedding, of models that guidance was distilled into (arXiv 2210.03142).
        shapes["timestep_cond"] = (1, config.time_cond_proj_dim)
    return shapes


def _width(context: Any) -> int:
    """Some configurations give one width a block; what encodes the prompt has one."""
    return context if isinstance(context, int) else context[0]


def _labels(config: Any) -> tuple[int, ...] | None:
    """What classes are given as: their numbers, or vectors."""
    kind = getattr(config, "class_embed_type", None)
    if kind in ("projection", "simple_projection"):
        return 1, config.projection_class_embeddings_input_dim
    if kind == "identity":
        own, first = getattr(config, "time_embedding_dim", None), config.block_out_channels[0]
        return 1, own or first * 4
    return (1,) if kind == "timestep" or getattr(config, "num_class_embeds", None) else None


def _video(config: Any) -> Shapes:
    """Of UNet3DConditionModel: what a UNet of pictures reads, with frames behind the channels."""
    batch, channels, *size = _sample(config)
    return {**_unet(config), "sample": (batch, channels, FRAMES, *size)}


def _motion(config: Any) -> Shapes:
    """Of UNetMotionModel (Guo et al., arXiv 2307.04725), which reads the prompt once a frame."""
    shapes = _video(config)
    _, *text = shapes["encoder_hidden_states"]
    return {**shapes, "encoder_hidden_states": (FRAMES, *text)}


def _video_of_image(config: Any) -> Shapes:
    """Of I2VGenXLUNet (Zhang et al., arXiv 2311.04145): beside the prompt an image, as latents and as CLIP has it."""
    shapes = _video(config)
    embedded = (1, config.cross_attention_dim)
    return {**shapes, "fps": (1,), "image_latents": shapes["sample"], "image_embeddings": embedded}


def _stable_video(config: Any) -> Shapes:
    """Of UNetSpatioTemporalConditionModel (Blattmann et al., arXiv 2311.15127): frames come before the channels."""
    batch, channels, *size = _sample(config)
    given = config.projection_class_embeddings_input_dim // config.addition_time_embed_dim
    return {
        "sample": (batch, config.num_frames, channels, *size),
        "timestep": (1,),
        "encoder_hidden_states": (1, 1, _width(config.cross_attention_dim)),
        "added_time_ids": (1, given),
    }


def _dit(config: Any) -> Shapes:
    """Of a diffusion transformer (Peebles and Xie, arXiv 2212.09748)."""
    return {"hidden_states": _sample(config), "timestep": (1,), "class_labels": (1,)}


def _sample(config: Any) -> tuple[int, int, int, int]:
    size = config.sample_size or 64
    sizes = [size, size] if isinstance(size, int) else size
    if (
        not isinstance(sizes, list | tuple)
        or len(sizes) != 2
        or not all(isinstance(one, int) for one in sizes)
    ):
        raise UserError(f"sample_size of the configuration is {size!r}; it should be a number or two")
    height, width = sizes
    return 1, config.in_channels, height, width


ARCHITECTURES: Mapping[str, Architecture] = {
    "DiTTransformer2DModel": Architecture("transformer", _dit, resizable=False),
    "I2VGenXLUNet": Architecture("unet", _video_of_image),
    "UNet2DConditionModel": Architecture("unet", _unet),
    "UNet2DModel": Architecture("unet", _unet),
    "UNet3DConditionModel": Architecture("unet", _video),
    "UNetMotionModel": Architecture("unet", _motion),
    "UNetSpatioTemporalConditionModel": Architecture("unet", _stable_video, channels=2),
}
"""By the name of the class."""

FOLDERS = tuple(dict.fromkeys(one.folder for one in ARCHITECTURES.values()))


def class_name(config: Mapping[str, Any]) -> str:
    """The class that a configuration is of. The published DiTs name the one that theirs was split off from."""
    name = str(config.get("_class_name"))
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        return "DiTTransformer2DModel"
    return name


def architecture_of(module: Any) -> Architecture | None:
    """That of a torch module: of its class or one that it derives from."""
    names = [one.__name__ for one in type(module).__mro__]
    return next((ARCHITECTURES[name] for name in names if name in ARCHITECTURES), None)
