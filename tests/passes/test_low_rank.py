"""Low-rank branches: the same function before anything is rounded, a better one after."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from fick.ir.annotations import EXACT
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.hoist import Hoist
from fick.passes.learned.low_rank import LowRank, LowRankConfig
from fick.passes.quantise import Quantise, QuantiseConfig

from . import small_unet

FOUR_BITS = Quantise(QuantiseConfig(weights="int4", activations="float32", least_depth=1))


def uneven() -> Program:
    """The small UNet, some inputs of whose matrices have weights of ten times the others."""
    program = small_unet.program()
    graph = program.variants["full"].graph
    for name in ("w1", "w2", "wo1", "wo2"):
        weight = graph.initializers[name].const_value.numpy().copy()
        weight[::7] *= 10
        graph.initializers[name].const_value = ir.tensor(weight, name=name)
    return program


def split(program: Program, **config: int) -> Program:
    return apply([LowRank(LowRankConfig.model_validate(config))], program, small_unet.context())


def output(program: Program) -> np.ndarray:
    return np.stack([Interpreter(program)(call)["output"] for call in small_unet.calls()]).astype(np.float64)


def distance(ours: Program, theirs: Program) -> float:
    return float(np.linalg.norm(output(ours) - output(theirs)) / np.linalg.norm(output(theirs)))


def test_the_function_is_the_same_until_something_is_rounded() -> None:
    before, after = uneven(), split(uneven(), least_width=4)
    assert distance(after, before) < 1e-5
    assert distance(apply([Hoist()], after.copy(), small_unet.context()), before) < 1e-5
    effect = after.history[-1].effect
    assert effect["products"] >= 5
    assert effect["output_error"] == pytest.approx(distance(after, before), rel=0.2)
    assert 0 < effect["mac_share"] < 0.5
    onnx.checker.check_model(ir.serde.serialize_model(after.variants["full"]))


def test_four_bits_lose_less_beside_a_branch() -> None:
    context, exact = small_unet.context(), uneven()
    plain = apply([FOUR_BITS], exact, context)
    branched = apply([LowRank(LowRankConfig(least_width=4)), FOUR_BITS], exact, context)
    errors = [distance(one, exact) for one in (branched, plain)]
    # Convolutions of 3 x 3 lose what they lose.
    assert errors[0] < 0.85 * errors[1], errors


def test_the_branch_stays_in_high_precision() -> None:
    program = apply([LowRank(LowRankConfig(least_width=4)), FOUR_BITS], uneven(), small_unet.context())
    graph = program.variants["full"].graph
    branches = [node for node in graph if EXACT in node.metadata_props]
    split_products = program.history[0].effect["products"]
    assert len(branches) == 2 * split_products
    for node in branches:
        assert all(value.dtype is ir.DataType.FLOAT for value in node.inputs)
        assert not any(
            value.producer() and value.producer().op_type == "DequantizeLinear" for value in node.inputs
        )
    assert program.history[1].effect["products"] == 16
    hoisted = apply([Hoist()], program.copy(), small_unet.context())
    assert sum(
        EXACT in node.metadata_props for one in hoisted.variants.values() for node in one.graph
    ) == len(branches)


def test_a_new_checkpoint_brings_its_own_rest() -> None:
    program = split(uneven(), least_width=4)
    assert program.weights == frozenset(small_unet.SHAPES)
    rng = np.random.default_rng(5)
    both = program, uneven()
    fresh = {name: rng.standard_normal(small_unet.SHAPES[name]).astype(np.float32) for name in ("w1", "wo2")}
    for one in both:
        for name, weight in fresh.items():
            one.variants["full"].graph.initializers[name].const_value = ir.tensor(weight, name=name)
    assert distance(*both) < 1e-5
    assert distance(program, uneven()) > 0.1


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("g (float[3,32] x, float[48,32] w, float[48] c) => (float[3,48] y) { y = Gemm<transB=1>(x, w, c) }", 1),
        ("g (float[3,48] x, float[48,32] w, float[32] c) => (float[3,32] y) { y = Gemm<beta=0.5>(x, w, c) }", 0.5),
        ("g (float[2,48,5,6] x, float[32,48,1,1] w, float[32] c) => (float[2,32,3,3] y) { y = Conv<strides=[2,2]>(x, w, c) }", 1),
        ("g (float[2,5,32] x, float[32,64] w) => (float[2,5,64] y) { y = MatMul(x, w) }", 1),
    ],
)  # fmt: skip
def test_a_matrix_with_outliers_loses_less(text: str, share: float) -> None:
    """``share`` of the bias is part of the output, and none of the product."""
    rng = np.random.default_rng(2)
    model = ir.from_onnx_text(f'<ir_version: 11, opset_import: ["" : 24]>\n{text}')
    for value in list(model.graph.inputs[1:]):
        array = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        if array.ndim > 1:
            array[:, 3] *= 20
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.register_initializer(value)
    ShapeInferencePass()(model)
    calls = [
        {"x": rng.standard_normal(model.graph.inputs[0].shape.numpy()).astype(np.float32)} for _ in range(3)
    ]
    program = Program("one", {"full": model}, {"x": Rate.SAMPLE}, weights=frozenset(model.graph.initializers))
    context = Context(referee=Interpreter, calibration=calls)
    after = apply([LowRank()], program, context)

    def error(ours: Program) -> float:
        given, wanted = (np.stack([Interpreter(one)(call)["y"] for call in calls]) for one in (ours, program))
        bias = sum(
            one.const_value.numpy() for one in model.graph.initializers.values() if len(one.shape) == 1
        )
        exact = wanted - share * np.reshape(bias, (-1, 1, 1) if given.ndim == 5 else (-1,))
        return float(np.linalg.norm(given - wanted) / np.linalg.norm(exact))

    assert error(after) < 1e-5
    told = after.history[-1].effect["product_error"]["y"]
    for which, key in ((program, "whole"), (after, "split")):
        # Told of every pixel, where a stride takes one of three or four.
        assert error(apply([FOUR_BITS], which, context)) == pytest.approx(
            told[key], rel=0.2 if "strides" in text else 1e-3
        )
    assert told["split"] < 0.6 * told["whole"]


def test_twice_gives_the_same_bytes() -> None:
    first, second = (
        ir.serde.serialize_model(split(uneven(), least_width=4).variants["full"]).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    )
    assert first == second


def test_what_cannot_be_split_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError, match="pass low-rank needs calibration"):
        apply([LowRank()], uneven(), Context())
    with pytest.raises(UserError, match="finds no product of matrices to which a branch would be of use"):
        split(uneven(), least_width=64)
