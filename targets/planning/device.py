"""What a device family supplies: for each kind of kernel that planning asks for, the call of one of its own.

Planning reads the graph and says what is to be computed from which views, in the values below. How that is divided
over registers, cores or work-items is the family's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from ..compiled import Launch
from ..expressions import Apply, Expression, Load
from ..fused import Fused
from ..heads import HeadShapes
from ..lowering import Frame, Lowering
from ..views import View
from .factors import Factors

Bound = Callable[[int, Sequence[Sequence[int]]], Expression]
"""An expression whose first load is the kernel's operand of this number, the loads having these strides."""


@dataclass(frozen=True)
class Window:
    """Of a convolution, along the spatial axes: how many taps, and zeros before and after the image."""

    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """A convolution, with a ``window``, of (N, C, spatial...), or a product of matrices (rows..., reduction).

    ``shape`` is that of the anchor's output, of which ``rows`` and ``column`` name the axes; ``order`` brings the axes
    of the right factors to [column, *reduction].
    """

    node: ir.Node
    fused: Fused
    shape: tuple[int, ...]
    rows: tuple[int, ...]
    column: int
    left: View
    factors: Factors
    order: tuple[int, ...]
    window: Window | None = None


@dataclass(frozen=True)
class Images:
    """A group normalisation of ``x`` into ``out``, both (N, C, spatial...) with channels of x next to each other.

    ``pixels`` are the spatial extents, joined where strides allow, and ``strides`` those of x, out and the epilogue's
    loads along (image, *pixels, channel).
    """

    node: ir.Node
    fused: Fused
    x: View
    scale: View
    bias: View
    out: View
    pixels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    groups: int
    epsilon: float


@dataclass(frozen=True)
class Rows:
    """Layer normalisation, or softmax where ``epsilon`` is None, of rows of x; ``strides`` are those of x, out and the
    epilogue's loads along (*rows, column).
    """

    node: ir.Node
    fused: Fused
    x: View
    out: View
    rows: tuple[int, ...]
    columns: int
    strides: tuple[tuple[int, ...], ...]
    epsilon: float | None


@dataclass(frozen=True)
class Heads:
    """Attention: all views are (batch, head, token, channel), ``masks`` none or one (batch, head, query, key).

    With ``scales``, three single numbers, q, k and v are integers, and to be multiplied with these.
    """

    node: ir.Node
    q: View
    k: View
    v: View
    out: View
    masks: tuple[View, ...]
    scale: float
    causal: bool
    scales: tuple[View, ...] = ()

    @property
    def shapes(self) -> HeadShapes:
        batch, heads, queries, depth = self.q.shape
        views = (self.q, self.k, self.v, self.out)
        return HeadShapes(
            batch, heads, queries, self.k.shape[2], depth, self.v.shape[3], self.scale,
            *(view.strides for view in views), scaled=bool(self.scales),
        )  # fmt: skip


@dataclass(frozen=True)
class Reduction:
    """The first of ``operands``, out, is ``epilogue`` of what ``operator`` (Add, Mul, Max or Min) makes of each of
    ``terms`` over the axes ``reduce``.

    Loads of the terms have strides along (*reduce, *extents), those of the epilogue along ``extents``.
    """

    node: ir.Node
    operands: tuple[View, ...]
    extents: tuple[int, ...]
    out_strides: tuple[int, ...]
    reduce: tuple[int, ...]
    operator: str
    terms: tuple[Expression, ...]
    epilogue: Expression


class Device(ABC):
    """Methods that take a ``Lowering`` add calls to it. ``stored`` are formats that kernels read and write."""

    stored: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16", "int8", "int64", "int32", "bool")

    @abstractmethod
    def map(self, lowering: Lowering, out: View, loads: Sequence[View], bound: Bound, name: str) -> None:
        """out = expression(loads), element by element."""

    @abstractmethod
    def padded(
        self, lowering: Lowering, x: View, before: Sequence[int], after: Sequence[int], name: str
    ) -> View:
        """(N, C, spatial...) with a frame of zeros, channels innermost."""

    @abstractmethod
    def gather(self, lowering: Lowering, out: View, table: View, indices: View, name: str) -> None:
        """out [count, columns] = rows of table [rows, columns], chosen by indices [count].

        A number below zero counts from the end. One that is outside of the table takes its nearest row: numbers come
        from the caller, and nothing else may be read.
        """

    @abstractmethod
    def product(self, lowering: Lowering, product: Product) -> None:
        """Also says where the group's result lies."""

    @abstractmethod
    def group_norm(self, lowering: Lowering, images: Images) -> None: ...

    @abstractmethod
    def row_norm(self, lowering: Lowering, rows: Rows) -> None: ...

    @abstractmethod
    def attention(self, lowering: Lowering, heads: Heads) -> None: ...

    def opened(self, lowering: Lowering, heads: Heads) -> Heads:
        """Attention to the numbers that integers stand for, stored as its result is."""
        if not heads.scales:
            return heads
        [dtype] = lowering.dtypes([heads.out])

        def product(first: int, strides: Sequence[Sequence[int]]) -> Expression:
            codes, scale = (Load(first + place, tuple(one)) for place, one in enumerate(strides))
            return Apply("Mul", (codes, scale))

        found: list[View] = []
        for codes, scale in zip((heads.q, heads.k, heads.v), heads.scales, strict=True):
            out = lowering.fresh(codes.shape, codes.order(), dtype)
            self.map(lowering, out, [codes, scale.expand(codes.shape)], product, str(heads.node.name))
            found.append(out)
        return replace(heads, q=found[0], k=found[1], v=found[2], scales=())

    @abstractmethod
    def reduction(self, lowering: Lowering, reduction: Reduction) -> None: ...

    def wanted_frames(self, graph: ir.Graph) -> dict[str, Frame]:
        """Values that are better computed into a frame of zeros, by name."""
        return {}

    def image(self, lowering: Lowering, value: ir.Value, shape: tuple[int, ...], name: str) -> View:
        """Room for a value computed as (N, C, spatial...), channels innermost, in the frame that its readers want."""
        return lowering.fresh(shape, (0, *range(2, len(shape)), 1), lowering.dtype(value))

    @abstractmethod
    def symbol(self, kernel: Any) -> str:
        """A name that is the kernel's content: the same specification, target and generator give the same name."""

    @abstractmethod
    def build(
        self, kernels: Iterable[Any], cache_folder: Path, progress: Callable[[int, int], None] | None
    ) -> Mapping[str, bytes]:
        """The code of each distinct kernel by its symbol."""

    def launch(self, kernel: Any) -> Launch | None:
        """How many work-items run a kernel, on families that have them."""
        return None
