"""A program -> machine code for one device, the calls of each variant, and the memory plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.formats import opens
from ..ir.groups import Group, groups
from ..ir.operators import VIEWS
from ..ir.program import Program
from . import memory
from .compiled import Call, Compiled, Operand, PackedWeight, Result
from .devices import device_for
from .homes import Homes
from .lowering import Buffer, Constant, Lowering, PendingCall, Question
from .planning.operators import check_supported, lower_group, lower_view
from .profile import GpuProfile, Target
from .views import View

BEFORE = ("prompt", "step")
"""Variants that a run may need before its own. "constant" is evaluated when compiling."""


def lower(
    program: Program,
    profile: Target,
    cache_folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Compiled:
    """Lower every variant of ``program`` for ``profile``; distinct kernels are compiled once and cached.

    ``progress(done, total)`` counts kernels. Raises UserError, before anything is compiled, for an operator
    or a shape that the target has no kernel for.
    """
    lowering, homes, calls, results = _planned(program, profile)
    kernels = [pending.kernel for variant in calls.values() for pending in variant]
    objects = lowering.device.build(kernels, cache_folder, progress)
    return _assemble(lowering, homes, calls, results, profile, objects)


def planned_calls(
    program: Program, profile: Target
) -> tuple[dict[str, list[PendingCall]], dict[str, Buffer]]:
    """What each variant would call, by specification, and the buffers by name: nothing is compiled.

    Raises UserError as ``lower`` does.
    """
    lowering, _, calls, _ = _planned(program, profile)
    return calls, lowering.buffers


def questions(program: Program, profile: Target) -> dict[str, Question]:
    """What lowering chooses by prediction, by problem. Raises UserError as ``lower`` does."""
    return _planned(program, profile)[0].questions


Results = dict[str, list[tuple[str, View, int]]]


def _planned(
    program: Program, profile: Target
) -> tuple[Lowering, Homes, dict[str, list[PendingCall]], Results]:
    variants = [name for name in BEFORE if name in program.variants] + program.alternatives
    for name in variants:
        for node in program.variants[name].graph:
            check_supported(node)
    device = device_for(profile)
    lowering = Lowering(device, tuned=profile.tuned)
    _place_constants(lowering, program)
    homes = Homes(lowering, program)
    calls: dict[str, list[PendingCall]] = {}
    results: Results = {}
    for name in variants:
        # Alternatives may give one name to values of their own each.
        lowering.variant, lowering.calls, lowering.views = name, [], dict(homes.views)
        lowering.results = []
        _lower_variant(lowering, program.variants[name])
        homes.settle(name)
        calls[name], results[name] = lowering.calls, lowering.results
    return lowering, homes, calls, results


def _place_constants(lowering: Lowering, program: Program) -> None:
    """Every tensor known when compiling: source weights, and what variant "constant" derives from them."""
    for variant, model in program.variants.items():
        if variant == "constant":
            continue  # what only it reads no kernel does
        for name, value in model.graph.initializers.items():
            lowering.constants[name] = Constant.of(value, lowering.dtype(value))
            tensor = value.const_value
            # Scalars that the graph itself spells out, as against learned ones, are compiled into the kernels.
            if name not in program.weights and tensor is not None and tensor.size == 1:
                lowering.literals[name] = float(tensor.numpy().reshape(()))
    if "constant" in program.variants:
        for value in program.variants["constant"].graph.outputs:
            name = str(value.name)
            lowering.constants[name] = Constant.of(value, lowering.dtype(value))


def _lower_variant(lowering: Lowering, model: ir.Model) -> None:
    lowering.frames = lowering.device.wanted_frames(model.graph)
    last_of: dict[int, Group] = {id(group.nodes[-1]): group for group in groups(model)}
    inside = {id(node) for group in last_of.values() for node in group.nodes}
    for node in model.graph:
        if (group := last_of.get(id(node))) is not None:
            lower_group(lowering, group)
            for value in node.outputs:
                if (view := lowering.views.get(str(value.name))) is not None and lowering.calls:
                    lowering.results.append((str(value.name), view, len(lowering.calls) - 1))
        elif id(node) not in inside:
            if opens(node):
                continue  # products take the codes
            if node.op_type not in VIEWS and node.op_type != "Cast":
                raise UserError(
                    f"node {node.name} belongs to no fusion group; run the fuse pass before lowering"
                )
            lower_view(lowering, node)


def _assemble(
    lowering: Lowering,
    homes: Homes,
    calls: dict[str, list[PendingCall]],
    results: Results,
    profile: Target,
    objects: Mapping[str, bytes],
) -> Compiled:
    lasting, sizes, carried = homes.layout()
    limit = profile.buffer_bytes if isinstance(profile, GpuProfile) else None
    weights, weights_bytes = _weights(lowering)
    chunks = () if limit is None else _chunks(weights, weights_bytes, limit)
    offsets = {**lasting, **{weight.name: weight.offset_bytes for weight in weights}}
    arena_bytes = 0
    for variant in calls:
        lifetimes = [
            memory.Lifetime(buffer.name, buffer.size_bytes, buffer.first, buffer.last)
            for buffer in lowering.buffers.values()
            if buffer.space == "arena" and buffer.name.rpartition(":")[0] == variant
        ]
        placed, size = memory.plan(lifetimes)
        offsets.update(placed)
        arena_bytes = max(arena_bytes, size)
    for size, what in ((arena_bytes, "values between kernels"), (max(sizes.values()), "what outlives a run")):
        if limit is not None and size > limit:
            raise UserError(
                f"{what} take {size / 1e6:.0f} MB and a buffer of target {profile.name} holds {limit / 1e6:.0f} MB; "
                "use a smaller size, or --precision float16"
            )
    symbols: dict[Hashable, str] = {}

    def finished(pending: PendingCall) -> Call:
        if pending.kernel not in symbols:
            symbols[pending.kernel] = lowering.device.symbol(pending.kernel)
        operands = []
        for name, element in pending.operands:
            buffer = lowering.buffers[name]
            item = buffer.size_bytes // buffer.count
            operands.append(Operand(buffer.space, offsets[name] + element * item))
        return Call(symbols[pending.kernel], tuple(operands), pending.node)

    variants = {name: tuple(finished(one) for one in pending) for name, pending in calls.items()}
    launches = {name: lowering.device.launch(kernel) for kernel, name in symbols.items()}

    def placed_result(value: str, view: View, call: int) -> Result:
        buffer = lowering.buffers[view.buffer]
        item = buffer.size_bytes // buffer.count
        return Result(
            value, buffer.dtype, view.shape, call, buffer.space, offsets[view.buffer] + view.offset * item,
            tuple(step * item for step in view.strides),
        )  # fmt: skip

    inputs, outputs = homes.tensors(lasting)
    return Compiled(
        arch=profile.arch,
        triple=profile.triple,
        cpu_features=profile.requires,
        kernels=dict(objects),
        variants=variants,
        inputs=inputs,
        outputs=outputs,
        weights=weights,
        weights_bytes=weights_bytes,
        arena_bytes=arena_bytes,
        state_bytes=sizes["state"],
        carried=carried,
        kept_bytes=sizes["kept"],
        kept=homes.kept(lasting),
        launches={name: launch for name, launch in launches.items() if launch is not None},
        chunks=chunks,
        results={
            name: tuple(
                placed_result(*one) for one in found if lowering.buffers[one[1].buffer].space != "weights"
            )
            for name, found in results.items()
        },
    )


def _chunks(weights: tuple[PackedWeight, ...], total: int, limit: int) -> tuple[int, ...]:
    """Where the buffers of weights begin: each has whole tensors, and no more bytes than ``limit``."""
    starts = [0]
    ends = [*(one.offset_bytes for one in weights[1:]), total]
    for weight, end in zip(weights, ends, strict=False):
        if weight.texture is not None:
            break
        if end - weight.offset_bytes > limit:
            raise UserError(
                f"weight {weight.source} takes {(end - weight.offset_bytes) / 1e6:.0f} MB and a buffer of the target "
                f"holds {limit / 1e6:.0f} MB; use --precision float16 or a recipe with fewer bits"
            )
        if end - starts[-1] > limit:
            starts.append(weight.offset_bytes)
    return tuple(starts)


def _weights(lowering: Lowering) -> tuple[tuple[PackedWeight, ...], int]:
    """Those that are read as images come last."""
    packed: list[PackedWeight] = []
    offset = 0
    for name, one in sorted(lowering.weights.items(), key=lambda item: item[1].texture is not None):
        dtype = lowering.buffers[name].dtype
        packed.append(PackedWeight(name, one.source, one.packing, dtype, one.shape, offset, one.texture))
        offset += memory.aligned(lowering.buffers[name].size_bytes)
    return tuple(packed), offset
