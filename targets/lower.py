"""A program -> machine code for one device, the calls of each variant, and the memory plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path

import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.formats import opens
from ..ir.groups import Group, groups
from ..ir.operators import VIEWS
from ..ir.program import Program
from . import memory
from .compiled import Call, Compiled, Operand, PackedWeight, StateTensor
from .cpu import build
from .cpu.lower import check_supported, copier, lower_group, lower_view
from .cpu.lower_frames import wanted_frames
from .graph_facts import shape_of
from .lowering import Buffer, Constant, Lowering, PendingCall
from .profile import Profile
from .views import View

RUN_ORDER = ("prompt", "step", "full")
"""Variants in the order in which a first run needs them. "constant" is evaluated when compiling."""


def lower(
    program: Program,
    profile: Profile,
    cache_folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Compiled:
    """Lower every variant of ``program`` for ``profile``; distinct kernels are compiled once and cached.

    ``progress(done, total)`` counts kernels. Raises UserError, before anything is compiled, for an operator
    or a shape that the target has no kernel for.
    """
    lowering, books, calls = _planned(program, profile)
    kernels = [pending.kernel for variant in calls.values() for pending in variant]
    objects = build.build(kernels, profile, cache_folder, progress)  # type: ignore[arg-type]
    return _assemble(lowering, books, calls, profile, objects)


def planned_calls(program: Program, profile: Profile) -> dict[str, list[PendingCall]]:
    """What each variant would call, by specification: nothing is compiled. Raises UserError as ``lower`` does."""
    return _planned(program, profile)[2]


def _planned(program: Program, profile: Profile) -> tuple[Lowering, _State, dict[str, list[PendingCall]]]:
    variants = [name for name in RUN_ORDER if name in program.variants]
    variants += [name for name in program.variants if name not in (*RUN_ORDER, "constant")]
    for name in variants:
        for node in program.variants[name].graph:
            check_supported(node)
    lowering = Lowering(copy=copier(profile.vector_lanes))
    _place_constants(lowering, program)
    books = _State(lowering, program)
    calls: dict[str, list[PendingCall]] = {}
    for name in variants:
        lowering.variant, lowering.calls = name, []
        _lower_variant(lowering, program.variants[name], profile)
        books.settle(name)
        calls[name] = lowering.calls
    return lowering, books, calls


def _place_constants(lowering: Lowering, program: Program) -> None:
    """Every tensor known when compiling: source weights, and what variant "constant" derives from them."""
    for model in program.variants.values():
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


def _lower_variant(lowering: Lowering, model: ir.Model, profile: Profile) -> None:
    lowering.frames.update(wanted_frames(model.graph))
    last_of: dict[int, Group] = {id(group.nodes[-1]): group for group in groups(model)}
    inside = {id(node) for group in last_of.values() for node in group.nodes}
    for node in model.graph:
        if (group := last_of.get(id(node))) is not None:
            lower_group(lowering, group, profile)
        elif id(node) not in inside:
            if opens(node):
                continue  # products take the codes
            if node.op_type not in VIEWS and node.op_type != "Cast":
                raise UserError(
                    f"node {node.name} belongs to no fusion group; run the fuse pass before lowering"
                )
            lower_view(lowering, node)


class _State:
    """What outlives a run: inputs, outputs, and values that pass from one variant to another."""

    def __init__(self, lowering: Lowering, program: Program) -> None:
        self.lowering = lowering
        self.program = program
        self.inputs: list[tuple[str, str]] = []
        self.outputs: list[tuple[str, ir.Value]] = []
        self.carried: dict[str, list[str]] = {}
        for name, rate in program.rates.items():
            value = self._graph_input(name)
            dtype = lowering.dtype(value)
            view = View.dense(f"input:{name}", shape_of(value))
            lowering.buffers[view.buffer] = Buffer(view.buffer, dtype, view.count, "state")
            lowering.views[name] = view
            self.inputs.append((name, rate.name.lower()))

    def _graph_input(self, name: str) -> ir.Value:
        for model in self.program.variants.values():
            for value in model.graph.inputs:
                if value.name == name:
                    return value
        raise UserError(f"input {name} is read by no variant of the program")

    def settle(self, variant: str) -> None:
        """Give a home in the state space to what the variant just lowered leaves behind."""
        lowering = self.lowering
        for value in self.program.variants[variant].graph.outputs:
            name = str(value.name)
            view = lowering.view(value)
            if variant == "full":
                if not self._owns(view):
                    target = lowering.fresh(view.shape, dtype=lowering.buffers[view.buffer].dtype)
                    lowering.copy(lowering, target, view, f"output {name}")
                    view = lowering.views[name] = target
                self.outputs.append((name, value))
            elif lowering.buffers[view.buffer].space != "arena":
                # A view of an input or of a constant: carrying it would only copy it.
                continue
            # What the caller reads is not part of a table's row.
            lowering.buffers[view.buffer].space = "state"
            self.carried.setdefault(variant, []).append(view.buffer)

    def _owns(self, view: View) -> bool:
        """Whether the view is all of an arena buffer, row-major, as the caller will read it."""
        buffer = self.lowering.buffers[view.buffer]
        whole = buffer.count == view.count and view.offset == 0
        return buffer.space == "arena" and whole and view.is_dense_in(range(len(view.shape)))

    def layout(self) -> tuple[dict[str, int], int, dict[str, tuple[int, int]]]:
        """Offsets of the state buffers, their total size, and the run of bytes that each variant fills."""
        offsets: dict[str, int] = {}
        size = 0
        regions: dict[str, tuple[int, int]] = {}
        owners = {"": [f"input:{name}" for name, _ in self.inputs], **self.carried}
        for variant, buffers in owners.items():
            start = size
            for name in dict.fromkeys(buffers):
                offsets[name] = size
                size += memory.aligned(self.lowering.buffers[name].size_bytes)
            regions[variant] = (start, size - start)
        del regions[""]
        return offsets, size, regions


def _assemble(
    lowering: Lowering,
    books: _State,
    calls: dict[str, list[PendingCall]],
    profile: Profile,
    objects: dict[str, bytes],
) -> Compiled:
    state, state_bytes, carried = books.layout()
    weights, weights_bytes = _weights(lowering)
    offsets = {**state, **{weight.name: weight.offset_bytes for weight in weights}}
    arena_bytes = 0
    for variant in calls:
        lifetimes = [
            memory.Lifetime(buffer.name, buffer.size_bytes, buffer.first, buffer.last)
            for buffer in lowering.buffers.values()
            if buffer.space == "arena" and buffer.name.startswith(f"{variant}:")
        ]
        placed, size = memory.plan(lifetimes)
        offsets.update(placed)
        arena_bytes = max(arena_bytes, size)
    symbols: dict[Hashable, str] = {}

    def finished(pending: PendingCall) -> Call:
        if pending.kernel not in symbols:
            symbols[pending.kernel] = build.symbol(pending.kernel, profile)  # type: ignore[arg-type]
        operands = []
        for name, element in pending.operands:
            buffer = lowering.buffers[name]
            item = buffer.size_bytes // buffer.count
            operands.append(Operand(buffer.space, offsets[name] + element * item))
        return Call(symbols[pending.kernel], tuple(operands), pending.node)

    return Compiled(
        arch=profile.arch,
        triple=profile.triple,
        cpu_features=profile.requires,
        kernels=objects,
        variants={name: tuple(finished(one) for one in pending) for name, pending in calls.items()},
        inputs=tuple(
            _state_tensor(lowering, name, lowering.views[name], state, rate) for name, rate in books.inputs
        ),
        outputs=tuple(
            _state_tensor(lowering, name, lowering.views[name], state, "sample") for name, _ in books.outputs
        ),
        weights=weights,
        weights_bytes=weights_bytes,
        arena_bytes=arena_bytes,
        state_bytes=state_bytes,
        carried=carried,
    )


def _state_tensor(
    lowering: Lowering, name: str, view: View, offsets: dict[str, int], rate: str
) -> StateTensor:
    dtype = lowering.buffers[view.buffer].dtype
    return StateTensor(name, dtype, view.shape, offsets[view.buffer], rate)  # type: ignore[arg-type]


def _weights(lowering: Lowering) -> tuple[tuple[PackedWeight, ...], int]:
    packed: list[PackedWeight] = []
    offset = 0
    for name, weight in lowering.weights.items():
        dtype = lowering.buffers[name].dtype
        packed.append(PackedWeight(name, weight.source, weight.packing, dtype, weight.shape, offset))
        offset += memory.aligned(lowering.buffers[name].size_bytes)
    return tuple(packed), offset
