"""How diffusers and guided-diffusion call the modules of a UNet or a diffusion transformer."""

from __future__ import annotations

import re
from typing import Literal

import onnx_ir as ir

from .modules import module_path

MODULES: list[tuple[str, Literal["down_stage", "mid", "up_stage"] | None]] = [
    (r"(?:down_blocks|up_blocks)\.\d+\.(?:resnets|attentions)\.\d+", None),
    (r"mid_block\.(?:resnets|attentions)\.\d+", None),
    (r"(?:input_blocks|output_blocks)\.\d+\.\d+", None),
    (r"middle_block\.\d+", None),
    (r"down_blocks\.\d+", "down_stage"),
    (r"(?:mid_block|middle_block)", "mid"),
    (r"up_blocks\.\d+", "up_stage"),
]
"""Modules that are blocks, as regular expressions; None: the operators inside tell what kind of block."""

LAYER = r"transformer_blocks\.\d+"
PART = rf"{LAYER}\.(?:attn\d+|ff)"
"""A layer of a transformer, and its residual branches."""

DOWN = r"(?:conv_in|down_blocks\.\d+|input_blocks\.\d+)"
MIDDLE = r"(?:mid_block|middle_block)"


def enclosing(node: ir.Node, pattern: str) -> str | None:
    """Path of the innermost module so called that the node lies in."""
    found = re.match(rf"((?:.*\.)?{pattern})(?:\.|$)", module_path(node))
    return found[1] if found else None
