"""Rows chosen by the timestep: the same bits from the referee and from machine code as in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.hoist import Hoist
from fick.passes.per_step import per_step, step_input
from fick.targets import profile

from .test_operators import model

NEIGHBOURS = np.nextafter(np.float32(7), np.float32(8))
WHOLE = np.array([981, 1, 501, 21, 999], np.float32)
LEVELS = np.array([80.0, 0.002, 1.2, 7.0, NEIGHBOURS], np.float32)


def nearest(timesteps: NDArray[np.float32], at: float) -> int:
    """Which row, in float64: the sums of two float32 midpoints are exact there."""
    far = np.abs(timesteps.astype(np.float64) - at)
    return int(min(np.flatnonzero(far == far.min()), key=lambda index: timesteps[index]))


def asked(timesteps: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The timesteps, what lies between them, and what lies beyond the ends."""
    rising = np.sort(timesteps).astype(np.float64)
    between = np.concatenate([rising[:-1] + share * np.diff(rising) for share in (0.25, 0.5, 0.75)])
    beyond = [rising[0] / 2, 0.0, rising[-1] + 1, 1e6]
    return np.unique(np.concatenate([rising, between, beyond]).astype(dtype))


def rowed(text: str, timesteps: NDArray[np.float32], rows: NDArray[np.float32]) -> Imported:
    """The graph, whose y is now three rows apart from what x leaves of them: a row, a scale and a row again."""
    imported = Imported(
        canonicalise(model(text, np.random.default_rng(0))), "rows", "onnx", {"t": "step", "x": "sample"}, frozenset()
    )  # fmt: skip
    graph = imported.model.graph
    timestep = next(value for value in graph.inputs if value.name == "t")
    (add,) = (node for node in graph if node.op_type == "Add")
    (mul,) = (node for node in graph if node.op_type == "Mul")
    add.replace_input_with(1, per_step(graph, timestep, timesteps, rows, "row"))
    mul.replace_input_with(1, per_step(graph, timestep, timesteps, rows[:, 0, 0, 0], "scale"))
    return imported


CASES = {
    "scalar": ("float t", LEVELS),
    "one": ("float[1] t", LEVELS),
    "batch": ("float[3] t", LEVELS),
    "whole": ("int64 t", WHOLE),
    "whole batch": ("int64[2] t", WHOLE),
    "always the same": ("float[1] t", LEVELS[:1]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_row_of_the_nearest_timestep_bit_by_bit(name: str, tmp_path: Path) -> None:
    """y = x + row and z = x * scale, of which x = 0 leaves the row and x = 1 the scale."""
    declared, timesteps = CASES[name]
    text = (
        f"g ({declared}, float[2, 5, 1, 3] x) => (float[2, 5, 1, 3] y, float[2, 5, 1, 3] z) "
        "<float[1] a> { y = Add(x, a) z = Mul(x, a) }"
    )
    rows = np.random.default_rng(1).standard_normal((len(timesteps), 5, 1, 1)).astype(np.float32)
    rows[0, 1] = -0.0
    rows[-1, 2] = 1e-38
    imported = rowed(text, timesteps, rows)
    call = Interpreter(fused(rowed(text, timesteps, rows)))
    skeleton = build({"rows": imported}, profile.load("host"), cache_folder(), name="rows")
    skeleton.write(tmp_path / "rows.fick", {"rows": tensors(imported.model)})
    with fick.load(tmp_path / "rows.fick") as loaded:
        info = loaded.inputs["t"]
        steps = asked(timesteps, info.dtype)
        loaded.prepare(steps)
        for at in steps:
            row = rows[nearest(timesteps, float(at))]
            wanted = {
                "y": np.broadcast_to(row + 0, (2, 5, 1, 3)),
                "z": np.full((2, 5, 1, 3), row[0, 0, 0] + 0),
            }
            for output, x in (("y", 0), ("z", 1)):
                feeds = {"t": np.full(info.shape, at, info.dtype), "x": np.full((2, 5, 1, 3), x, np.float32)}
                for results in (call(feeds), loaded.run(**feeds)):
                    np.testing.assert_array_equal(
                        np.asarray(results[output]).view(np.uint32),
                        wanted[output].view(np.uint32),
                        err_msg=f"{at}",
                    )


def program(rates: dict[str, Rate]) -> tuple[Program, ir.Graph]:
    text = "g (float[1] t, float[2, 4] x) => (float[2, 4] y) { y = Mul(x, t) }"
    graph = canonicalise(model(text, np.random.default_rng(0)))
    return Program("rows", {"full": graph}, rates), graph.graph


def test_rows_are_chosen_once_for_all_and_before_the_loop() -> None:
    whole, graph = program({"t": Rate.STEP, "x": Rate.SAMPLE})
    timestep = step_input(whole)
    rows = np.arange(5, dtype=np.float32)
    values = [per_step(graph, timestep, LEVELS, rows, name) for name in ("a", "b")]
    values.append(per_step(graph, timestep, WHOLE, rows, "c"))
    # Listed in another order they are the same timesteps.
    values.append(per_step(graph, timestep, LEVELS[::-1], rows[::-1], "d"))
    chosen = [value.producer().inputs[0].producer().inputs[0] for value in values]
    assert chosen[0] is chosen[1] is chosen[3] and chosen[0] is not chosen[2]
    place = graph[len(graph) - 1]
    for value in values:
        scaled = ir.node("Mul", [place.outputs[0], value])
        scaled.outputs[0].name = f"{value.name}.used"
        scaled.outputs[0].type, scaled.outputs[0].shape = place.outputs[0].type, place.outputs[0].shape
        graph.append(scaled)
        place = scaled
    graph.outputs[0] = place.outputs[0]
    hoisted = apply([Hoist()], whole, Context())
    loop = [node.op_type for node in hoisted.variants["full"].graph]
    # What is left of a row in the loop is how it is read.
    assert set(loop) <= {"Mul", "Reshape"} and loop.count("Mul") == 5
    assert [node.op_type for node in hoisted.variants["step"].graph].count("MatMul") == 4
    call = Interpreter(hoisted)
    for at in (80.0, 0.0, 1.2):
        got = call({"t": np.array([at], np.float32), "x": np.ones((2, 4), np.float32)})
        (y,) = got.values()
        level, whole_step = rows[nearest(LEVELS, at)], rows[nearest(WHOLE, at)]
        np.testing.assert_allclose(y, at * level**3 * whole_step, rtol=1e-6)


def test_what_cannot_be_a_table_is_refused() -> None:
    whole, graph = program({"x": Rate.SAMPLE})
    with pytest.raises(UserError, match="program rows reads no timestep, so that nothing can differ"):
        step_input(whole)
    timestep = graph.inputs[0]
    for timesteps, rows, said in (
        ([1, 1], [0, 0], "distinct timesteps"),
        ([1, 2], [0], "distinct timesteps"),
        ([], [], "distinct timesteps"),
        ([1, 2], [0, np.inf], "not finite"),
    ):
        with pytest.raises(ValueError, match=said):
            per_step(graph, timestep, timesteps, np.array(rows, np.float32), "row")
