"""Bias correction (Nagel et al., arXiv 1906.04721, section 4.2, the empirical form of its appendix D).

Rounding shifts the mean of what a product computes. The shift of each output channel, beside the float program on the
calibration's calls, is taken off its bias. A shift is carried on by the products behind it, so they are taken in the
graph's order: while it is measured, every product's mean is already put right, call by call, and later products read
that. One run of each program does it, and what is kept of a call is a number a channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.annotations import BITS
from ...ir.errors import UserError
from ...ir.formats import opens
from ...ir.making import Maker, supersede
from ...ir.operators import PRODUCTS, VIEWS
from ...ir.program import Program
from ...ir.rates import Rate, analyse
from ..base import Arrays, Context, Pass, PassConfig
from ..calls import timesteps
from ..measuring import side_by_side, watch
from .judging import judges, require_first

Shapes = Mapping[str, tuple[int, ...]]
"""Of a number a channel, by the name of the value that they are channels of."""


class CorrectBias(Pass[PassConfig]):
    """Program -> the same with biases that put the means of its quantised products right, and what that is worth.

    Calls that were not fitted to judge: where the output comes out no nearer to the float program's, the program stays
    as it was. Raises UserError if there is no quantised product that the float program has too, or but one call.
    """

    name = "correct-bias"

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls: Sequence[Arrays] = context.require("calibration", self.name)
        reference: Program = context.require("reference", self.name)
        require_first(program, self.name)
        # Where every call has a timestep of its own, all are as good as of one.
        judging = next(filter(any, (judges(timesteps(program, calls)), judges([0.0] * len(calls)))), None)
        if judging is None:
            raise UserError(
                "pass correct-bias needs two calls or more, one to fit and one to judge a correction; calibrate with "
                "more steps."
            )
        fitted, judged = (
            [inputs for inputs, one in zip(calls, judging, strict=True) if one is kind]
            for kind in (False, True)
        )
        known = {value.name for node in reference.variants["full"].graph for value in node.outputs}
        shapes = {name: one.mean_shape for name, one in _sums(program).items() if name in known}
        if not shapes and any(entry.pass_name == "assign" for entry in program.history):
            return program, {"products": 0}  # a budget within which nothing had to be rounded
        if not shapes:
            raise UserError(
                "pass correct-bias finds no quantised product; name it after the pass that quantises."
            )
        shifts = _shifts(context, reference, program, shapes, fitted)
        changed = program.copy()
        sums = _sums(changed)
        for name, shift in shifts.items():
            sums[name].take_off(shift)
        before, after = (_errors(context, reference, one, shapes, judged) for one in (program, changed))
        helps = after["output_error"] < before["output_error"]
        return changed if helps else program, {
            "products": len(shapes) if helps else 0,
            **{f"{name}_before": error for name, error in before.items()},
            **(after if helps else before),
        }


@dataclass(frozen=True)
class _Sum:
    """What a quantised product computes with its bias: the output of ``node``.

    ``bias`` is which of the node's inputs is added to each channel, None if none can be.
    """

    node: ir.Node
    bias: int | None
    channel_axis: int

    @property
    def value(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        assert self.value.shape is not None
        return self.value.shape.numpy()

    @property
    def mean_shape(self) -> tuple[int, ...]:
        """Of a number a channel that goes with the value."""
        axis = self.channel_axis % len(self.shape)
        return tuple(size if one == axis else 1 for one, size in enumerate(self.shape))

    def take_off(self, shift: NDArray[np.float64]) -> None:
        """From the bias, in the graph, so that another checkpoint's own is corrected; [channels]."""
        maker, numbers = Maker(self.node, "correct-bias"), shift.astype(np.float32)
        if self.bias is None:
            readers = list(self.value.uses())
            total = maker.add("Add", (self.value, maker.constant(-numbers)), self.shape)
            maker.after()
            supersede(self.value, total, readers)
            return
        self.node.resize_inputs(max(self.bias + 1, len(self.node.inputs)))
        bias = self.node.inputs[self.bias]
        if bias is None:
            corrected = maker.constant(-numbers)
        else:
            assert bias.shape is not None
            shape = np.broadcast_shapes(bias.shape.numpy(), numbers.shape)
            corrected = maker.add("Sub", (bias, maker.constant(numbers)), shape)
            maker.before()
        self.node.replace_input_with(self.bias, corrected)


def _sums(program: Program) -> dict[str, _Sum]:
    """By name of what they compute, in the graph's order."""
    graph = program.variants["full"].graph
    rates = analyse(graph, program.rates)
    found: dict[str, _Sum] = {}
    for node in graph:
        if node.op_type in PRODUCTS and any(_quantised(value) for value in node.inputs[:2]):
            scaled = node.attributes.get_float("beta", 1.0) != 1.0
            one = _matmul(node, rates) if node.op_type == "MatMul" else _Sum(node, None if scaled else 2, 1)
            found[str(one.value.name)] = one
    return found


def _matmul(node: ir.Node, rates: Mapping[str, Rate]) -> _Sum:
    """The bias of a MatMul is what alone reads it and adds a number a channel."""
    result = node.outputs[0]
    assert result.shape is not None
    for reader, index in result.uses():
        other = reader.inputs[1 - index] if reader.op_type == "Add" else None
        if other is None or len(result.uses()) != 1 or result.is_graph_output():
            break
        known = other.is_initializer() or rates[str(other.name)] is Rate.CONSTANT
        if known and other.shape is not None and other.shape.numpy() == result.shape.numpy()[-1:]:
            return _Sum(reader, 1 - index, -1)
    return _Sum(node, None, -1)


def _quantised(value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in VIEWS:
            return opens(node) or BITS in value.metadata_props
        value = node.inputs[0]
    return False


def _mean(maker: Maker, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """Over all but the channels."""
    assert value.shape is not None
    axes = [axis for axis, size in enumerate(shape) if size == 1 and value.shape.numpy()[axis] != 1]
    over = maker.constant(np.array(axes, np.int64))
    # One row's mean is the row: without that attribute no axes stand for all.
    return maker.add("ReduceMean", (value, over), shape, keepdims=1, noop_with_empty_axes=1)


def _with_means(program: Program, shapes: Shapes) -> tuple[Program, dict[str, str]]:
    """The program, and what to watch in it for the mean of each value."""
    measured = program.copy()
    found: dict[str, str] = {}
    for node in list(measured.variants["full"].graph):
        for value in node.outputs:
            if value.name in shapes:
                maker = Maker(node, "mean")
                found[str(value.name)] = str(_mean(maker, value, shapes[str(value.name)]).name)
                maker.after()
    return measured, found


def _righted(program: Program, shapes: Shapes) -> tuple[Program, dict[str, str], dict[str, str]]:
    """The program with every mean put right where it is computed, to one that each call brings as an input.

    Names of those inputs, and what to watch for the shifts that were taken off.
    """
    measured = program.copy()
    graph = measured.variants["full"].graph
    wanted: dict[str, str] = {}
    found: dict[str, str] = {}
    for name, one in _sums(measured).items():
        if name not in shapes:
            continue
        given = ir.Value(name=f"{name}/wanted", type=one.value.type, shape=ir.Shape(shapes[name]))
        graph.inputs.append(given)
        readers = list(one.value.uses())
        maker = Maker(one.node, "righted")
        shift = maker.add("Sub", (_mean(maker, one.value, shapes[name]), given), shapes[name])
        right = maker.add("Sub", (one.value, shift), one.shape)
        maker.after()
        supersede(one.value, right, readers)
        wanted[name], found[name] = str(given.name), str(shift.name)
    rates = {**measured.rates, **dict.fromkeys(wanted.values(), Rate.SAMPLE)}
    return replace(measured, rates=rates), wanted, found


def _shifts(
    context: Context, reference: Program, program: Program, shapes: Shapes, calls: Sequence[Arrays]
) -> dict[str, NDArray[np.float64]]:
    """Mean over the calls of each channel's shift, [channels], where those before it are taken off."""
    exact, means = _with_means(reference, shapes)
    righted, wanted, found = _righted(program, shapes)
    # One program after the other, for two large ones at once would take twice the memory.
    known = [
        {**inputs, **{wanted[name]: theirs[means[name]] for name in shapes}}
        for inputs, theirs in zip(calls, watch(context, exact, list(means.values()), calls), strict=True)
    ]
    totals = {name: np.zeros(np.prod(shape, dtype=int)) for name, shape in shapes.items()}
    for ours in watch(context, righted, list(found.values()), known):
        for name, total in totals.items():
            total += ours[found[name]].reshape(-1)
    return {name: total / len(calls) for name, total in totals.items()}


def _errors(
    context: Context, reference: Program, program: Program, shapes: Shapes, calls: Sequence[Arrays]
) -> dict[str, float]:
    """Of the outputs and of the products' means, each as a share of the float program's over all calls."""
    (exact, wanted), (changed, found) = (_with_means(one, shapes) for one in (reference, program))
    names = list(wanted.values()), list(found.values())
    outputs = [str(value.name) for value in reference.variants["full"].graph.outputs]
    pairs = {
        "output_error": [(name, name) for name in outputs],
        "mean_error": [(wanted[name], found[name]) for name in shapes],
    }
    squares = {kind: np.zeros(2) for kind in pairs}
    taken = {"output_error": context.guidance.taken, "mean_error": np.asarray}
    for theirs, ours in side_by_side(context, (exact, changed), calls, names):
        for kind, same in pairs.items():
            for mine, yours in ((ours[b], theirs[a].astype(np.float64)) for a, b in same):
                squares[kind] += [np.square(taken[kind](one)).sum() for one in (mine - yours, yours)]
    return {kind: float(np.sqrt(error / (size or 1.0))) for kind, (error, size) in squares.items()}
