"""The pass that quantises products to int8: where it puts the integers, which these are, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from fick.ir import referee
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.fuse import Fuse
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.products import attentions

from . import small_unet
from .serialised import serialised


def quantised(least_depth: int = 64) -> Program:
    config = QuantiseConfig(least_depth=least_depth)
    return apply([Quantise(config)], small_unet.program(), small_unet.context())


def inside(program: Program, operator: str) -> list[ir.Node]:
    return [node for node in program.variants["full"].graph if node.op_type == operator]


def through(value: ir.Value | None) -> ir.Value:
    """What a product's operand was before it was quantised."""
    assert value is not None
    dequantise = value.producer()
    assert dequantise is not None and dequantise.op_type == "DequantizeLinear"
    quantise = dequantise.inputs[0].producer()
    assert quantise is not None and quantise.op_type == "QuantizeLinear"
    assert dequantise.inputs[1] is quantise.inputs[1]
    return quantise.inputs[0]


def test_products_and_nothing_else_read_integers() -> None:
    program = quantised()
    # Sums of 64 products and more: 3 x 3 convolutions of 16 channels, and the end of the feed-forward layer.
    wanted = {"conv_down": "timed", "conv_mid": "active", "conv_up": "twice", "conv_out": "grid", "w2": "g"}
    found = {}
    for node in program.variants["full"].graph:
        read = node.inputs[0].producer()
        if node.op_type in ("Conv", "MatMul") and read is not None and read.op_type == "DequantizeLinear":
            found[through(node.inputs[1]).name] = through(node.inputs[0]).name
    assert found == wanted
    skip = next(node for node in program.variants["full"].graph if node.op_type == "Identity")
    assert skip.inputs[0].name == "timed"
    for node in inside(program, "DequantizeLinear"):
        assert {user.op_type for user, _ in node.outputs[0].uses()} <= {"Conv", "MatMul"}
    effect = program.history[-1].effect
    assert (effect["products"], effect["activations"], effect["weights"]) == (5, 5, 5)
    assert 0 < effect["mac_share"] < 1


def test_a_value_that_several_products_read_is_quantised_once() -> None:
    program = quantised(least_depth=1)
    effect = program.history[-1].effect
    # Queries, keys and values of the pixels share theirs, and keys and values of the text.
    assert (effect["products"], effect["activations"]) == (16, 13)
    reads = [through(node.inputs[0]) for node in inside(program, "MatMul")]
    assert reads[:3] == [reads[0]] * 3
    assert effect["mac_share"] < 1  # attention's own products


def test_weights_use_the_whole_range_of_every_channel() -> None:
    program = quantised(least_depth=1)
    names = {
        str(through(node.inputs[1]).name): node
        for node in inside(program, "Conv") + inside(program, "MatMul")
    }
    watched = {name: str(node.inputs[1].producer().inputs[0].name) for name, node in names.items()}
    results = Interpreter(program, list(watched.values()))(small_unet.calls()[0])
    weights = small_unet.program().variants["full"].graph.initializers
    for name, node in names.items():
        got = results[watched[name]]
        exact = weights[name].const_value.numpy().astype(np.float64)
        axis = 0 if node.op_type == "Conv" else 1
        others = tuple(one for one in range(exact.ndim) if one != axis)
        step = np.abs(exact).max(others, keepdims=True) / 127
        assert got.dtype == np.int8
        assert (np.abs(got.astype(int)).max(others) == 127).all()
        assert np.abs(got * step - exact).max() <= 0.50001 * step.max()


def test_activations_reach_the_largest_integer_on_the_calibrations_calls() -> None:
    program = quantised()
    names = [
        str(node.outputs[0].name)
        for node in inside(program, "QuantizeLinear")
        if node.inputs[1].is_initializer()
    ]
    call = Interpreter(program, names)
    largest = dict.fromkeys(names, 0)
    for inputs in small_unet.calls():
        results = call(inputs)
        largest = {name: max(largest[name], int(np.abs(results[name].astype(int)).max())) for name in names}
    # Those before it have changed what a later one sees, by a few percent.
    assert all(115 <= one <= 128 for one in largest.values()), largest


def test_the_error_is_that_of_the_output_and_grows_with_what_is_quantised() -> None:
    errors = []
    for least_depth in (128, 64, 1):
        program = quantised(least_depth)
        wanted, got = (
            np.stack([Interpreter(one)(call)["output"] for call in small_unet.calls()]).astype(np.float64)
            for one in (small_unet.program(), program)
        )
        errors.append(program.history[-1].effect["output_error"])
        assert errors[-1] == pytest.approx(np.linalg.norm(got - wanted) / np.linalg.norm(wanted), rel=1e-6)
    assert 0 < errors[0] < errors[-1] < 0.1


def test_weights_are_quantised_when_compiling_and_kept_narrow() -> None:
    before = quantised()
    program = apply([Hoist(), Fuse()], before, small_unet.context())
    constants = program.variants["constant"].graph
    assert [value.dtype for value in constants.outputs].count(ir.DataType.INT8) == 5
    assert not any(node.op_type == "DequantizeLinear" for node in constants)
    for model in program.variants.values():
        onnx.checker.check_model(ir.serde.serialize_model(model))
    exact, one, other = (
        Interpreter(which)(small_unet.calls()[0])["output"]
        for which in (small_unet.program(), before, program)
    )
    # Sums in another order are rounded to the next integer now and then.
    assert np.std(other - one) < 0.2 * np.std(one - exact)


def test_twice_gives_the_same_bytes() -> None:
    assert serialised(quantised()) == serialised(quantised())


def test_what_cannot_be_quantised_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError, match="pass quantise needs calibration; give it when compiling"):
        apply([Quantise()], small_unet.program(), Context())
    with pytest.raises(UserError, match="finds no product with weights of at least 9999 products a sum"):
        quantised(least_depth=9999)
    with pytest.raises(UserError, match=r"finds no product .* that is not quantised"):
        apply([Quantise()], quantised(), small_unet.context())


def test_the_program_given_stays() -> None:
    before = small_unet.program()
    nodes = len(list(before.variants["full"].graph))
    apply([Quantise()], before, small_unet.context())
    assert len(list(before.variants["full"].graph)) == nodes


def error(**settings: object) -> float:
    config = QuantiseConfig(**settings)  # type: ignore[arg-type]
    program = apply([Quantise(config)], small_unet.program(), small_unet.context())
    return program.history[-1].effect["output_error"]


def test_fewer_bits_lose_more_and_a_range_that_ends_earlier_gets_some_of_it_back() -> None:
    exact, narrow = error(weights="int8", activations="float32"), error(weights="int4", activations="float32")
    clipped = error(weights="int4", activations="float32", clip_weights=True)
    assert 8 * exact < narrow < 0.3
    assert clipped < 0.95 * narrow
    assert (
        exact
        < error(weights="int8")
        < narrow
        < error(weights="int2", activations="float32", clip_weights=True)
    )


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_error_of_a_large_model_is_that_of_a_small_one(
    monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    """Whose weights are lent to ONNX Runtime, and rounded once for all calls."""
    copied = error(weights=weights)
    monkeypatch.setattr(referee, "LARGEST_PROTO_BYTES", 1)
    monkeypatch.setattr(referee, "LENT_BYTES", 1)
    made: list[Program] = []
    monkeypatch.setattr(Interpreter, "__init__", _told(Interpreter.__init__, made))
    assert error(weights=weights) == pytest.approx(copied, rel=1e-3)
    assert ["constant" in one.variants for one in made] == [False, False, True]


def _told(begun: Callable[..., None], made: list[Program]) -> Callable[..., None]:
    def begin(self: Interpreter, program: Program, *rest: Any) -> None:
        made.append(program)
        begun(self, program, *rest)

    return begin


def test_weights_of_four_bits_are_stored_so() -> None:
    config = QuantiseConfig(weights="int4", activations="float32", clip_weights=True)
    program = apply([Quantise(config), Hoist()], small_unet.program(), small_unet.context())
    constants = program.variants["constant"].graph.outputs
    assert [value.dtype for value in constants].count(ir.DataType.INT4) == 5
    for model in program.variants.values():
        onnx.checker.check_model(ir.serde.serialize_model(model))
    assert not inside(program, "QuantizeLinear")


def test_attention_reads_integers_where_that_is_asked_for() -> None:
    config = QuantiseConfig(least_depth=1, attention=True)
    program = apply([Quantise(config)], small_unet.program(), small_unet.context())
    read = [[through(value).name for value in node.inputs[:3]] for node in inside(program, "Attention")]
    assert read == [["q1", "k1", "v1"], ["q2", "k2", "v2"]]
    effect = program.history[-1].effect
    assert (effect["attentions"], effect["activations"]) == (2, 13 + 6)
    assert effect["output_error"] > error(least_depth=1)
    # What is rounded is not again.
    assert not attentions(program.variants["full"].graph)
    with pytest.raises(ValidationError, match="these stay in float32"):
        QuantiseConfig(attention=True, activations="float32")


def test_scales_of_every_timestep_are_those_of_its_calls() -> None:
    config = QuantiseConfig(per_step=True)
    program = apply([Quantise(config), Hoist()], small_unet.program(), small_unet.context())
    quantised = {
        str(node.inputs[0].name): str(node.inputs[1].name) for node in inside(program, "QuantizeLinear")
    }
    assert set(quantised) == {"timed", "active", "twice", "grid", "g"}
    carried = {str(value.name) for value in program.variants["step"].graph.outputs}
    rows = [node for node in program.variants["full"].graph if node.outputs[0].name in quantised.values()]
    assert len(rows) == 5
    assert all(node.op_type == "Reshape" and node.inputs[0].name in carried for node in rows)
    exact = Interpreter(small_unet.program(), list(quantised))
    call = Interpreter(program, list(quantised.values()))
    for inputs in small_unet.calls():
        peaks, scales = exact(inputs), call(inputs)
        for value, scale in quantised.items():
            assert scales[scale] == np.float32(np.abs(peaks[value]).max() / 127)
