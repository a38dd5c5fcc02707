"""A processor as a device: kernels of TIR loops, compiled by LLVM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..lowering import Frame, Lowering
from ..planning import device as planned
from ..planning.device import Bound, Device, Heads, Images, Product, Rows
from ..profile import Profile
from ..views import View, merged
from . import build, lower_frames
from .elementwise import Map
from .gather import Gather
from .lower_attention import lower_attention
from .lower_norms import lower_group_norm, lower_rows
from .lower_products import lower_product, padded
from .reduction import Reduction


@dataclass(frozen=True)
class Processor(Device):
    profile: Profile

    def map(self, lowering: Lowering, out: View, loads: Sequence[View], bound: Bound, name: str) -> None:
        views = [out, *loads]
        extents, strides = merged(views, out.order())
        kernel = Map(
            dtypes=lowering.dtypes(views),
            extents=extents,
            out_strides=strides[0],
            expression=bound(1, strides[1:]),
            lanes=self.profile.vector_lanes,
        )
        lowering.call(kernel, views, name)

    def padded(
        self, lowering: Lowering, x: View, before: Sequence[int], after: Sequence[int], name: str
    ) -> View:
        return padded(lowering, x, before, after, self.profile, name)

    def gather(self, lowering: Lowering, out: View, table: View, indices: View, name: str) -> None:
        kernel = Gather(
            dtypes=lowering.dtypes((out, table, indices)),
            count=indices.count,
            rows=table.shape[0],
            columns=table.shape[1],
            table_strides=(table.strides[0], table.strides[1]),
            lanes=self.profile.vector_lanes,
        )
        lowering.call(kernel, [out, table, indices], name)

    def product(self, lowering: Lowering, product: Product) -> None:
        lower_product(lowering, product, self.profile)

    def group_norm(self, lowering: Lowering, images: Images) -> None:
        lower_group_norm(lowering, images, self.profile)

    def row_norm(self, lowering: Lowering, rows: Rows) -> None:
        lower_rows(lowering, rows, self.profile)

    def attention(self, lowering: Lowering, heads: Heads) -> None:
        lower_attention(lowering, heads, self.profile)

    def reduction(self, lowering: Lowering, reduction: planned.Reduction) -> None:
        kernel = Reduction(
            dtypes=lowering.dtypes(reduction.operands),
            extents=reduction.extents,
            out_strides=reduction.out_strides,
            reduce=reduction.reduce,
            operator=reduction.operator,
            terms=reduction.terms,
            epilogue=reduction.epilogue,
            lanes=self.profile.vector_lanes,
        )
        lowering.call(kernel, reduction.operands, str(reduction.node.name))

    def wanted_frames(self, graph: ir.Graph) -> dict[str, Frame]:
        return lower_frames.wanted_frames(graph)

    def image(self, lowering: Lowering, value: ir.Value, shape: tuple[int, ...], name: str) -> View:
        return lower_frames.image(lowering, value, shape, self.profile, name)

    def symbol(self, kernel: Any) -> str:
        return build.symbol(kernel, self.profile)

    def build(
        self, kernels: Iterable[Any], cache_folder: Path, progress: Callable[[int, int], None] | None
    ) -> Mapping[str, bytes]:
        return build.build(kernels, self.profile, cache_folder, progress)
