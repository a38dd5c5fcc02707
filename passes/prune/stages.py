"""Channels of which every stage of a UNet keeps one number, as its class in diffusers has it.

There a stage has one width: that of its residual stream, of what is inside its resnets and of its attention, and a
fourth of its feed-forward layers' features; and the embedding of timesteps is four times as wide as the first stage.
Where a group of a joined skip connection straddles two widths, it has other neighbours afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.shapes import shape_of
from .channels import Channels
from .families import Family, cells_of, layers

SIDES = re.compile(r"(down|up)_blocks\.(\d+)\.|(mid_block)\.|conv_in\.|conv_norm_out\.|time_embedding\.")
WIDTH = re.compile(r"down_blocks\.(\d+)\.resnets\.\d+\.conv1\.weight")


def stage_families(graph: ir.Graph, channels: Channels, wanted_by: str) -> list[tuple[Family, int, int]]:
    """Each with the width of its stage and the number that its width has to be a multiple of.

    ``channels`` are found with heads parted. Raises UserError if weights have other names than diffusers gives them, or
    widths are none of a stage's.
    """
    widths = _widths(graph, wanted_by)
    unit = _units(graph)
    found: list[tuple[Family, int, int]] = []
    for members in layers(channels)[1].values():
        mine = set(members)
        names = [
            name for name, axis in channels.produced if mine.intersection(channels.axes[name][axis].tolist())
        ]
        width = {widths[_stage(name, len(widths), wanted_by)] for name in names}
        cells = cells_of(
            members, [(ids, count) for ids, count in channels.norms if mine.issuperset(ids.tolist())]
        )
        if len(width) > 1 or len(members) % min(width) or len({len(one) for one in cells}) > 1:
            raise UserError(
                f"pass {wanted_by}: {len(members)} channels of {names[0]} are no multiple of its stage's width "
                f"{min(width)}; take widths = 'free'."
            )
        found.append((cells, min(width), unit[min(width)]))
    return found


def kept(width: int, unit: int, share: float) -> int:
    """Of a stage's width what is left when at most ``share`` of it goes."""
    return max(math.ceil((1 - share) * width / unit - 1e-9), 1) * unit


def _widths(graph: ir.Graph, wanted_by: str) -> list[int]:
    """Of all stages, from the outermost in."""
    found = {
        int(match[1]): shape_of(value)[0]
        for name, value in graph.initializers.items()
        if (match := WIDTH.fullmatch(name)) and value.uses()
    }
    if not found or sorted(found) != list(range(len(found))):
        raise UserError(
            f"pass {wanted_by}: widths = 'stages' goes with a UNet of diffusers, whose weights are called "
            "down_blocks.0.resnets.0.conv1.weight and so on; take widths = 'free'."
        )
    return [found[stage] for stage in range(len(found))]


def _stage(name: str, count: int, wanted_by: str) -> int:
    match = SIDES.match(name)
    if match is None:
        raise UserError(
            f"pass {wanted_by}: {name} is in no stage of a UNet of diffusers; take widths = 'free'."
        )
    side, number, middle = match.groups()
    if middle:
        return count - 1
    return 0 if side is None else int(number) if side == "down" else count - 1 - int(number)


def _units(graph: ir.Graph) -> Mapping[int, int]:
    """By width, what has to divide it: groups of normalisations, and heads."""
    groups = math.lcm(
        *(one.attributes.get_int("num_groups", 1) for one in graph if one.op_type == "GroupNormalization")
    )
    found: dict[int, int] = {}
    for name, value in graph.initializers.items():
        if WIDTH.fullmatch(name):
            found[shape_of(value)[0]] = groups
    for node in graph:
        if node.op_type == "Attention" and node.inputs[0] is not None:
            width = shape_of(node.inputs[0])[2]
            if width in found:
                found[width] = math.lcm(found[width], node.attributes.get_int("q_num_heads", 1))
    return found
