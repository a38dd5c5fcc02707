"""golden.json: a few elements of what every kernel call should give, by the referee, for fick-run --self-test.

A device fills the inputs in the same way (runtime/native/pipeline/self_test.c) and compares after each call, so that
the first layer that is wrong has a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.interpreter import Interpreter
from ...ir.program import Program
from ...runtime.noise import Noise
from ...targets.compiled import Compiled, Result, StateTensor

SAMPLES = 6
"""Elements of a call, spread evenly."""

TIMESTEP = 501
TYPES = {"float32": 0, "int64": 1, "int32": 2, "bool": 3, "bfloat16": 4, "int8": 5, "float16": 6}
NARROW = ("int8", "bfloat16", "float16")
SPACES = {"arena": 1, "state": 2, "kept": 3}

EXACT, ROUNDED = 1e-3, 5e-2
"""What an element may be off by, of its tensor's largest: some hundred layers' roundings of float32; and where values
are rounded further, those that fall on the other side of a step, and what later layers make of that. Integers are such
values, and may be off by as much."""


def golden(programs: Mapping[str, Program], compiled: Mapping[str, Compiled]) -> bytes:
    """The file for all components."""
    found = {name: _component(programs[name], one) for name, one in compiled.items()}
    return json.dumps({"components": found}, separators=(",", ":")).encode()


def _component(program: Program, compiled: Compiled) -> dict[str, list[list[float]]]:
    watched = {one.value for results in compiled.results.values() for one in results}
    # One thread: the same sums in the same order, and so the same file.
    referee = Interpreter(program, watched, threads=1)
    inputs = {one.name: _input(index, one) for index, one in enumerate(compiled.inputs)}
    narrow = any(one.dtype in NARROW for results in compiled.results.values() for one in results)
    rows: dict[str, list[list[float]]] = {}
    referee.begin()
    for variant in program.alternatives:
        values = referee(inputs, variant)
        for name in (*(one for one in compiled.results if one not in program.alternatives), variant):
            if name not in rows:
                found = (_row(one, values, narrow) for one in compiled.results[name])
                rows[name] = [row for row in found if row]
    return rows


def _input(index: int, tensor: StateTensor) -> NDArray[Any]:
    """As self_test.c fills it; sixteen numbers are drawn for each that is kept."""
    count = int(np.prod(tensor.shape, dtype=np.int64))
    if tensor.rate == "step":
        made = np.full(count, TIMESTEP)
    elif tensor.dtype == "float32":
        made = Noise(index + 1).standard_normal((16 * count,))[::16]
    else:
        made = np.arange(count) % 2
    return made.astype(tensor.dtype).reshape(tensor.shape)


def _row(result: Result, values: Mapping[str, NDArray[Any]], narrow: bool) -> list[float]:
    if result.value not in values or result.dtype not in TYPES:
        return []
    array = np.asarray(values[result.value], np.float64)
    if array.shape != result.shape or not array.size:
        return []
    tolerance = 0.0
    if result.dtype in ("float32", *NARROW):
        tolerance = float(f"{np.abs(array).max() * (ROUNDED if narrow else EXACT):.2g}")
    row: list[float] = [result.call, SPACES[result.space], TYPES[result.dtype], tolerance]
    for place in np.linspace(0, array.size - 1, min(SAMPLES, array.size)).astype(int):
        at = np.unravel_index(place, array.shape)
        offset = result.offset_bytes + sum(
            int(index) * step for index, step in zip(at, result.strides_bytes, strict=True)
        )
        row += [offset, float(f"{array[at]:.7g}")]
    return row
