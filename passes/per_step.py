"""Constants that differ from timestep to timestep: rows of a table, chosen in the graph by the timestep's input.

Such a value has rate "step", so that ``hoist`` moves it to variant "step" and the device fills it in before the loop,
for whatever timesteps the loop visits: each gets the row of the nearest timestep of the table. The row is picked by a
product with a vector of zeros and a one, which is exact: a sum of zeros and a number is that number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from ..ir.errors import UserError
from ..ir.making import Maker
from ..ir.program import Program
from ..ir.rates import Rate

STEEP = np.float32(2.0**100)
"""Makes one or more of any difference of timesteps that is not zero."""


def step_input(program: Program) -> ir.Value:
    """The timestep of variant "full". Raises UserError if the program reads none."""
    for value in program.variants["full"].graph.inputs:
        if program.rates.get(str(value.name)) is Rate.STEP:
            return value
    raise UserError(
        f"program {program.name} reads no timestep, so that nothing can differ from step to step."
    )


def input_like(graph: ir.Graph, value: ir.Value, name: str | None = None) -> ir.Value:
    """The graph's input of the value's name, or of another; made if it has none."""
    name = name or str(value.name)
    for one in graph.inputs:
        if one.name == name:
            return one
    made = ir.Value(name=name, shape=value.shape, type=value.type)
    graph.inputs.append(made)
    return made


def share_tensors(models: Iterable[ir.Model]) -> None:
    """Let equal tensors of one name in several graphs, such as tables made for each of them, be one and the same."""
    shared: dict[str, ir.TensorProtocol] = {}
    for model in models:
        for name, value in model.graph.initializers.items():
            if (tensor := value.const_value) is not None:
                other = shared.setdefault(name, tensor)
                if other is not tensor and np.array_equal(other.numpy(), tensor.numpy()):
                    value.const_value = other


def per_step(
    graph: ir.Graph, timestep: ir.Value, timesteps: ArrayLike, rows: NDArray[Any], name: str
) -> ir.Value:
    """Of ``rows`` [n, ...] that of the nearest of ``timesteps`` [n], bit by bit; of two as near the lesser.

    ``timestep`` is an input of the graph, of whole numbers or float32, a scalar or [batch], whose first then counts.
    ``name`` tells the row from others of the same graph. The value has the shape of a row and stands before all nodes
    that there were. Raises ValueError for timesteps that are not distinct and for numbers that are not finite.
    """
    given = np.asarray(timesteps, np.float32)
    order = np.argsort(given)
    if given.shape != rows.shape[:1] or not given.size or not (np.diff(given[order]) > 0).all():
        raise ValueError(f"{len(rows)} rows need as many distinct timesteps, not {given}")
    # A negative zero would come out as the positive one that a sum of zeros is.
    table = rows[order].astype(np.float32) + np.float32(0)
    if not np.isfinite(table).all():
        raise ValueError(f"row {name} is to be chosen from numbers that are not finite")
    nearest = _nearest(graph, timestep, given[order])
    place = nearest.producer()
    assert place is not None
    shape = table.shape[1:]
    maker = Maker(place, name)
    flat = maker.constant(table.reshape(len(table), math.prod(shape)))
    row = maker.add("MatMul", (nearest, flat), (1, math.prod(shape)))
    result = maker.add("Reshape", (row, maker.constant(np.array(shape, np.int64))), shape)
    maker.after()
    return result


def table_of(row: ir.Value) -> ir.Value | None:
    """The initializer that ``per_step`` chooses a row of, [n, numbers], in the order of the rising timesteps; None for
    any other value.
    """
    reshape = row.producer()
    picked = reshape.inputs[0] if reshape is not None and reshape.op_type == "Reshape" else None
    product = picked.producer() if picked is not None else None
    table = product.inputs[1] if product is not None and product.op_type == "MatMul" else None
    return table if table is not None and table.is_initializer() else None


def _nearest(graph: ir.Graph, timestep: ir.Value, timesteps: NDArray[np.float32]) -> ir.Value:
    """A one at the nearest of the rising ``timesteps``, zeros elsewhere: [1, n]. Made once a graph."""
    table = hashlib.sha256(timesteps.tobytes()).hexdigest()[:8]
    name = f"{timestep.name}/nearest.{table}"
    for node in graph:
        if node.outputs[0].name == name:
            return node.outputs[0]
    count = len(timesteps)
    # Rounded, a midpoint may be the later of two neighbours, which lies beyond it.
    before = np.nextafter(timesteps[1:], timesteps[:-1])
    middle = np.minimum(((timesteps[1:].astype(np.float64) + timesteps[:-1]) / 2).astype(np.float32), before)
    least, most = np.finfo(np.float32).min, np.finfo(np.float32).max
    maker = Maker(graph[0], f"nearest.{table}")

    def ends(*ends: Any) -> ir.Value:
        return maker.constant(np.concatenate(ends, dtype=np.float32)[None])

    zero, one, steep = (maker.constant(np.array(number, np.float32)) for number in (0, 1, STEEP))
    assert timestep.shape is not None
    number, size = timestep, math.prod(timestep.shape.numpy())
    if number.dtype is not ir.DataType.FLOAT:
        number = maker.add(
            "Cast", (number,), timestep.shape.numpy(), ir.DataType.FLOAT, to=int(ir.DataType.FLOAT)
        )
    number = maker.add("Reshape", (number, maker.constant(np.array([size, 1]))), (size, 1))
    if size > 1:
        number = maker.add("Slice", (number, *(maker.constant(np.array([at])) for at in (0, 1, 0))), (1, 1))

    def beyond(ends: ir.Value) -> ir.Value:
        """Ones where the timestep is greater, otherwise zeros."""
        above = maker.add("Sub", (number, ends), (1, count))
        return maker.add("Clip", (maker.add("Mul", (above, steep), (1, count)), zero, one), (1, count))

    result = maker.add("Sub", (beyond(ends([least], middle)), beyond(ends(middle, [most]))), (1, count))
    maker.before()
    result.name = name
    return result
