"""A program as what a loop calls, which keeps what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.interpreter import Interpreter
from ...ir.program import Program
from ...runtime.model import TensorInfo
from ...runtime.schedule import order
from .calls import Calls


class Recorder:
    """In loops of so many ``calls`` each runs the alternative that the program's schedule has for it."""

    def __init__(self, program: Program, calls: int) -> None:
        self._call = Interpreter(program)
        self._order = order(program.schedule, calls, whole=program.whole)
        self._left: list[str] = []
        self.inputs = {
            name: TensorInfo(
                name, str(value.dtype.numpy()), tuple(value.shape.numpy()), program.rates[name].value
            )  # type: ignore[union-attr]
            for name, value in self._call.inputs.items()
        }

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
