"""A program as what a loop calls, which keeps what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.interpreter import Interpreter
from ...ir.program import Program
from ...ir.rates import Rate
from ...runtime.model import TensorInfo
from ...runtime.schedule import order
from .calls import Calls


class Recorder:
    """In loops of so many ``calls`` each runs the alternative that the program's schedule has for it."""

    def __init__(self, program: Program, calls: int) -> None:
        self._call = Interpreter(program)
        self._order = order(program.schedule, calls, whole=program.whole)
        self._left: list[str] = []
        self.inputs = {name: _told(value, program.rates[name]) for name, value in self._call.inputs.items()}

    def begin(self) -> None:
        """A new picture."""
        self._call.begin()
        self.calls: Calls = []
        self._left = self._order.copy()

    def run(self, **inputs: Any) -> dict[str, NDArray[Any]]:
        """One call: inputs by name -> outputs by name."""
        feeds = {name: np.array(value, dtype=self.inputs[name].dtype) for name, value in inputs.items()}
        self.calls.append(feeds)
        return self._call(feeds, self._left.pop(0))


def _told(value: ir.Value, rate: Rate) -> TensorInfo:
    assert value.dtype is not None and value.shape is not None
    return TensorInfo(str(value.name), str(value.dtype.numpy()), tuple(value.shape.numpy()), rate.value)
