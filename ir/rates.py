"""How often each value of the graph changes while a picture is made."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import onnx_ir as ir

from .operators import RANDOM


class Rate(Enum):
    """Ordered by what a value may depend on."""

    CONSTANT = "constant"
    PROMPT = "prompt"
    STEP = "step"
    SAMPLE = "sample"

    def join(self, other: Rate) -> Rate:
        """The rate of something computed from both.

        Prompt and step together make sample: such a value is different for every prompt *and* step, so that
        neither a prologue nor a table filled before the prompt is known could hold it.
        """
        if self is other or other is Rate.CONSTANT:
            return self
        if self is Rate.CONSTANT:
            return other
        return Rate.SAMPLE


def analyse(graph: ir.Graph, inputs: Mapping[str, Rate]) -> dict[str, Rate]:
    """The rate of every value by name, in one forward walk.

    Initializers are constant, inputs that ``inputs`` does not name are sample. A node that draws random
    numbers gives others at every call, whatever it reads.
    """
    rates = dict.fromkeys(graph.initializers, Rate.CONSTANT)
    for value in graph.inputs:
        rates[str(value.name)] = inputs.get(str(value.name), Rate.SAMPLE)
    for node in graph:
        rate = Rate.SAMPLE if node.op_type in RANDOM else Rate.CONSTANT
        for value in node.inputs:
            if value is not None:
                rate = rate.join(rates[str(value.name)])
        for output in node.outputs:
            rates[str(output.name)] = rate
    return rates
