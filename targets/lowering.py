"""The state of lowering a program: where each value lies, and the kernel calls so far.

Device families add calls; this keeps the books. A buffer belongs to one of three spaces (see ``compiled``): a
constant to ``weights``, what a variant leaves for others or for the caller to ``state``, the rest to ``arena``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.formats import INTEGERS, Format, format_of
from .compiled import ITEM_BYTES, Space, Texture
from .expressions import Load
from .graph_facts import shape_of
from .packing import ROUNDED, Dense, Packing
from .views import View

if TYPE_CHECKING:
    from .planning.device import Device

DTYPES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.INT64: "int64",
    ir.DataType.INT32: "int32",
    ir.DataType.INT8: "int8",
    ir.DataType.INT4: "int8",
    ir.DataType.INT2: "int8",
    ir.DataType.BOOL: "bool",
}

NARROW: Mapping[ir.DataType | None, Format] = {
    ir.DataType.INT4: INTEGERS["int4"],
    ir.DataType.INT2: INTEGERS["int2"],
}
"""Types of which several numbers share a byte."""


T = TypeVar("T")

MOST_ELEMENTS = 2**31 - 1
"""Kernels count elements in 32 bits."""


def _require_addressable(count: int, name: str) -> None:
    if count > MOST_ELEMENTS:
        raise UserError(
            f"value {name} has {count} elements and a kernel reaches {MOST_ELEMENTS}; use a smaller size"
        )


@dataclass
class Buffer:
    """A run of bytes with one owner. ``first`` and ``last`` are positions in its variant's calls."""

    name: str
    dtype: str
    count: int
    space: Space
    first: int = 0
    last: int = 0

    @property
    def size_bytes(self) -> int:
        return self.count * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class PendingCall:
    """A kernel and, for each operand, a buffer and the element at which the operand begins.

    ``moved_bytes`` are those of each operand's different elements.
    """

    kernel: Hashable
    operands: tuple[tuple[str, int], ...]
    node: str
    moved_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A tensor known when compiling, by the name under which its numbers come, and the format it is kept in.

    ``codes`` is a narrower format that all of its numbers are of, for those who read it so.
    """

    source: str
    dtype: str
    codes: str | None = None

    @staticmethod
    def of(value: ir.Value, dtype: str) -> Constant:
        format = format_of(value) or NARROW.get(value.dtype)
        return Constant(str(value.name), dtype, None if format is None else format.name)


@dataclass(frozen=True)
class Weight:
    """A constant of the program in one packing, and whether kernels read it as an image."""

    source: str
    packing: Packing
    shape: tuple[int, ...]
    texture: Texture | None = None


Frame = tuple[tuple[int, ...], tuple[int, ...]]
"""Zeros before and after the elements of an image, along each spatial axis."""


class Choose(Protocol):
    """Picks one of several for a problem: they come by name, in the order of their predicted time."""

    def __call__(self, problem: str, choices: Mapping[str, T]) -> T: ...


def first(problem: str, choices: Mapping[str, T]) -> T:
    """What is predicted to be fastest, whatever the problem."""
    return next(iter(choices.values()))


@dataclass(frozen=True)
class Question:
    """The names of what could be chosen, the one predicted to be fastest first, and the nodes that it is for."""

    choices: tuple[str, ...]
    nodes: dict[str, None]


@dataclass
class Lowering:
    """``device`` adds the calls of its family's kernels.

    ``frames`` are the frames that readers want around values, by name; ``framed`` gives such a value's view that
    of it with its frame, and the frame. ``tuned`` names what was measured to be fastest, by problem; all that was
    asked is in ``questions``. ``results`` are values of groups, their views, and the last call by then.
    """

    device: Device
    literals: dict[str, float] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    calls: list[PendingCall] = field(default_factory=list)
    results: list[tuple[str, View, int]] = field(default_factory=list)
    frames: dict[str, Frame] = field(default_factory=dict)
    framed: dict[View, tuple[View, Frame]] = field(default_factory=dict)
    variant: str = ""
    tuned: Mapping[str, str] = field(default_factory=dict[str, str])
    questions: dict[str, Question] = field(default_factory=dict[str, Question])

    def chooser(self, node: str) -> Choose:
        """What chooses for ``node``: as tuned, or else what is predicted to be fastest."""

        def choose(problem: str, choices: Mapping[str, T]) -> T:
            question = self.questions.setdefault(problem, Question(tuple(choices), {}))
            question.nodes[node] = None
            chosen = self.tuned.get(problem, "")
            return choices[chosen] if chosen in choices else first(problem, choices)

        return choose

    def view(self, value: ir.Value) -> View:
        """Where ``value`` lies. Constants are placed when they are first asked for, row-major."""
        name = str(value.name)
        if name not in self.views:
            if name not in self.constants:
                raise UserError(f"value {name} is read before it is computed: the graph is not in order")
            self.views[name] = self.weight(name, shape_of(value), Dense())
        return self.views[name]

    def weight(
        self, constant: str, shape: Sequence[int], packing: Packing, texture: Texture | None = None
    ) -> View:
        """A constant in the given packing and its own format, as a dense view of the packed shape."""
        source, dtype = self.constants[constant].source, self.constants[constant].dtype
        if dtype in ROUNDED:
            packing = packing.model_copy(update={"format": dtype})
        if packing.holds_codes:
            dtype = "uint8"
        name = f"{source}|{packing.model_dump_json()}" + ("" if texture is None else "|image")
        if name not in self.weights:
            _require_addressable(math.prod(shape), source)
            self.weights[name] = Weight(source, packing, tuple(shape), texture)
            self.buffers[name] = Buffer(name, dtype, int(np.prod(shape, dtype=np.int64)), "weights")
        return View.dense(name, shape)

    def dtypes(self, views: Iterable[View]) -> tuple[str, ...]:
        """The formats that kernels find their operands in."""
        return tuple(self.buffers[view.buffer].dtype for view in views)

    def literal(self, value: ir.Value) -> float | None:
        """The number that a scalar constant of the graph (not a weight) stands for."""
        return self.literals.get(str(value.name))

    def dtype(self, value: ir.Value) -> str:
        dtype = None if value.dtype is None else DTYPES.get(value.dtype)
        if dtype is None or dtype not in self.device.stored:
            raise UserError(
                f"value {value.name} is of type {value.dtype}; {', '.join(self.device.stored)} can be compiled"
            )
        return dtype

    def fresh(self, shape: Sequence[int], order: Sequence[int] | None = None, dtype: str = "float32") -> View:
        """A new arena buffer, dense in the given axis order."""
        name = f"{self.variant}:{len(self.buffers)}"
        view = View.dense(name, shape, order)
        _require_addressable(view.count, name)
        here = len(self.calls)
        self.buffers[name] = Buffer(name, dtype, max(view.count, 1), "arena", here, here)
        return view

    def call(self, kernel: Hashable, operands: Sequence[View], node: str) -> None:
        """Append a kernel launch; its operands live at least until here."""
        for operand in operands:
            self.buffers[operand.buffer].last = max(self.buffers[operand.buffer].last, len(self.calls))
        places = tuple((one.buffer, one.offset) for one in operands)
        items = (ITEM_BYTES[dtype] for dtype in self.dtypes(operands))
        moved = tuple(one.distinct * item for one, item in zip(operands, items, strict=True))
        self.calls.append(PendingCall(kernel, places, node, moved))

    def copy(self, target: View, source: View, name: str) -> None:
        """Copy a view into another of the same shape."""
        self.device.map(self, target, [source], lambda first, strides: Load(first, tuple(strides[0])), name)

    def materialised(self, view: View, order: Sequence[int] | None = None) -> View:
        """The same tensor, dense in the given order: itself where it already is, else a copy."""
        wanted = list(range(len(view.shape))) if order is None else order
        if view.is_dense_in(wanted):
            return view
        target = self.fresh(view.shape, wanted, self.buffers[view.buffer].dtype)
        self.copy(target, view, "copy")
        return target

    def reshaped(self, view: View, shape: Sequence[int]) -> View:
        """The view under another shape, copied first if strides cannot express it."""
        if (found := view.reshape(shape)) is not None:
            return found
        dense = self.materialised(view).reshape(shape)
        assert dense is not None
        return dense
