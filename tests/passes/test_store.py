"""The pass that stores values in bfloat16: what it rounds, what it leaves, and what that does to the output."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fick.ir.groups import groups
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import apply
from fick.passes.fuse import Fuse
from fick.passes.hoist import Hoist
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


def test_twice_gives_the_same_bytes() -> None:
    assert serialised(stored()) == serialised(stored())


def test_a_format_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="format"):
        StoreConfig(format="float8")  # type: ignore[arg-type]
