"""What each product costs in each format: the target's costs of programs of one format, looked up node by node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir.program import Program
from ..costs import Cost, CostModel
from ..quantise.apply import quantised
from ..quantise.products import Product
from ..quantise.ranges import Ranges
from .formats import FORMATS, FormatName
from .programme import Conversion, Problem


def problem(
    cost_model: CostModel,
    program: Program,
    products: Sequence[Product],
    formats: Sequence[FormatName],
    ranges: Ranges,
) -> tuple[Problem, Cost]:
    """The integer programme over ``products`` and ``formats``, without errors yet, and what the program costs as it is.

    Besides a program of each format, one is costed in which of several products that read a value the first keeps its
    numbers: what integers cost beside them is seen nowhere else.
    """
    plain = cost_model(program)
    quantities = tuple(plain.by_node)

    def costed(choices: Mapping[str, FormatName]) -> _Costed:
        changed = quantised(program, {name: FORMATS[one] for name, one in choices.items()}, ranges)
        return _Costed(cost_model(changed), changed)

    uniform = {name: costed({one.name: name for one in products}) for name in formats}
    costs = {
        quantity: np.array(
            [[uniform[name].cost.of(quantity, one.name) for name in formats] for one in products]
        )
        for quantity in quantities
    }
    integers = tuple(FORMATS[name].activations != "float32" for name in formats)
    conversions = list[Conversion]()
    if True in integers:
        narrow = formats[integers.index(True)]
        readers: dict[ir.Value, list[int]] = defaultdict(list)
        for index, one in enumerate(products):
            readers[one.left].append(index)
        firsts = {products[found[0]].name for found in readers.values() if len(found) > 1}
        beside = costed({one.name: narrow for one in products if one.name not in firsts})
        made = {one.name for one in products}
        for value, found in readers.items():
            needed = value.is_graph_output() or len({node for node, _ in value.uses()}) > len(found)
            alone = not needed and len(found) == 1
            seen = [
                {quantity: one.conversion(value, quantity, plain, made) for quantity in quantities}
                for one in (uniform[narrow], uniform[narrow] if needed or alone else beside)
            ]
            conversions.append(Conversion(tuple(found), needed, *seen))
    fixed = {
        quantity: plain.total(quantity) - sum(plain.of(quantity, one.name) for one in products)
        for quantity in quantities
    }
    return Problem(np.zeros((len(products), len(formats))), costs, fixed, integers, conversions), plain


class _Costed:
    """A program with integers, and its cost."""

    def __init__(self, cost: Cost, program: Program) -> None:
        self.cost = cost
        self._integers = {
            str(node.inputs[0].name): str(node.outputs[0].name)
            for node in program.variants["full"].graph
            if node.op_type == "QuantizeLinear" and node.inputs[0] is not None
        }

    def conversion(self, value: ir.Value, quantity: str, plain: Cost, products: set[str]) -> float:
        """What it costs to have ``value`` as integers: a kernel's, or what that which makes it costs more than in
        ``plain``. What a product costs more is in its own table.
        """
        known = self.cost.by_node[quantity]
        integers = self._integers.get(str(value.name), "")
        if integers in known:
            return known[integers]
        maker = value.producer()
        while maker is not None:
            name = str(maker.outputs[0].name)
            if name in known:
                return 0.0 if name in products else known[name] - plain.of(quantity, name)
            maker = maker.inputs[0].producer() if maker.inputs and maker.inputs[0] is not None else None
        return 0.0
