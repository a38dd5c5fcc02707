"""A GPU as a device: kernels of OpenCL C, which the driver compiles where they run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from ..compiled import Launch
from ..framing import framing
from ..heads import HeadShapes
from ..lowering import Lowering
from ..planning import device as planned
from ..planning.device import Bound, Device, Heads, Images, Product, Rows
from ..profile import GpuProfile
from ..views import View, merged
from .attention import Attention
from .elementwise import Gather, Map, Pad
from .kernel import Kernel
from .lower_products import lower_product
from .norms import GroupNorm, RowNorm
from .reduction import Reduction

QUERIES = (16, 8, 4, 2, 1)
"""Of a work-group."""

KEYS = 32
"""At a time."""

ITEMS = 64
"""Work-items of a group that has queries."""


@cache
def _generator_digest() -> str:
    """Changes whenever the code that turns specifications into source does."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for source in sorted([*folder.glob("*.py"), folder.parent / "expressions.py"]):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Gpu(Device):
    profile: GpuProfile

    def map(self, lowering: Lowering, out: View, loads: Sequence[View], bound: Bound, name: str) -> None:
        views = [out, *loads]
        extents, strides = merged(views, out.order())
        lowering.call(Map(lowering.dtypes(views), extents, strides[0], bound(1, strides[1:])), views, name)

    def padded(
        self, lowering: Lowering, x: View, before: Sequence[int], after: Sequence[int], name: str
    ) -> View:
        out, frame = framing(lowering, x, before, after)
        lowering.call(Pad(lowering.dtypes([out, x]), **asdict(frame)), [out, x], name)
        return out

    def gather(self, lowering: Lowering, out: View, table: View, indices: View, name: str) -> None:
        operands = [out, table, indices]
        kernel = Gather(
            dtypes=lowering.dtypes(operands),
            count=indices.count,
            rows=table.shape[0],
            columns=table.shape[1],
            table_strides=(table.strides[0], table.strides[1]),
        )
        lowering.call(kernel, operands, name)

    def product(self, lowering: Lowering, product: Product) -> None:
        lower_product(lowering, product, self.profile)

    def group_norm(self, lowering: Lowering, images: Images) -> None:
        x, out, loads = images.x, images.out, images.fused.loads
        operands = [x, images.scale, images.bias, out, *loads]
        kernel = GroupNorm(
            dtypes=lowering.dtypes(operands),
            images=x.shape[0],
            pixels=images.pixels,
            channels=x.shape[1],
            groups=images.groups,
            epsilon=images.epsilon,
            x_strides=images.strides[0],
            out_strides=images.strides[1],
            epilogue=images.fused.bound(4, images.strides[2:]),
        )
        lowering.call(kernel, operands, str(images.node.name))

    def row_norm(self, lowering: Lowering, rows: Rows) -> None:
        operands = [rows.x, rows.out, *rows.fused.loads]
        kernel = RowNorm(
            dtypes=lowering.dtypes(operands),
            rows=rows.rows,
            columns=rows.columns,
            x_strides=rows.strides[0],
            out_strides=rows.strides[1],
            epilogue=rows.fused.bound(2, rows.strides[2:]),
            epsilon=rows.epsilon,
        )
        lowering.call(kernel, operands, str(rows.node.name))

    def attention(self, lowering: Lowering, heads: Heads) -> None:
        heads = self.opened(lowering, heads)
        shapes = heads.shapes
        operands = [heads.q, heads.k, heads.v, heads.out, *heads.masks]
        kernel = Attention(
            dtypes=lowering.dtypes(operands),
            **asdict(shapes),
            tile=lowering.chooser(str(heads.node.name))(shapes.described, self._queries(shapes)),
            block=min(KEYS, shapes.keys),
            items=min(ITEMS, self.profile.work_group),
            causal=heads.causal,
            mask_strides=heads.masks[0].strides if heads.masks else (),
        )
        lowering.call(kernel, operands, str(heads.node.name))

    def _queries(self, shapes: HeadShapes) -> dict[str, int]:
        """Of a work-group, by name: first as many as half of the registers hold sums of, and half of the local memory
        their scores, then fewer.
        """
        items = min(ITEMS, self.profile.work_group)
        return {
            f"{tile} queries": tile
            for tile in QUERIES
            if tile == 1
            or (
                tile < 2 * shapes.queries
                and tile * shapes.value_depth <= items * self.profile.registers // 2
                and 4 * tile * (shapes.depth + KEYS + 3) <= self.profile.local_bytes // 2
            )
        }

    def reduction(self, lowering: Lowering, reduction: planned.Reduction) -> None:
        kernel = Reduction(
            dtypes=lowering.dtypes(reduction.operands),
            extents=reduction.extents,
            out_strides=reduction.out_strides,
            reduce=reduction.reduce,
            operator=reduction.operator,
            terms=reduction.terms,
            epilogue=reduction.epilogue,
        )
        lowering.call(kernel, reduction.operands, str(reduction.node.name))

    def symbol(self, kernel: Kernel) -> str:
        text = f"{_generator_digest()}|{kernel!r}"
        return f"{type(kernel).__name__.lower()}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def build(
        self, kernels: Iterable[Kernel], cache_folder: Path, progress: Callable[[int, int], None] | None
    ) -> Mapping[str, bytes]:
        distinct = dict.fromkeys(kernels)
        return {name: kernel.source(name).encode() for kernel in distinct for name in [self.symbol(kernel)]}

    def launch(self, kernel: Kernel) -> Launch:
        return kernel.launch
