"""Programs on the referee: split by rate or whole, they say the same."""

from __future__ import annotations

import numpy as np

from fick.ir import referee
from fick.ir.interpreter import Interpreter
from fick.passes.base import Context, apply
from fick.passes.hoist import Hoist

from ..passes import small_unet


def test_a_program_in_variants_gives_what_the_whole_graph_gives() -> None:
    whole = small_unet.program()
    split = Interpreter(apply([Hoist()], whole.copy(), Context()))
    for call in small_unet.calls():
        wanted = referee.run(whole.variants["full"], call)["output"]
        # The same operators on the same numbers; ONNX Runtime may fuse them otherwise.
        np.testing.assert_allclose(split(call)["output"], wanted, rtol=1e-5, atol=1e-5)


def test_the_prompt_is_worked_on_again_when_it_changes_and_only_then() -> None:
    split = Interpreter(apply([Hoist()], small_unet.program(), Context()))
    first, second, _ = small_unet.calls()
    before = split(first)["output"]
    text = second["encoder_hidden_states"].copy()
    second["encoder_hidden_states"] = text
    kept = split(second)["output"]
    text *= 2  # the same array, filled anew
    changed = split(second)["output"]
    assert not np.array_equal(kept, changed)
    np.testing.assert_array_equal(split(first)["output"], before)


def test_values_inside_are_watched_and_the_graph_is_left_as_it_was() -> None:
    program = small_unet.program()
    full = program.variants["full"]
    names = [str(value.name) for value in full.graph.outputs]
    for _ in range(2):
        results = Interpreter(program, ["n3", "output", "a2"])(small_unet.calls()[0])
        assert set(results) == {"n3", "output", "a2"}
        assert results["n3"].shape == (small_unet.BATCH, small_unet.PIXELS, small_unet.CHANNELS)
        shift = full.graph.initializers["beta"].const_value
        assert shift is not None
        # Gain 1: without its shift, what a layer normalisation gives has mean 0.
        np.testing.assert_allclose((results["n3"] - shift.numpy()).mean(-1), 0, atol=1e-5)
    assert [str(value.name) for value in full.graph.outputs] == names


def test_inputs_are_what_the_caller_gives() -> None:
    split = Interpreter(apply([Hoist()], small_unet.program(), Context()))
    assert set(split.inputs) == set(small_unet.RATES)
