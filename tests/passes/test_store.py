"""The pass that stores values in bfloat16: what it rounds, what it leaves, and what that does to the output."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fick.ir.groups import groups
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.fuse import Fuse
from fick.passes.hoist import Hoist
from fick.passes.measuring import largest
from fick.passes.store import Store, StoreConfig

from . import small_unet
from .serialised import serialised


def stored(smallest: int = 1) -> Program:
    passes = [Hoist(), Fuse(), Store(StoreConfig(format="bfloat16", smallest=smallest))]
    return apply(passes, small_unet.program(), small_unet.context())


def outputs(program: Program) -> np.ndarray:
    run = Interpreter(program)
    return np.stack([run(call)["output"] for call in small_unet.calls()])


def test_the_output_moves_by_the_rounding_of_its_parts() -> None:
    exact = outputs(apply([Hoist(), Fuse()], small_unet.program(), small_unet.context()))
    rounded = outputs(stored())
    error = np.std(rounded - exact) / np.std(exact)
    # One rounding is of 2^-9 at most, a third of that as a deviation; some twenty stand one behind the other.
    assert 2**-11 < error < 20 * 2**-9
    assert 2**-11 < stored().history[-1].effect["output_error"] < 20 * 2**-9


def test_what_every_group_leaves_is_rounded_but_the_callers_output() -> None:
    program = stored()
    for name in ("full", "prompt"):
        for group in groups(program.variants[name]):
            wanted = ir.DataType.FLOAT if group.result.name == "output" else ir.DataType.BFLOAT16
            assert group.result.dtype is wanted, group.result.name
    for model in program.variants.values():
        onnx.checker.check_model(ir.serde.serialize_model(model))


def test_variants_still_know_each_others_values_by_name() -> None:
    before = apply([Hoist(), Fuse()], small_unet.program(), small_unet.context())
    links = {(link.source, link.value) for link in before.links()}
    assert any(source == "prompt" for source, _ in links)
    assert {(link.source, link.value) for link in stored().links()} == links


def test_weights_are_rounded_where_what_they_multiply_is() -> None:
    graph = stored().variants["full"].graph
    rounded = {node.inputs[0].name for node in graph if node.op_type == "Cast"}
    assert {"wq1", "wk1", "wv1", "wo1", "conv_mid", "conv_join"} <= rounded
    assert "conv_in" not in rounded  # what it reads is the caller's


def test_small_values_stay_as_they_are() -> None:
    program = stored(smallest=10**6)
    assert not any(node.op_type == "Cast" for node in program.variants["full"].graph)
    assert program.history[-1].facts()["effect"] == {"values": 0, "weights": 0, "output_error": 0}


OVERFLOWS = {
    "a value": ({"w1": 3e4, "w2": 1 / 3e4}, 0, "h"),
    "a weight": ({"w1": 1 / 2e5, "w2": 2e5}, 0, "f"),
    "a sum of sixteen products": ({"w2": 3e3, "conv_out": 1 / 3e3}, 16, "f"),
}
"""Factors of weights, how many products are added up in float16, and the layer that it does not hold."""


def scaled(factors: dict[str, float]) -> Program:
    program = small_unet.program()
    for name, factor in factors.items():
        value = program.variants["full"].graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)
    return program


@pytest.mark.parametrize("name", OVERFLOWS)
def test_what_float16_does_not_hold_stays_in_float32(name: str) -> None:
    factors, half_run, layer = OVERFLOWS[name]
    store = Store(StoreConfig(format="float16", smallest=1, half_run=half_run))
    exact = outputs(apply([Hoist(), Fuse()], scaled(factors), Context()))
    rounded = apply([Hoist(), Fuse(), store], scaled(factors), small_unet.context())
    assert rounded.history[-1].effect["wide"] == [layer]
    graph = rounded.variants["full"].graph
    casts = {str(node.inputs[0].name) for node in graph if node.op_type == "Cast"}
    # The weights that a wide value is multiplied with stay with it.
    assert "w2" not in casts and {"w1", "wo2"} <= casts
    # Numbers of 1e-5, as in the second case, are subnormal, and rounded by 2^-25.
    assert np.std(outputs(rounded) - exact) < 20 * 2**-9 * np.std(exact)
    unchecked = apply([Hoist(), Fuse(), store], scaled(factors), Context())
    assert "wide" not in unchecked.history[-1].effect
    assert half_run or not np.isfinite(outputs(unchecked)).all()


def test_one_of_drawn_calls_will_do() -> None:
    factors, _, layer = OVERFLOWS["a value"]
    context = Context(referee=Interpreter, drawn=lambda: small_unet.calls(1))
    passes = [Hoist(), Fuse(), Store(StoreConfig(format="float16", smallest=1))]
    assert apply(passes, scaled(factors), context).history[-1].effect["wide"] == [layer]
    passes[-1] = Store(StoreConfig(format="bfloat16", smallest=1))
    assert "wide" not in apply(passes, scaled(factors), context).history[-1].effect


def test_peaks_are_those_of_all_calls() -> None:
    program, calls = small_unet.program(), small_unet.calls()
    results = [Interpreter(program, ["h"])(call) for call in calls]
    assert largest(small_unet.context(), program, ["h", "w1", "sample"], calls) == {
        "h": max(np.abs(one["h"]).max() for one in results),
        "w1": np.abs(program.variants["full"].graph.initializers["w1"].const_value.numpy()).max(),
        "sample": max(np.abs(one["sample"]).max() for one in calls),
    }


def test_twice_gives_the_same_bytes() -> None:
    assert serialised(stored()) == serialised(stored())


def test_a_format_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="format"):
        StoreConfig(format="float8")  # type: ignore[arg-type]
