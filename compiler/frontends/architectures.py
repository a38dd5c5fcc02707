"""The denoising networks of diffusers that fick knows: where a pipeline keeps one, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...ir.errors import UserError

Shapes = dict[str, tuple[int, ...]]

TOKENS = 77
"""Of a prompt, as CLIP counts them."""


@dataclass(frozen=True)
class Architecture:
    """``folder`` is the component's in a pipeline. ``inputs`` gives the shapes of its inputs from its
    configuration: the sample first, batch 1. A model that is not ``resizable`` takes no other height and width.
    """

    folder: str
    inputs: Callable[[Any], Shapes]
    resizable: bool = True


def _unet(config: Any) -> Shapes:
    """Of UNet2DModel and UNet2DConditionModel."""
    shapes: Shapes = {"sample": _sample(config), "timestep": (1,)}
    context = getattr(config, "cross_attention_dim", None)
    if context is not None:
        # Some configurations give one width a block; the text encoder has one.
        shapes["encoder_hidden_states"] = (1, TOKENS, context if isinstance(context, int) else context[0])
    if getattr(config, "addition_embed_type", None) == "text_time":
        ids = 6 * config.addition_time_embed_dim
        shapes["text_embeds"] = (1, config.projection_class_embeddings_input_dim - ids)
        shapes["time_ids"] = (1, 6)
    if getattr(config, "num_class_embeds", None):
        shapes["class_labels"] = (1,)
    return shapes


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
    "UNet2DConditionModel": Architecture("unet", _unet),
    "UNet2DModel": Architecture("unet", _unet),
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
