"""Products of joins as sums of products: the same function, and better integers where the halves differ."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.split_joins import SplitJoins, SplitJoinsConfig

from ..compiler.test_operators import model
from . import small_unet

TEXT = """
g (float[2, 40, 6, 5] a, float[2, 24, 6, 5] b, float[2, 9, 40] c, float[2, 9, 24] d)
  => (float[2, 16, 3, 3] y, float[2, 9, 12] z, float[2, 64, 6, 5] kept)
  <float[16, 64, 3, 3] w, float[16] bias, float[64, 12] v>
{
  kept = Concat<axis = 1>(a, b)
  y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(kept, w, bias)
  rows = Concat<axis = -1>(c, d)
  z = MatMul(rows, v)
}"""

SMALL = SplitJoinsConfig(least_depth=24)


def program() -> Program:
    given = model(TEXT, np.random.default_rng(0))
    ShapeInferencePass()(given)
    rates = {str(value.name): Rate.SAMPLE for value in given.graph.inputs}
    return Program("joins", {"full": given}, rates, weights=frozenset(given.graph.initializers))


def context() -> Context:
    """The halves differ in range by a factor of a hundred."""
    rng = np.random.default_rng(1)
    given = {str(value.name): value.shape.numpy() for value in program().variants["full"].graph.inputs}
    gains = {"a": 1, "b": 100, "c": 100, "d": 1}
    call = {
        name: (gains[name] * rng.standard_normal(shape)).astype(np.float32) for name, shape in given.items()
    }
    return Context(referee=Interpreter, calibration=[call])


def test_the_function_stays() -> None:
    before = program()
    after = apply([SplitJoins(SMALL)], before, context())
    graph = after.variants["full"].graph
    onnx.checker.check_model(ir.serde.serialize_model(after.variants["full"]))
    assert after.history[-1].effect == {"products": 2}
    assert [node.op_type for node in graph].count("Conv") == 2
    assert [node.op_type for node in graph].count("MatMul") == 2
    call = context().calibration[0]
    wanted, got = Interpreter(before)(call), Interpreter(after)(call)
    for name, exact in wanted.items():
        # Sums of 576 products at most, in two parts: each rounds by half a unit of the largest partial sum.
        np.testing.assert_allclose(got[name], exact, rtol=0, atol=1e-5 * np.abs(exact).max())
    assert "kept" in wanted


def test_halves_with_ranges_of_their_own_lose_less() -> None:
    config = QuantiseConfig(weights="float32", least_depth=1)
    whole = apply([Quantise(config)], program(), context())
    halves = apply([SplitJoins(SMALL), Quantise(config)], program(), context())
    errors = {}
    for name, changed in (("whole", whole), ("halves", halves)):
        small = dict(context().calibration[0])
        for silent in ("b", "c"):  # what the smaller half alone makes of it
            small[silent] = np.zeros_like(small[silent])
        wanted, got = Interpreter(program())(small), Interpreter(changed)(small)
        errors[name] = max(
            np.linalg.norm(got[one] - wanted[one]) / np.linalg.norm(wanted[one]) for one in "yz"
        )
    # One scale for both leaves the smaller half a hundredth of the integers.
    assert errors["halves"] < errors["whole"] / 30


def test_small_halves_stay_together() -> None:
    kept = apply([SplitJoins(SplitJoinsConfig(least_depth=1000))], program(), context())
    assert kept.history[-1].effect == {"products": 0}
    # Of the small UNet the join of 16 and 16 channels is too small to quantise at all.
    changed = apply([SplitJoins()], small_unet.program(), small_unet.context())
    assert changed.history[-1].effect == {"products": 0}
    changed = apply(
        [SplitJoins(SplitJoinsConfig(least_depth=16))], small_unet.program(), small_unet.context()
    )
    assert changed.history[-1].effect == {"products": 1}
