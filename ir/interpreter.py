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

    ``watched`` names values inside variants that a call returns besides the outputs; ``inputs`` are what the caller
    gives, by name. Raises ValueError for a program with tables or state: who gives those is not settled.
    """

    def __init__(self, program: Program, watched: Collection[str] = (), threads: int = 0) -> None:
        if program.tables or program.state:
            raise ValueError(
                f"program {program.name} has tables or state, which calls one by one do not know"
            )
        variants = [name for name in program.variants if name != "full"]
        self._variants = [_Variant(program.variants[name], watched, threads) for name in (*variants, "full")]
        self.inputs = {
            str(value.name): value
            for model in program.variants.values()
            for value in model.graph.inputs
            if value.name in program.rates
        }

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """One step: inputs by name -> the outputs of "full" and what is watched, by name."""
        known = dict(inputs)
        found: dict[str, NDArray[Any]] = {}
        for variant in self._variants:
            results = variant({name: known[name] for name in variant.reads})
            known |= results
            found |= {name: results[name] for name in variant.watched if name in results}
        return {name: known[name] for name in self._variants[-1].outputs} | found


class _Variant:
    """One graph; the results of its last inputs are kept."""

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
        self._names = [*self.outputs, *(str(value.name) for value in inside)]
        # ONNX Runtime returns outputs of the graph alone.
        model.graph.outputs.extend(inside)
        try:
            self._session: Any = referee.session(model, threads=threads)
        finally:
            for _ in inside:
                model.graph.outputs.pop()
        self._last: tuple[Arrays, dict[str, NDArray[Any]]] | None = None

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if self._last is None or not _same(self._last[0], inputs):
            results: list[NDArray[Any]] = self._session.run(self._names, dict(inputs))
            # The caller may fill the same arrays anew for the next step.
            kept = {name: np.array(value) for name, value in inputs.items()}
            self._last = kept, dict(zip(self._names, results, strict=True))
        return self._last[1]


def _same(before: Arrays, now: Arrays) -> bool:
    return all(np.array_equal(before[name], value) for name, value in now.items())
