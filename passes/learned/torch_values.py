"""Numbers of ONNX as tensors of torch, and what is read off a node to compute with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ...ir.errors import UserError
from ...ir.modules import module_path

DTYPES = {
    ir.DataType.FLOAT: torch.float32, ir.DataType.DOUBLE: torch.float64, ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16, ir.DataType.INT64: torch.int64, ir.DataType.INT32: torch.int32,
    ir.DataType.INT16: torch.int16, ir.DataType.INT8: torch.int8, ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}  # fmt: skip

_NARROW = {
    ir.DataType.INT4: np.int8, ir.DataType.UINT4: np.uint8, ir.DataType.INT2: np.int8, ir.DataType.UINT2: np.uint8,
    ir.DataType.UINT16: np.int32,
}  # fmt: skip
"""What holds integers of types that torch does not compute with."""


def to_torch(tensor: ir.TensorProtocol) -> Tensor:
    """A copy of a tensor's numbers."""
    array = tensor.numpy()
    if tensor.dtype is ir.DataType.BFLOAT16:
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array.astype(_NARROW.get(tensor.dtype, array.dtype)))


def integer_range(dtype: ir.DataType | None) -> tuple[int, int]:
    """The least and the largest integer of a type."""
    if dtype is None or not dtype.is_integer():
        raise UserError(f"numbers quantised to {dtype} cannot be learned through; quantise to integers.")
    bits = dtype.bitwidth
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.is_signed() else (0, (1 << bits) - 1)


def spread(scale: Tensor, sizes: tuple[int, ...], axis: int, block: int) -> Tensor:
    """A scale or zero point of QuantizeLinear in a shape that goes with [*sizes]: one for all, for each index of
    ``axis``, or for each ``block`` of them.
    """
    if scale.ndim == 0 or scale.numel() == 1:
        return scale.reshape(())
    if block:
        return scale.repeat_interleave(block, axis).narrow(axis, 0, sizes[axis])
    shape = [1] * len(sizes)
    shape[axis] = sizes[axis]
    return scale.reshape(shape)


def rounded(value: Tensor) -> Tensor:
    """To the nearest whole number, halves to the even one. Its gradient is that of the identity."""
    return value + (value.round() - value).detach()


def refuse(node: ir.Node, what: str) -> UserError:
    return UserError(
        f"{node.op_type} {what} at {module_path(node) or node.name} is none that passes learn through; leave it out."
    )


def literal(node: ir.Node, index: int) -> list[Any] | None:
    """The numbers of a constant operand; None if it is left out."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    if value.const_value is None:
        raise refuse(node, f"with operand {index} computed")
    return value.const_value.numpy().ravel().tolist()


def text(node: ir.Node, name: str, default: str) -> str:
    return node.attributes.get_string(name, default)


def ints(node: ir.Node, name: str, default: Iterable[int]) -> list[int]:
    found = node.attributes.get_ints(name)
    return list(default) if found is None else list(found)
