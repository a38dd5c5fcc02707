"""New nodes beside an old one, their values named, typed and shaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .modules import SCOPES


class Maker:
    """Makes nodes that belong to ``place``: named after it, in its module, and put into its graph together."""

    def __init__(self, place: ir.Node, purpose: str) -> None:
        assert isinstance(place.graph, ir.Graph)
        self._graph, self._place = place.graph, place
        self._stem = f"{place.outputs[0].name}/{purpose}"
        self._scopes = {key: text for key, text in place.metadata_props.items() if key == SCOPES}
        self._made: list[ir.Node] = []
        self._count = 0

    def add(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        shape: Sequence[int],
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """The result of a new node; its type is that of the first input unless another is given."""
        node = ir.node(
            operator, inputs, attributes, name=f"{self._stem}/{operator}.{len(self._made)}",
            metadata_props=dict(self._scopes),
        )  # fmt: skip
        (result,) = node.outputs
        result.name, result.shape = self._name(), ir.Shape(shape)
        result.type = ir.TensorType(dtype) if dtype is not None else inputs[0].type
        self._made.append(node)
        return result

    def constant(self, numbers: NDArray[Any]) -> ir.Value:
        """A new initializer."""
        tensor = ir.tensor(np.asarray(numbers))
        shape, kind = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        value = ir.Value(name=self._name(), const_value=tensor, shape=shape, type=kind)
        self._graph.register_initializer(value)
        return value

    def before(self) -> None:
        """Put what was made before the place."""
        self._graph.insert_before(self._place, self._made)

    def after(self) -> None:
        """Put what was made after the place."""
        self._graph.insert_after(self._place, self._made)

    def replace(self, result: ir.Value) -> None:
        """Put what was made where the place was; ``result`` takes the part and the name of its first output."""
        self.before()
        old = self._place.outputs[0]
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        self._graph.remove(self._place, safe=True)
        result.name, old.name = old.name, None

    def _name(self) -> str:
        self._count += 1
        return f"{self._stem}.{self._count}"


def reroute(readers: Iterable[tuple[ir.Node, int]], result: ir.Value) -> None:
    """Let nodes read ``result`` as their inputs of these numbers."""
    for reader, index in readers:
        reader.replace_input_with(index, result)


def supersede(value: ir.Value, result: ir.Value, readers: Sequence[tuple[ir.Node, int]]) -> None:
    """Let ``result``, computed from the value, take its name and its part, for these readers and as an output."""
    reroute(readers, result)
    if isinstance(value.graph, ir.Graph) and value.is_graph_output():
        outputs = value.graph.outputs
        outputs[:] = [result if one is value else one for one in outputs]
    value.name, result.name = f"{value.name}.before", value.name
