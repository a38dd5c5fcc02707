"""Sparse attention scores: what the graph then computes, and what is said of it."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from fick.ir.annotations import SCORES, STORED_BITS
from fick.ir.blocks import discover
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.pssa import PruneScores, PruneScoresConfig
from fick.passes.pssa.codec import Layout, decode, encode, prune, quantise

from . import small_unet


def pruned(threshold: float) -> Program:
    return apply(
        [PruneScores(PruneScoresConfig(threshold=threshold))], small_unet.program(), small_unet.context()
    )


def test_nothing_pruned_is_nothing_changed() -> None:
    before, after = Interpreter(small_unet.program()), Interpreter(pruned(0))
    for call in small_unet.calls():
        np.testing.assert_allclose(after(call)["output"], before(call)["output"], rtol=1e-4, atol=1e-5)


def test_scores_of_the_graph_are_those_that_the_codec_keeps() -> None:
    """Bit for bit: the zeros of the graph's scores are those of the quantised map, and the size noted on the value
    is the mean length of the streams that decode to them.
    """
    program, bits, elements = pruned(1.0), 0, 0
    graph = program.variants["full"].graph
    (value,) = (one for node in graph for one in node.outputs if STORED_BITS in one.metadata_props)
    (softmax,) = (node.outputs[0] for node in graph if node.op_type == "Softmax")
    assert value.metadata_props[SCORES] == softmax.metadata_props[SCORES] == "self"
    level = int(np.ceil(4095 / small_unet.PIXELS))
    layout = Layout(small_unet.WIDTH, 12)
    call = Interpreter(program, [str(value.name), str(softmax.name)])
    for inputs in small_unet.calls():
        results = call(inputs)
        wanted = prune(quantise(results[str(softmax.name)], 12), level)
        np.testing.assert_array_equal(results[str(value.name)] != 0, wanted != 0)
        for scores in wanted.reshape(-1, small_unet.PIXELS, small_unet.PIXELS):
            stream = encode(scores, layout)
            np.testing.assert_array_equal(decode(stream, small_unet.PIXELS, layout), scores)
            bits, elements = bits + len(stream), elements + scores.size
    assert Fraction(value.metadata_props[STORED_BITS]) == Fraction(bits, elements)


def test_more_pruning_takes_less_memory_and_costs_more_of_the_output() -> None:
    effects = [pruned(threshold).history[-1].effect for threshold in (0.0, 0.5, 2.0)]
    assert [one["maps"] for one in effects] == [1, 1, 1]
    for less, more in pairwise(effects):
        assert more["kept_share"] < less["kept_share"]
        assert more["score_bytes_saved"] > less["score_bytes_saved"]
        assert more["output_error"] > less["output_error"]


def test_the_effect_is_the_measured_one_and_the_program_given_stays() -> None:
    before = small_unet.program()
    after = apply([PruneScores()], before, small_unet.context())
    assert sum(node.op_type == "Attention" for node in before.variants["full"].graph) == 2
    assert sum(node.op_type == "Attention" for node in after.variants["full"].graph) == 1
    theirs, ours = Interpreter(before), Interpreter(after)
    pairs = [(theirs(call)["output"], ours(call)["output"]) for call in small_unet.calls()]
    error = np.sqrt(sum(np.square(b - a).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))
    assert after.history[-1].effect["output_error"] == pytest.approx(error, rel=1e-3)
    assert pruned(0.5).history[-1].effect == after.history[-1].effect


def test_blocks_are_found_as_before() -> None:
    kinds = [
        [(block.kind, block.resolution) for block in discover(one.variants["full"].graph).blocks]
        for one in (small_unet.program(), pruned(1.0))
    ]
    assert kinds[0] == kinds[1]


def test_scores_are_pruned_once() -> None:
    with pytest.raises(UserError, match="finds no self-attention"):
        apply([PruneScores(), PruneScores()], small_unet.program(), small_unet.context())


def test_maps_to_calibrate_with_are_needed() -> None:
    with pytest.raises(UserError, match="pass prune-scores needs calibration"):
        apply([PruneScores()], small_unet.program(), Context())
