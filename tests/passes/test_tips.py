"""Important pixels: which they are, what becomes of the others, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from fick.ir.annotations import row_bits
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.pssa import PruneScores
from fick.passes.tips import Tips, TipsConfig

from . import small_unet
from .small_unet import BATCH, CHANNELS, PIXELS, TOKENS

PRODUCTS = ("n3", "g")
"""What the two products of the feed-forward layer read."""


def spotted(**config: float) -> Program:
    return apply([Tips(TipsConfig.model_validate(config))], small_unet.program(), small_unet.context())


def mixed(program: Program) -> dict[str, str]:
    """Names of the mixed values by the names of those they were made of, in graph order."""
    graph = program.variants["full"].graph
    found = [node.outputs[0] for node in graph if node.op_type == "Where"]
    assert len(found) == len(PRODUCTS)
    return dict(zip(PRODUCTS, (str(one.name) for one in found), strict=True))


def start_share(results: dict[str, np.ndarray]) -> np.ndarray:
    """[batch, pixels]: the mean over heads of what the first token gets, in float64."""
    query, key = (
        results[name].astype(np.float64).reshape(BATCH, tokens, 2, CHANNELS // 2)
        for name, tokens in (("q2", PIXELS), ("k2", TOKENS))
    )
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(CHANNELS // 2)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True))[..., 0].mean(1)


def test_unimportant_pixels_keep_their_upper_slice() -> None:
    program = spotted()
    names = mixed(program)
    watched = ["q2", "k2", *names, *names.values()]
    ranges = dict.fromkeys(PRODUCTS, 0.0)
    original = Interpreter(small_unet.program(), PRODUCTS)
    for call in small_unet.calls():
        results = original(call)
        ranges = {name: max(ranges[name], float(np.abs(results[name]).max())) for name in PRODUCTS}
    call, low_pixels, pixels = Interpreter(program, watched), 0, 0
    for inputs in small_unet.calls():
        results = call(inputs)
        share = start_share(results)
        limit = share.mean(1, keepdims=True)
        important = share < limit
        certain = np.abs(share - limit) > 1e-6  # float32 may decide otherwise on a tie
        for name in PRODUCTS:
            # 2015 steps of the scale to each side: the upper slice, of 64 of them, then ends at 31.
            step = ranges[name] / 2015
            exact = np.clip(results[name].astype(np.float64), -ranges[name], ranges[name])
            got = results[names[name]]
            # Half a step, and what float32 may round to the other side.
            assert np.abs(got - exact)[important & certain].max() <= 0.5001 * step
            coarse = got[~important & certain] / (64 * step)
            np.testing.assert_allclose(coarse, np.rint(coarse), atol=1e-4)
            assert np.abs(np.rint(coarse)).max() <= 31
            assert np.abs(got - exact)[~important & certain].max() <= 32.001 * step
        low_pixels, pixels = low_pixels + (~important).sum(), pixels + important.size
    assert 0 < low_pixels < pixels
    effect = program.history[-1].effect
    assert effect["low_share"] == pytest.approx(low_pixels / pixels, abs=1e-9)
    shares = [row_bits(node.outputs[0]) for node in program.variants["full"].graph if node.op_type == "Where"]
    for one in shares:
        assert list(one) == [12, 6]
        assert sum(one.values()) == 1
        assert float(one[6]) == pytest.approx(effect["low_share"])


def test_both_passes_go_together_in_either_order() -> None:
    context, both = small_unet.context(), [PruneScores(), Tips()]
    programs = [apply(order, small_unet.program(), context) for order in (both, both[::-1])]
    outputs = [Interpreter(one)(small_unet.calls()[0])["output"] for one in programs]
    assert [len(mixed(one)) for one in programs] == [2, 2]
    # Ranges come from outputs that differ by the pruning: the same steps to a few percent.
    assert np.abs(outputs[0] - outputs[1]).max() < 0.1 * outputs[0].std()


def test_the_threshold_decides_how_many() -> None:
    shares = [
        spotted(threshold=threshold).history[-1].effect["low_share"] for threshold in (0.0, 0.8, 1.2, 100.0)
    ]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0


def test_fewer_bits_cost_more_of_the_output() -> None:
    errors = [spotted(threshold=0.0, low_bits=bits).history[-1].effect["output_error"] for bits in (8, 6, 4)]
    assert errors == sorted(errors)
    # Noise of uniform rounding, in the deviation of the layer's own signal: twice as much for each bit.
    assert 2 < errors[1] / errors[0] < 8


def test_pixels_are_marked_once() -> None:
    with pytest.raises(UserError, match="finds no feed-forward layer"):
        apply([Tips(), Tips()], small_unet.program(), small_unet.context())


def test_the_program_given_stays_and_calls_are_needed() -> None:
    before = small_unet.program()
    nodes = len(list(before.variants["full"].graph))
    apply([Tips()], before, small_unet.context())
    assert len(list(before.variants["full"].graph)) == nodes
    for none in (None, []):
        with pytest.raises(UserError, match="pass tips needs calibration"):
            apply([Tips()], before, Context(calibration=none))
