"""Convolutions in a row that one stands for: exactly where nothing lies between, and the best of all ways to part them
against dynamic programming.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from fick.compiler.costs.predicted import Predicted
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.prune import Prune, PruneBlocksConfig, PruneConfig
from fick.passes.prune.candidates import candidates
from fick.passes.prune.merging import segments
from fick.passes.prune.study import Study
from fick.passes.prune.surgery import kernel_of

from .test_prune_blocks import SLOW

FORM = """<ir_version: 11, opset_import: ["" : 24]>
row (float[2,4,8,8] sample, float[6,4,3,3] w0, float[6,6,3,3] w1, float[6,6,1,1] w2, float[6,6,3,3] w3, float[4,6,3,3] w4)
  => (float[2,4,8,8] output)
{
  first = Conv<pads=[1,1,1,1]>(sample, w0)
  active = Swish(first)
  second = Conv<pads=[1,1,1,1]>(active, w1)
  third = Conv(second, w2)
  positive = Relu(third)
  fourth = Conv<pads=[1,1,1,1]>(positive, w3)
  added = Add(fourth, third)
  output = Conv<pads=[1,1,1,1]>(added, w4)
}"""


def program(form: str = FORM) -> Program:
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(form)
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        assert value.shape is not None
        sizes = value.shape.numpy()
        drawn = rng.standard_normal(sizes) / np.sqrt(np.prod(sizes[1:]))
        value.const_value = ir.tensor(drawn.astype(np.float32), name=value.name)
        model.graph.register_initializer(value)
    ShapeInferencePass()(model)
    weights = frozenset(model.graph.initializers)
    return Program("row", {"full": model}, {"sample": Rate.SAMPLE}, weights=weights)


def context(count: int = 24) -> Context:
    rng = np.random.default_rng(1)
    calls: list[dict[str, NDArray[np.float32]]] = [
        {"sample": rng.standard_normal((2, 4, 8, 8)).astype(np.float32)} for _ in range(count)
    ]
    return Context(referee=Interpreter, calibration=calls, cost_model=Predicted(SLOW))


def test_a_run_ends_where_something_else_reads_it_or_joins_it() -> None:
    found = list(segments(program().variants["full"].graph))
    # The third is read by the fourth and by the sum behind it.
    assert [(entry, exit, widths) for _, entry, exit, widths in found] == [
        ("sample", "second", (3, 3)), ("sample", "third", (3, 3, 1)), ("active", "third", (3, 1)),
    ]  # fmt: skip
    names = [name for name, *_ in found]
    assert names == ["first+second", "first+third", "second+third"]
    (whole,) = (one for one in candidates(program().variants["full"].graph) if one.name == "first+third")
    assert (kernel_of(whole, "convolution"), kernel_of(whole, "merged")) == (3, 5)


def test_where_nothing_lies_between_one_is_as_good_as_both() -> None:
    """A 1 x 1 convolution behind a larger one needs nothing from beyond the edges."""
    whole = program()
    config = PruneConfig(blocks=("second+third",), by="convolution", ridge=0.0, calls=24)
    done = apply([Prune(config)], whole, context())
    graph = done.variants["full"].graph
    assert sum(node.op_type == "Conv" for node in graph) == 4
    # Solving 54 equations in float64 for what float32 gave.
    assert done.history[-1].effect["output_error"] < 1e-5


def test_the_wider_kernel_loses_less_and_a_dropped_activation_something() -> None:
    errors = [
        apply([Prune(PruneConfig(blocks=("first+second",), by=by, calls=24))], program(), context())
        .history[-1].effect["output_error"]
        for by in ("linear", "convolution", "merged")
    ]  # fmt: skip
    assert errors[0] > errors[1] > errors[2] > 0.01


ROW = """<ir_version: 11, opset_import: ["" : 24]>
row (float[2,4,8,8] sample, float[6,4,3,3] w0, float[6,6,3,3] w1, float[6,6,1,1] w2, float[6,6,3,3] w3, float[4,6,1,1] w4)
  => (float[2,4,8,8] output)
{
  first = Conv<pads=[1,1,1,1]>(sample, w0)
  a1 = Swish(first)
  second = Conv<pads=[1,1,1,1]>(a1, w1)
  a2 = Relu(second)
  third = Conv(a2, w2)
  a3 = Swish(third)
  fourth = Conv<pads=[1,1,1,1]>(a3, w3)
  a4 = Swish(fourth)
  output = Conv(a4, w4)
}"""
"""Without residual connections: ten segments."""


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3])
def test_the_best_parting_is_that_of_dynamic_programming(share: float) -> None:
    study = chain()
    names = ["first", "second", "third", "fourth", "output"]
    steps: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for index, one in enumerate(study.options):
        start, end = (names.index(part) for part in one.candidate.name.split("+"))
        gain = study.problem.savings["latency"][index], study.problem.losses[index]
        steps.setdefault((start, end + 1), []).append(gain)
    # By place, the least losses of all savings up to there.
    best: list[list[tuple[float, float]]] = [[(0.0, 0.0)], *([] for _ in names)]
    for place in range(1, len(names) + 1):
        reached = list(best[place - 1])
        for (start, end), ways in steps.items():
            if end == place:
                reached += [(saved + s, lost + v) for saved, lost in best[start] for s, v in ways]
        best[place] = reached
    wanted = (1 - share) * study.plain.total("latency")
    losses = [lost for saved, lost in best[-1] if saved >= wanted]
    chosen = study.problem.solve({"latency": share * study.plain.total("latency")})
    assert (chosen is None) == (not losses)
    if chosen is not None:
        assert study.problem.loss(chosen) == pytest.approx(min(losses))


@cache
def chain() -> Study:
    config = PruneBlocksConfig(kinds=("convolutions",), by=("linear", "convolution", "merged"), calls=8)
    return Study(program(ROW), context(8), config)
