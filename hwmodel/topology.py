"""SCALE-Sim topology tables as workloads, so that designs can be compared row by row.

A convolution has columns name, IFMAP height and width, filter height and width, channels, filters, stride (and may
have a second stride); a GEMM has name, M, N, K. Both may end with a comma, as SCALE-Sim wants, and with a sparsity
ratio, of which only the dense 1:1 is taken. A convolution is not padded, and one whose name holds "DP" is
depthwise: one filter for each channel and pixel, run channel by channel.
"""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

from ..ir.errors import UserError, first_line
from ..ir.rates import Rate
from .specs import Bits
from .workload import Convolution, Gemm, Kind, Operand, Operation, TensorClass, Workload


def load(path: str | os.PathLike[str], native: Bits) -> Workload:
    """Read a topology table as a workload of one variant "full".

    Raises UserError, naming the line, for a table that is empty or of another form, a size that is not a
    positive whole number, or a filter larger than its input.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{source} is not a readable topology table: {first_line(error)}; give a .csv with a line a layer."
        ) from error
    operations = tuple(
        _operation(cells, f"{source}, line {number}", native)
        for number, cells in enumerate(csv.reader(lines), 1)
        if number > 1 and any(cell.strip() for cell in cells)
    )
    if not operations:
        raise UserError(f"{source} has no layers; give a line for each below the heading.")
    return Workload(source.stem, {"full": operations}, {"full": Rate.SAMPLE}, {})


def _operation(cells: list[str], where: str, native: Bits) -> Operation:
    name, *given = (cell.strip() for cell in cells)
    while given and not given[-1]:
        given.pop()
    if given and ":" in given[-1] and given.pop().replace(" ", "") != "1:1":
        raise UserError(f"{where}: layer {name} is sparse; only dense layers (1:1) are modelled.")
    try:
        sizes = [int(cell) for cell in given]
    except ValueError:
        raise UserError(f"{where}: layer {name} has a size that is not a whole number.") from None
    if len(sizes) not in (3, 7, 8):
        raise UserError(
            f"{where}: layer {name} has {len(sizes)} sizes; a GEMM has 3 (M, N, K), a convolution 7 or 8."
        )
    if min(sizes) < 1:
        raise UserError(f"{where}: layer {name} has the size {min(sizes)}; sizes start at 1.")
    if len(sizes) == 3:
        rows, columns, reduction = sizes
        return _described(name, Kind.MATMUL, Gemm(1, rows, reduction, columns), rows * reduction, native)
    height, width, high, wide, channels, filters, *strides = sizes
    down, across = (strides * 2)[:2]
    if high > height or wide > width:
        raise UserError(
            f"{where}: layer {name} has a filter {high}x{wide} larger than its input {height}x{width}."
        )
    # As SCALE-Sim has it, a window may hang over the far edge.
    rows, columns = math.ceil((height - high) / down) + 1, math.ceil((width - wide) / across) + 1
    groups = channels if "DP" in name else 1
    bounds = Convolution(
        1, filters * groups, channels, rows, columns, (height, width), (high, wide), (down, across), groups
    )
    return _described(name, Kind.CONVOLUTION, bounds, height * width * channels, native)


def _described(name: str, kind: Kind, bounds: Convolution | Gemm, read: int, native: Bits) -> Operation:
    gemm = bounds.as_gemm()

    def tensor(role: str, elements: int, tensor_class: TensorClass) -> Operand:
        return Operand(f"{name}/{role}", elements, native.of(tensor_class), tensor_class)

    return Operation(
        name,
        kind,
        bounds,
        (
            tensor("input", read, TensorClass.ACTIVATIONS),
            tensor("weights", gemm.batch * gemm.reduction * gemm.columns, TensorClass.WEIGHTS),
        ),
        tensor("output", gemm.batch * gemm.rows * gemm.columns, TensorClass.ACTIVATIONS),
    )
