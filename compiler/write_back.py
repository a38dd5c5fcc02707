"""A pruned UNet as a folder that diffusers loads: its class, a configuration of what is left, and its weights.

What there is of blocks, and how wide they are, is read off the weights that the program still reads, and said in the
configuration's own words; blocks are numbered anew. Whether the class then computes what the program does is not taken
on trust: both are given a call.

A UNet whose first width has changed would make other features of a timestep, for it has as many as that. Those of the
original are written as the class's Fourier features, whose frequencies are weights.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..ir.constants import numbers_of
from ..ir.errors import UserError, first_line
from ..ir.files import check_new_folder
from ..ir.interpreter import Interpreter
from ..ir.program import Program
from ..ir.shapes import shape_of
from ..passes.base import Context, Pass, apply
from ..passes.learned.blocks import LEARNED, DistilBlocks
from ..passes.prune import Prune, PruneBlocks, PruneChannels
from ..passes.prune.surgery import is_fitted
from .calibration import drawn_calls
from .frontends.torch_module import keywords

PRUNING = (Prune, PruneBlocks, PruneChannels)
WRITTEN = (*PRUNING, DistilBlocks)
"""Passes whose programs are UNets of floats."""

CLASS = "UNet2DConditionModel"
PLAIN = {"CrossAttnDownBlock2D": "DownBlock2D", "CrossAttnUpBlock2D": "UpBlock2D"}
"""Blocks of stages without attention, by those with it."""

BY_STAGE = (
    "attention_head_dim", "cross_attention_dim", "layers_per_block", "num_attention_heads", "only_cross_attention",
    "transformer_layers_per_block",
)  # fmt: skip
"""What a configuration says once, or once for every stage."""

TOLERANCE = 1e-3
"""Of an output: some thousand roundings to 24 bits one after the other, and frequencies times timesteps of 1000."""

PLACE = re.compile(
    r"(?P<side>down_blocks|up_blocks|mid_block)\.((?P<stage>\d+)\.)?(?P<kind>\w+)\.(?P<number>\d+)\.(?P<rest>.+)"
)

State = dict[str, NDArray[Any]]


def leading(passes: Sequence[Pass[Any]]) -> list[Pass[Any]]:
    """Those that prune, before any that does something else. Raises UserError if there is none."""
    found: list[Pass[Any]] = []
    for one in passes:
        if not isinstance(one, WRITTEN):
            break
        found.append(one)
    if not any(isinstance(one, PRUNING) for one in found):
        raise UserError(
            f"--write-back writes what {', '.join(one.name for one in PRUNING)} leave, and the recipe begins with "
            f"{passes[0].name if passes else 'nothing'}; put one of them first."
        )
    return found


def write_back(
    program: Program, passes: Sequence[Pass[Any]], context: Context, source: Any, folder: Path
) -> None:
    """What ``passes`` that prune make of ``program``, the UNet of ``source``, as a diffusers folder. Of a whole
    pipeline all else is copied.

    Raises UserError for what no configuration of the class says, naming it, and where the folder is taken.
    """
    check_new_folder(folder)
    config = _config(source)
    module = built(apply(passes, program, context), config)
    where = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        place: Path | None = getattr(source, "path", None)
        if place is not None and (place / "model_index.json").is_file():
            shutil.copytree(place, where, dirs_exist_ok=True, ignore=shutil.ignore_patterns("unet"))
            module.save_pretrained(where / "unet", safe_serialization=True)
        else:
            module.save_pretrained(where, safe_serialization=True)
        where.chmod(0o755)
        where.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(where, ignore_errors=True)


def built(program: Program, config: Mapping[str, Any]) -> Any:
    """A module of diffusers' class that computes what the program does, its weights being those of a UNet of ``config``
    or slices of them. Raises UserError for what there is no such module of.
    """
    import diffusers

    graph = program.variants["full"].graph
    fitted = sorted(
        name for name in graph.initializers if is_fitted(name) and graph.initializers[name].uses()
    )
    if fitted:
        raise UserError(
            f"{fitted[0].partition('/')[0]} is a map that was fitted in place of a block, which no configuration of "
            f"{CLASS} says; prune with repair = false, by identity or shortcut."
        )
    state = left(program)
    told, renamed = described(state, config)
    told, renamed = _timed(told, renamed, config)
    try:
        module = getattr(diffusers, CLASS).from_config(told)
    except Exception as error:  # Whatever diffusers raises on a configuration that does not fit together.
        raise UserError(
            f"{CLASS} cannot have the widths and blocks that are left: {first_line(error)}."
        ) from None
    _load(module.eval(), renamed)
    _check(module, program)
    return module


def left(program: Program) -> State:
    """The weights that a program reads, as far as slices leave them, under the names of the checkpoint."""
    graph = program.variants["full"].graph
    found: State = {}
    for name, value in graph.initializers.items():
        ours = name in program.weights or name.endswith(LEARNED)
        if value.const_value is None or not value.uses() or not ours:
            continue
        array = value.const_value.numpy()
        while (cut := _cut(value)) is not None:
            array = np.take(array, numbers_of(_input(cut, 1)), cut.attributes.get_int("axis", 0))
            value = cut.outputs[0]
        found[name.removesuffix(LEARNED)] = array
    for node in graph:
        scale = node.attributes.get_float("scale", 0.0) if node.op_type == "Attention" else 0.0
        name = _weight_of(_input(node, 0)) if scale else ""
        if name in found:
            wide = shape_of(_input(node, 0))[2] // node.attributes.get_int("q_num_heads", 1)
            # The class scales scores by the size that heads have now.
            found[name] = found[name] * np.float32(scale * math.sqrt(wide))
    return found


def described(state: State, config: Mapping[str, Any]) -> tuple[dict[str, Any], State]:
    """A configuration with the blocks and widths of what is left, and its weights under the names that it gives them.

    Raises UserError for numbers of blocks that no configuration has.
    """
    blocks = _blocks(state)
    down, up = (
        sorted({stage for side, stage in blocks if side == one}) for one in ("down_blocks", "up_blocks")
    )
    if len(down) != len(up):
        raise UserError(
            f"{len(down)} stages are left on the way down and {len(up)} on the way up; prune them alike."
        )
    told = dict(config)
    counts: list[int] = []
    for number, (below, above) in enumerate(zip(down, up[::-1], strict=True)):
        halves = blocks["down_blocks", below], blocks["up_blocks", above]
        ours, theirs = (len(one["resnets"]) for one in halves)
        if theirs != ours + 1:
            raise UserError(
                f"of stage {number} {ours} resnets are left on the way down and {theirs} on the way up, where {CLASS} "
                "has one more; prune both alike."
            )
        counts.append(ours)
    for key, stages, side in (("down_block_types", down, "down_blocks"), ("up_block_types", up, "up_blocks")):
        told[key] = [_type(blocks[side, stage], config[key][stage], f"{side}.{stage}") for stage in stages]
    told |= {
        key: [one[stage] for stage in down]
        for key in BY_STAGE
        if isinstance(one := config.get(key), list | tuple)
    }
    told["layers_per_block"] = counts[0] if len(set(counts)) == 1 else counts
    told["block_out_channels"] = [_width(state, stage) for stage in down]
    middle = blocks.get(("mid_block", 0))
    if middle is None:
        told["mid_block_type"] = None
    elif not middle["attentions"]:
        told["mid_block_type"] = "UNetMidBlock2D"
    order = {("down_blocks", stage): place for place, stage in enumerate(down)}
    order |= {("up_blocks", stage): place for place, stage in enumerate(up)}
    return told, {_renamed(name, blocks, order): array for name, array in state.items()}


Blocks = dict[tuple[str, int], dict[str, list[int]]]
"""By side and stage, the numbers of what there is, by kind."""


def _blocks(state: State) -> Blocks:
    found: Blocks = {}
    for name in state:
        if match := PLACE.match(name):
            kinds = found.setdefault(_block(match), {"resnets": [], "attentions": []})
            numbers = kinds.setdefault(match["kind"], [])
            if int(match["number"]) not in numbers:
                numbers.append(int(match["number"]))
    return {
        block: {kind: sorted(numbers) for kind, numbers in kinds.items()} for block, kinds in found.items()
    }


def _block(match: re.Match[str]) -> tuple[str, int]:
    return match["side"], int(match["stage"] or 0)


def _type(kinds: Mapping[str, list[int]], before: str, block: str) -> str:
    if not kinds["attentions"]:
        return PLAIN.get(before, before)
    if len(kinds["attentions"]) != len(kinds["resnets"]):
        raise UserError(
            f"of {block} {len(kinds['resnets'])} resnets and {len(kinds['attentions'])} transformers are left, where "
            f"{CLASS} has as many of either, or no transformer; prune them in pairs."
        )
    return before


def _width(state: State, stage: int) -> int:
    made = [
        array.shape[0]
        for name, array in state.items()
        if re.fullmatch(rf"down_blocks\.{stage}\.(resnets\.\d+\.conv2|downsamplers\.0\.conv)\.weight", name)
    ]
    return made[-1]


def _renamed(name: str, blocks: Blocks, order: Mapping[tuple[str, int], int]) -> str:
    match = PLACE.match(name)
    if match is None:
        return name
    block = _block(match)
    number = blocks[block][match["kind"]].index(int(match["number"]))
    side = f"{match['side']}.{order[block]}" if block in order else match["side"]
    return f"{side}.{match['kind']}.{number}.{match['rest']}"


def _timed(told: dict[str, Any], state: State, config: Mapping[str, Any]) -> tuple[dict[str, Any], State]:
    """With the features of a timestep that there were, whatever the first width is now."""
    weight = state["time_embedding.linear_1.weight"]
    wide, features = weight.shape
    first = told["block_out_channels"][0]
    told["time_embedding_dim"] = None if wide == 4 * first and features == first else wide
    if features == first:
        return told, state
    if wide < features or wide % 2:
        raise UserError(
            f"an embedding of timesteps {wide} wide has no room for their {features} features; prune less."
        )
    half, room = features // 2, wide // 2
    frequencies = np.exp(-math.log(10000) * np.arange(half) / (half - config.get("freq_shift", 0)))
    given = np.zeros((wide, wide), np.float32)
    given[:, :half], given[:, room : room + half] = weight[:, :half], weight[:, half:]
    turns = np.pad(frequencies / (2 * math.pi), (0, room - half)).astype(np.float32)
    told["time_embedding_type"] = "fourier"
    return told, {**state, "time_proj.weight": turns, "time_embedding.linear_1.weight": given}


def _config(source: Any) -> Mapping[str, Any]:
    module: Any = source.torch_module() if hasattr(source, "torch_module") else None
    if type(module).__name__ != CLASS:
        raise UserError(f"--write-back writes a {CLASS} of diffusers, and {source.name} is none.")
    return {key: value for key, value in dict(module.config).items() if not key.startswith("_")}


def _load(module: Any, state: State) -> None:
    import torch

    wanted = {name: tuple(one.shape) for name, one in module.state_dict().items()}
    for name in (*wanted, *state):
        ours = state[name].shape if name in state else None
        if ours != wanted.get(name):
            raise UserError(
                f"{name} is {_said(ours)} and would be {_said(wanted.get(name))} in a {CLASS} of what is left, which "
                "has whole blocks and one width a stage; prune such, for example channels with widths = 'stages'."
            )
    module.load_state_dict({name: torch.tensor(np.ascontiguousarray(one)) for name, one in state.items()})


def _said(sizes: Sequence[int] | None) -> str:
    return "not there" if sizes is None else str(list(sizes))


def _check(module: Any, program: Program) -> None:
    import torch

    call = Interpreter(program)
    for inputs in drawn_calls(program, 2, 0):
        (wanted,) = call(inputs).values()
        with torch.no_grad():
            given = module(**keywords(module, {name: torch.tensor(one) for name, one in inputs.items()}))[0]
        error = float(np.linalg.norm(given.numpy() - wanted) / max(float(np.linalg.norm(wanted)), 1e-30))
        if not error <= TOLERANCE:
            raise UserError(
                f"a {CLASS} with the weights that are left is off by {100 * error:.3g} % of the output: part of a "
                "block went that it has no word for; prune whole resnets with their transformers, or whole stages."
            )


def _cut(value: ir.Value) -> ir.Node | None:
    """The slice that all who read a weight read."""
    users = {user for user, index in value.uses() if index == 0}
    node = next(iter(users), None)
    return node if node is not None and node.op_type == "Gather" and len(value.uses()) == 1 else None


def _weight_of(value: ir.Value) -> str:
    """Of what multiplies by one, that weight's name under which a checkpoint brings it."""
    node = value.producer()
    while node is not None:
        # A bias stands before or behind, a weight behind.
        operands = [one for one in node.inputs if one is not None]
        made = [one for one in operands if one.const_value is None]
        if node.op_type == "Add" and made:
            node = made[0].producer()
            continue
        value = operands[1] if node.op_type in ("MatMul", "Gemm") else operands[0]
        if value.const_value is not None:
            return str(value.name).removesuffix(LEARNED)
        node = value.producer()
    return ""


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value
