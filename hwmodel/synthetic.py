"""Operations that no program has: the shapes that figures are published for."""

from __future__ import annotations

from collections.abc import Sequence

from .workload import Convolution, Gemm, Kind, Operand, Operation, TensorClass


def operation(bounds: Convolution | Gemm, bits: Sequence[int]) -> Operation:
    """An operation with the operands that its bounds imply; ``bits`` are of both and of the result."""
    first, second, result = bits
    gemm = bounds.as_gemm()
    read = gemm.batch * gemm.rows * gemm.reduction
    kind = Kind.MATMUL
    if isinstance(bounds, Convolution):
        read, kind = bounds.batch * bounds.inputs * bounds.size[0] * bounds.size[1], Kind.CONVOLUTION
    held = gemm.batch * gemm.reduction * gemm.columns
    return Operation(
        "synthetic",
        kind,
        bounds,
        (
            Operand("input", read, first, TensorClass.ACTIVATIONS),
            Operand("weights", held, second, TensorClass.WEIGHTS),
        ),
        Operand("output", gemm.batch * gemm.rows * gemm.columns, result, TensorClass.ACTIVATIONS),
    )


def square(outputs: int, inputs: int, rows: int, columns: int) -> Convolution:
    """A padded 3 x 3 convolution of stride 1."""
    return Convolution(1, outputs, inputs, rows, columns, (rows, columns), (3, 3), (1, 1))
