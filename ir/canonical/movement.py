"""Rules for operators that compute nothing: drop what does nothing, and say in one node what several say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript.rewriter import pattern

from .propagate import dims, literal
from .writing import first, span, written_out


def _pass_on(op: Any, x: ir.Value, **rest: Any) -> Any:
    return op.Identity(x)


def _as_reshape(op: Any, x: ir.Value, y: ir.Value) -> Any:
    return op.Reshape(x, _shape(op, dims(y)))


def _is_typed(context: Any, y: ir.Value, **rest: Any) -> bool:
    return y.shape is not None


def _dropout(op: Any, x: Any) -> Any:
    return op.Dropout(x, _allow_other_inputs=True)


def _keeps(op_type: str, idle: Callable[[ir.Node], bool] = lambda node: True) -> pattern.RewriteRule:
    """An operator that changes neither type nor shape and, as ``idle`` says, nothing else."""

    def target(op: Any, x: Any) -> Any:
        return getattr(op, op_type)(x, _outputs=["y"], _allow_other_inputs=True)

    def check(context: Any, x: ir.Value, y: ir.Value) -> bool:
        node = y.producer()
        alike = x.dtype == y.dtype and x.shape is not None and dims(x) == dims(y)
        return alike and node is not None and idle(node)

    return pattern.RewriteRule(target, _pass_on, check, name=f"no_op_{op_type}")


def _all_are(place: int, number: int) -> Callable[[ir.Node], bool]:
    """Whether the table at an input is absent or that number throughout: a flip keeps the shape too."""

    def idle(node: ir.Node) -> bool:
        given = node.inputs[place] if place < len(node.inputs) else None
        table = literal(given)
        return given is None or (table is not None and bool(np.all(table == number)))

    return idle


def _neutral(op_type: str, number: float) -> pattern.RewriteRule:
    """An elementwise operator with the number that leaves the other operand as it is."""

    def target(op: Any, x: Any, c: Any) -> Any:
        return getattr(op, op_type)(x, c, _outputs=["y"])

    def check(context: Any, x: ir.Value, c: ir.Value, y: ir.Value) -> bool:
        table = literal(c)
        return table is not None and bool(np.all(table == number)) and dims(x) == dims(y)

    return pattern.RewriteRule(target, _pass_on, check, name=f"neutral_{op_type}")


def _is_identity_perm(context: Any, x: ir.Value, y: ir.Value) -> bool:
    perm = _perm(y)
    return perm == sorted(perm)


def _perm(transposed: ir.Value) -> list[int]:
    node = transposed.producer()
    assert node is not None and node.inputs[0] is not None
    rank = len(dims(node.inputs[0]))
    return list(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))


def _shape(op: Any, shape: tuple[int, ...]) -> Any:
    return op.Constant(value=ir.tensor(np.array(shape, np.int64)))


def _to_reshape(op_type: str) -> pattern.RewriteRule:
    def target(op: Any, x: Any) -> Any:
        return getattr(op, op_type)(x, _outputs=["y"], _allow_other_inputs=True)

    return pattern.RewriteRule(
        target,
        _as_reshape,
        _is_typed,
        name=f"{op_type}_to_reshape",
    )


def _transpose(op: Any, x: Any) -> Any:
    return op.Transpose(x, _outputs=["y"])


def _two_transposes(op: Any, x: Any) -> Any:
    return op.Transpose(op.Transpose(x, _outputs=["inner"]), _outputs=["outer"])


def _one_transpose(op: Any, x: ir.Value, inner: ir.Value, outer: ir.Value) -> Any:
    first = _perm(inner)
    return op.Transpose(x, perm=[first[axis] for axis in _perm(outer)])


def _two_reshapes(op: Any, x: Any) -> Any:
    inner = op.Reshape(x, _allow_other_inputs=True)
    return op.Reshape(inner, _outputs=["y"], _allow_other_inputs=True)


def _sandwich(op: Any, x: Any) -> Any:
    """Reshape, Transpose, Reshape; one of the reshapes only adds or drops axes of size one."""
    inner = op.Reshape(x, _outputs=["inner"], _allow_other_inputs=True)
    return op.Reshape(op.Transpose(inner, _outputs=["turned"]), _outputs=["y"], _allow_other_inputs=True)


def _wide(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _first_is_unit(context: Any, x: ir.Value, inner: ir.Value, turned: ir.Value, y: ir.Value) -> bool:
    typed = len(dims(inner)) == len(_perm(turned))
    return typed and _wide(dims(x)) == _wide(dims(inner)) and dims(x) != dims(inner)


def _drop_first(op: Any, x: ir.Value, inner: ir.Value, turned: ir.Value, y: ir.Value) -> Any:
    wide = [axis for axis, size in enumerate(dims(x)) if size != 1]
    order = iter(_rank_of(wide, [axis for axis in _perm(turned) if dims(inner)[axis] != 1], dims(inner)))
    perm = [next(order) if size != 1 else axis for axis, size in enumerate(dims(x))]
    return op.Reshape(op.Transpose(x, perm=perm), _shape(op, dims(y)))


def _rank_of(wide: list[int], order: list[int], inner: tuple[int, ...]) -> list[int]:
    """The wide axes of the other shape in the order that a permutation of this shape's wide axes gives."""
    places = {axis: place for place, axis in enumerate(a for a, size in enumerate(inner) if size != 1)}
    return [wide[places[axis]] for axis in order]


def _last_is_unit(context: Any, x: ir.Value, inner: ir.Value, turned: ir.Value, y: ir.Value) -> bool:
    # A value that another rule made in this very round has no shape yet: its turn comes in the next.
    typed = len(dims(inner)) == len(dims(turned)) == len(_perm(turned))
    return typed and _wide(dims(turned)) == _wide(dims(y)) and dims(turned) != dims(y)


def _drop_last(op: Any, x: ir.Value, inner: ir.Value, turned: ir.Value, y: ir.Value) -> Any:
    # Undo the permutation on the wanted shape: its wide axes go back to the order of `inner`.
    out = dims(y)
    wide_out = [axis for axis, size in enumerate(out) if size != 1]
    order = [axis for axis in _perm(turned) if dims(inner)[axis] != 1]
    wide_inner = [axis for axis, size in enumerate(dims(inner)) if size != 1]
    source = list(out)
    for place, axis in enumerate(wide_inner):
        source[wide_out[place]] = dims(inner)[axis]
    perm = list(range(len(out)))
    for target, axis in zip(wide_out, order, strict=True):
        perm[target] = wide_out[wide_inner.index(axis)]
    return op.Transpose(op.Reshape(x, _shape(op, tuple(source))), perm=perm)


def _reads_one(node: ir.Node) -> bool:
    chosen = literal(node.inputs[1])
    return chosen is not None and chosen.size == 1


def _one_part(op: Any, node: ir.Node) -> Any:
    """What one number chooses of an axis is a slice: no kernel need copy it."""
    x, chosen = first(node), literal(node.inputs[1])
    assert chosen is not None
    axis = node.attributes.get_int("axis", 0) % len(dims(x))
    at = int(chosen.reshape(())) % dims(x)[axis]
    return op.Reshape(span(op, x, axis, at, at + 1), _shape(op, dims(node.outputs[0])))


def _chosen_places(node: ir.Node) -> NDArray[np.int64] | None:
    """Of a GatherND by numbers of the code, what it reads, counted along all axes that they are of at once."""
    indices, batch = literal(node.inputs[1]), node.attributes.get_int("batch_dims", 0)
    if indices is None:
        return None
    shape, count = dims(first(node)), indices.shape[-1]
    lead, extents = shape[:batch], shape[batch : batch + count]
    own = np.ravel_multi_index(tuple(np.moveaxis(indices % extents, -1, 0)), extents)
    image = np.arange(math.prod(lead)).reshape(*lead, *[1] * (own.ndim - batch))
    return image * math.prod(extents) + own


def _by_number(op: Any, node: ir.Node) -> Any:
    places = _chosen_places(node)
    assert places is not None
    inner = dims(node.outputs[0])[places.ndim :]
    flat = op.Reshape(first(node), _shape(op, (-1, *inner)))
    return op.Gather(flat, op.Constant(value=ir.tensor(places.astype(np.int64))), axis=0)


def _holds_nothing(value: ir.Value | None) -> bool:
    return 0 in dims(value)


def _joins_nothing(node: ir.Node) -> bool:
    return any(map(_holds_nothing, node.inputs)) and not _holds_nothing(node.outputs[0])


def _without_nothing(op: Any, node: ir.Node) -> Any:
    return op.Concat(*(one for one in node.inputs if not _holds_nothing(one)), **node.attributes)


def _single_concat(op: Any, x: Any) -> Any:
    return op.Concat(x)


DEAD: list[pattern.RewriteRule] = [
    *(_keeps(op_type) for op_type in ("Cast", "Reshape", "Expand", "Tile", "CastLike")),
    _keeps("Pad", _all_are(1, 0)),
    _keeps("Slice", _all_are(4, 1)),
    *(_keeps(op_type) for op_type in ("Squeeze", "Unsqueeze", "Flatten")),
    _neutral("Mul", 1.0),
    _neutral("Div", 1.0),
    _neutral("Add", 0.0),
    _neutral("Sub", 0.0),
    _neutral("Pow", 1.0),
    pattern.RewriteRule(_dropout, _pass_on, name="dropout"),
    written_out("Concat", _without_nothing, _joins_nothing),
    pattern.RewriteRule(_single_concat, _pass_on, name="single_concat"),
    pattern.RewriteRule(_transpose, _pass_on, _is_identity_perm, name="no_op_transpose"),
]
MERGED: list[pattern.RewriteRule] = [
    written_out("Gather", _one_part, _reads_one),
    written_out("GatherND", _by_number, lambda node: _chosen_places(node) is not None),
    *(_to_reshape(op_type) for op_type in ("Squeeze", "Unsqueeze", "Flatten")),
    pattern.RewriteRule(_two_reshapes, _as_reshape, _is_typed, name="reshape_reshape"),
    pattern.RewriteRule(_two_transposes, _one_transpose, name="transpose_transpose"),
    pattern.RewriteRule(_sandwich, _drop_first, _first_is_unit, name="unit_reshape_before_transpose"),
    pattern.RewriteRule(_sandwich, _drop_last, _last_is_unit, name="unit_reshape_after_transpose"),
]
