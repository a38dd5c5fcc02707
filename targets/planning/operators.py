"""What each operator asks of a device."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.groups import Group
from ...ir.operators import CONVERSIONS, ELEMENTWISE, VIEWS
from ..graph_facts import describe
from ..lowering import Lowering
from .attention import lower_attention
from .movement import (
    lower_concat,
    lower_elementwise,
    lower_gather,
    lower_pad,
    lower_resize,
    lower_view,
)
from .norms import lower_group_norm, lower_layer_norm, lower_softmax
from .products import lower_conv, lower_gemm, lower_matmul
from .reductions import POOLS, STATISTICS, lower_pool, lower_statistic

PLANS: dict[str, Callable[[Lowering, Group], None]] = {
    "Attention": lower_attention,
    "Concat": lower_concat,
    "Conv": lower_conv,
    "Gather": lower_gather,
    "Gemm": lower_gemm,
    "GroupNormalization": lower_group_norm,
    "LayerNormalization": lower_layer_norm,
    "MatMul": lower_matmul,
    "Pad": lower_pad,
    "Resize": lower_resize,
    "Softmax": lower_softmax,
    **dict.fromkeys((*ELEMENTWISE, *sorted(CONVERSIONS)), lower_elementwise),
    **dict.fromkeys(POOLS, lower_pool),
    **dict.fromkeys(STATISTICS, lower_statistic),
    "Cast": lower_elementwise,
}


def check_supported(node: ir.Node) -> None:
    """Raises UserError for an operator that nothing here plans, naming the node and its module."""
    if node.op_type not in VIEWS and node.op_type not in PLANS:
        raise UserError(f"operator {node.op_type} is not supported, at {describe(node)}")


def lower_group(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    if node.op_type in VIEWS:
        lower_view(lowering, node)
    else:
        PLANS[node.op_type](lowering, group)


__all__ = ["PLANS", "check_supported", "lower_group", "lower_view"]
