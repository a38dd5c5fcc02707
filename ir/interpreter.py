"""A program on the referee: what the compiled program has to agree with, and what passes measure their effect by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from . import referee
from .program import Program

Arrays = Mapping[str, NDArray[Any]]


class Interpreter:
    """Calls a program as its loop does: whatever a step shares with the one before is not computed again.

    ``watched`` names values inside variants, and state that they read, which a call returns besides the outputs;
    ``inputs`` are what the caller gives, by name.
    """

    def __init__(self, program: Program, watched: Collection[str] = (), threads: int = 0) -> None:
        self._variants = {name: _Variant(model, watched, threads) for name, model in program.variants.items()}
        alternatives = program.alternatives
        self._shared = [name for name in program.variants if name not in alternatives]
        self._left = {
            name: {label: str(value.name) for label, value in program.state_left(name).items()}
            for name in alternatives
        }
        self._read = {name: program.state_read(name) for name in alternatives}
        self._watched = frozenset(watched)
        self._state: dict[str, NDArray[Any]] = {}
        self.inputs = {
            str(value.name): value
            for model in program.variants.values()
            for value in model.graph.inputs
            if value.name in program.rates
        }

    def begin(self) -> None:
        """A new picture: what steps have left is forgotten."""
        self._state.clear()

    def __call__(self, inputs: Arrays, variant: str = "full") -> dict[str, NDArray[Any]]:
        """One step: inputs by name -> the outputs of one of the program's alternatives and what is watched, by name.

        Raises ValueError for state that no step has left since ``begin``.
        """
        if missing := [name for name in self._read[variant] if name not in self._state]:
            raise ValueError(f"variant {variant} reads {missing[0]}, which no step has left")
        known = {**inputs, **self._state}
        found = {label: known[label] for label in self._read[variant] if label in self._watched}
        for name in (*self._shared, variant):
            one = self._variants[name]
            read = {label: known[label] for label in one.reads}
            results = one.again(read, given=self.inputs.keys()) if name in self._shared else one.call(read)
            known |= results
            found |= {label: results[label] for label in one.watched if label in results}
        left = self._left[variant]
        self._state |= {label: known[name] for label, name in left.items()}
        returned = (label for label in self._variants[variant].outputs if label not in left.values())
        return {label: known[label] for label in returned} | found


class _Variant:
    """One graph."""

    def __init__(self, model: ir.Model, watched: Collection[str], threads: int) -> None:
        self.reads = [str(value.name) for value in model.graph.inputs]
        self.outputs = [str(value.name) for value in model.graph.outputs]
        inside = [
            value
            for node in model.graph
            for value in node.outputs
            if value.name in watched and not value.is_graph_output()
        ]
        self.watched = [name for name in self.outputs if name in watched]
        self.watched += [str(value.name) for value in inside]
        # ONNX Runtime returns outputs of the graph alone.
        model.graph.outputs.extend(inside)
        try:
            names = [*self.outputs, *(str(value.name) for value in inside)]
            self.call = referee.caller(model, names, threads)
        finally:
            for _ in inside:
                model.graph.outputs.pop()
        self._last: tuple[Arrays, dict[str, NDArray[Any]]] | None = None

    def again(self, inputs: Arrays, given: Collection[str]) -> dict[str, NDArray[Any]]:
        """What the same inputs gave last time, if these are. Those ``given`` by the caller may be filled anew for the
        next step.
        """
        if self._last is None or not _same(self._last[0], inputs):
            results = self.call(inputs)
            kept = {name: np.array(value) if name in given else value for name, value in inputs.items()}
            self._last = kept, results
        return self._last[1]


def _same(before: Arrays, now: Arrays) -> bool:
    return all(before[name] is value or np.array_equal(before[name], value) for name, value in now.items())
