"""Channels taken out: which stand or fall together, against smaller networks written out by hand, and first-order
importances against the change that they are of.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from fick.compiler.costs.predicted import Predicted
from fick.ir.constants import numbers_of
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.prune import PruneChannels, PruneChannelsConfig
from fick.passes.prune.channels import FIXED, find
from fick.passes.prune.families import chosen, families
from fick.passes.prune.slices import sliced
from fick.passes.prune.taylor import Draws, importance
from fick.passes.quantise import Quantise, QuantiseConfig

from . import small_unet
from .serialised import serialised
from .test_prune_blocks import SLOW

WIDE, INNER, FEATURES, GROUPS = 8, 12, 10, 4
FORM = """<ir_version: 11, opset_import: ["" : 24]>
unet (float[2,4,4,4] sample, float[1,3] time, WEIGHTS) => (float[2,4,4,4] output)
{{
  entered = Conv<pads=[1,1,1,1]>(sample, conv_in)
  n1 = GroupNormalization<num_groups={groups}, epsilon=0.00001>(entered, g1, b1)
  c1 = Conv<pads=[1,1,1,1]>(n1, w1, w1_bias)
  t = MatMul(time, wt)
  t4 = Reshape(t, to_picture)
  timed = Add(c1, t4)
  n2 = GroupNormalization<num_groups={groups}, epsilon=0.00001>(timed, g2, b2)
  s2 = Swish(n2)
  c2 = Conv<pads=[1,1,1,1]>(s2, w2)
  r1 = Add(c2, entered)
  joined = Concat<axis=1>(r1, entered)
  n3 = GroupNormalization<num_groups={groups}, epsilon=0.00001>(joined, g3, b3)
  c3 = Conv(n3, w3)
  flat = Reshape(c3, to_flat)
  tokens = Transpose<perm=[0,2,1]>(flat)
  q = MatMul(tokens, wq)
  k = MatMul(tokens, wk)
  v = MatMul(tokens, wv)
  a = Attention<q_num_heads={heads}, kv_num_heads={heads}>(q, k, v)
  o = MatMul(a, wo)
  r2 = Add(o, tokens)
  h = MatMul(r2, wide)
  left, right = Split<axis=-1, num_outputs=2>(h)
  gate = Gelu(right)
  gated = Mul(left, gate)
  f = MatMul(gated, narrow)
  r3 = Add(f, r2)
  back = Transpose<perm=[0,2,1]>(r3)
  grid = Reshape(back, to_grid)
  output = Conv(grid, conv_out)
}}"""


def drawn() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    shapes = {
        "conv_in": (WIDE, 4, 3, 3), "g1": (WIDE,), "b1": (WIDE,), "w1": (INNER, WIDE, 3, 3), "w1_bias": (INNER,),
        "wt": (3, INNER), "g2": (INNER,), "b2": (INNER,), "w2": (WIDE, INNER, 3, 3), "g3": (2 * WIDE,),
        "b3": (2 * WIDE,), "w3": (WIDE, 2 * WIDE, 1, 1), "wq": (WIDE, WIDE), "wk": (WIDE, WIDE), "wv": (WIDE, WIDE),
        "wo": (WIDE, WIDE), "wide": (WIDE, 2 * FEATURES), "narrow": (FEATURES, WIDE), "conv_out": (4, WIDE, 1, 1),
    }  # fmt: skip
    return {name: (rng.standard_normal(one) / 3).astype(np.float32) for name, one in shapes.items()}


def program(weights: dict[str, NDArray[Any]], heads: int = 4) -> Program:
    """Of whatever widths the weights are."""
    wide, inner = len(weights["w3"]), len(weights["w1"])
    arrays = {
        **weights,
        "to_picture": np.array([1, inner, 1, 1]),
        "to_flat": np.array([2, wide, 16]),
        "to_grid": np.array([2, wide, 4, 4]),
    }
    kinds = {np.float32: "float", np.int64: "int64"}
    declared = ", ".join(
        f"{kinds[one.dtype.type]}[{','.join(map(str, one.shape))}] {name}" for name, one in arrays.items()
    )
    text = FORM.format(groups=GROUPS, heads=heads).replace("WEIGHTS", declared)
    model = ir.from_onnx_text(text)
    given = {str(value.name): value for value in model.graph.inputs}
    for name, array in arrays.items():
        model.graph.inputs.remove(given[name])
        given[name].const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(given[name])
    for _ in range(4):
        # ONNX's inference knows no group normalisation, and there are three.
        ShapeInferencePass()(model)
        for node in model.graph:
            if node.op_type == "GroupNormalization" and node.inputs[0] is not None:
                node.outputs[0].shape, node.outputs[0].type = node.inputs[0].shape, node.inputs[0].type
    rates = {"sample": Rate.SAMPLE, "time": Rate.STEP}
    return Program("small", {"full": model}, rates, weights=frozenset(weights))


def calls(count: int = 6) -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(1)
    return [
        {
            "sample": rng.standard_normal((2, 4, 4, 4)).astype(np.float32),
            "time": np.full((1, 3), index, np.float32),
        }
        for index in range(count)
    ]


def context(work_folder: Path | None = None) -> Context:
    return Context(referee=Interpreter, calibration=calls(), work_folder=work_folder)


def test_what_is_added_normalised_or_attended_to_is_one_channel() -> None:
    found = find(program(drawn()).variants["full"].graph)
    axes = found.axes
    np.testing.assert_array_equal(axes["w1"][0], axes["w2"][1])
    for name, axis in (("w1_bias", 0), ("wt", 1), ("g2", 0), ("b2", 0)):
        np.testing.assert_array_equal(axes["w1"][0], axes[name][axis])
    np.testing.assert_array_equal(axes["wide"][1][:FEATURES], axes["wide"][1][FEATURES:])
    heads = axes["wq"][1].reshape(4, 2)
    assert (heads == heads[:, :1]).all() and len(np.unique(heads)) == 4
    for name, axis in (("wk", 1), ("wv", 1), ("wo", 0)):
        np.testing.assert_array_equal(axes["wq"][1], axes[name][axis])
    assert (axes["conv_in"][1] == FIXED).all() and (axes["conv_out"][0] == FIXED).all()
    # Heads, the stream behind the join, features, the stream before it, of two in a group and then of four with what it
    # is joined to, and what is inside the resnet.
    sizes = sorted((len(one), len(one[0])) for one in families(found))
    assert sizes == [(1, 4), (1, WIDE), (1, FEATURES), (GROUPS, WIDE // GROUPS), (GROUPS, INNER // GROUPS)]


def test_groups_that_straddle_two_widths_keep_both() -> None:
    """Of eight channels beside twelve, a group of five has some of each."""
    channels = find(program(drawn()).variants["full"].graph)
    stream, inner = channels.axes["conv_in"][0], channels.axes["w1"][0]
    joined = replace(channels, norms=[*channels.norms, (np.concatenate([stream, inner]), 4)])
    assert sorted((len(one), len(one[0])) for one in families(joined)) == [(1, 4), (1, WIDE), (1, FEATURES)]


def test_pruned_is_the_smaller_network() -> None:
    """Written out with the slices of the weights that are left."""
    whole = program(drawn())
    done = apply([PruneChannels(PruneChannelsConfig(share=0.5, calls=6))], whole, context())
    graph = done.variants["full"].graph
    # What products and norms read, by the name of the weight that it is of.
    left: dict[str, NDArray[Any]] = {}
    for node in graph:
        for value in node.inputs:
            if value is None or node.op_type == "Gather":
                continue
            source = value
            while (
                (maker := source.producer()) is not None
                and maker.op_type == "Gather"
                and maker.inputs[0] is not None
            ):
                source = maker.inputs[0]
            if source.name in whole.weights:
                left[str(source.name)] = numbers_of(value)
    assert left["w1"].shape[0] == left["w2"].shape[1] == INNER - GROUPS
    assert left["narrow"].shape[0] == FEATURES // 2 and left["wq"].shape[1] == WIDE // 2
    by_hand = program(left, heads=2)
    for call in calls(2):
        given, wanted = (Interpreter(one)(call)["output"] for one in (done, by_hand))
        np.testing.assert_allclose(given, wanted, atol=1e-6)
    # Another checkpoint's weights are sliced alike: they are all there, under their names.
    assert whole.weights <= set(graph.initializers) and done.weights == whole.weights
    effect = done.history[-1].effect
    assert effect["macs"]["after"] < effect["macs"]["before"] and effect["output_error"] > 0


def test_importance_is_what_the_output_loses_to_first_order() -> None:
    """Of features that nothing else normalises, taking one away is linear: the very change of the output."""
    whole = program(drawn())
    channels = find(whole.variants["full"].graph)
    (call,) = calls(1)
    many = importance(context(), whole, channels, [call], [0.0], 0.0, Draws(200, "cpu"))
    exact = Interpreter(whole)(call)["output"]
    for one in channels.axes["narrow"][0][:4]:
        zeroed = drawn()
        zeroed["narrow"][channels.axes["narrow"][0] == one] = 0
        change = float(np.square(Interpreter(program(zeroed))(call)["output"] - exact).sum())
        # A mean of 200 squares of normal numbers is within 3 sqrt(2 / 200) of their variance.
        assert many[one] == pytest.approx(change, rel=0.3)


def test_timesteps_at_which_little_matters_do_not_count() -> None:
    whole = program(drawn())
    channels = find(whole.variants["full"].graph)
    both, draws = calls(2), Draws(2, "cpu")
    first = importance(context(), whole, channels, both[:1], [0.0], 0.05, draws)
    mean, most = (
        importance(context(), whole, channels, both, [0.0, 1.0], threshold, draws) for threshold in (0.0, 1.0)
    )
    last = 2 * mean - first
    np.testing.assert_allclose(most, first if first.sum() >= last.sum() else last, atol=1e-9 * most.max())
    alike = importance(context(), whole, channels, both, [0.0, 0.0], 1.0, draws)
    np.testing.assert_allclose(alike, mean)


def test_what_was_measured_is_kept_and_the_same_twice(tmp_path: Path) -> None:
    config = PruneChannelsConfig(share=0.5, calls=6)
    one, other, plain = (
        apply([PruneChannels(config)], program(drawn()), given)
        for given in (context(tmp_path), context(tmp_path), context())
    )
    assert serialised(one) == serialised(other) == serialised(plain)
    assert len(list((tmp_path / "prune-channels").iterdir())) == 3


def test_a_whole_unet_stays_valid() -> None:
    whole = small_unet.program()
    given = small_unet.context(6)
    done = apply([PruneChannels(PruneChannelsConfig(share=0.5, calls=6))], whole, given)
    result = Interpreter(done)(small_unet.calls(1)[0])["output"]
    assert result.shape == (2, 4, 4, 8) and np.isfinite(result).all()
    channels = find(whole.variants["full"].graph)
    assert Interpreter(sliced(whole, channels, []))(small_unet.calls(1)[0])["output"].shape == result.shape


def test_too_small_a_share_is_told() -> None:
    with pytest.raises(UserError, match=r"finds no layer of which 0\.01 is a channel of every group"):
        apply([PruneChannels(PruneChannelsConfig(share=0.01, calls=6))], program(drawn()), context())


def test_after_what_quantises_there_are_no_channels_to_follow() -> None:
    given = small_unet.context(2)
    with pytest.raises(
        UserError, match="finds no layer whose channels it could take; put it before what quantises"
    ):
        apply([Quantise(QuantiseConfig(least_depth=1)), PruneChannels()], small_unet.program(), given)


def test_what_heads_are_made_of_goes_without_moving_the_rest() -> None:
    """Scores keep their scale: what is left of a narrower head is what there would be with zeros."""
    whole = program(drawn(), heads=2)
    channels = find(whole.variants["full"].graph, whole_heads=False)
    compared, valued = channels.axes["wq"][1], channels.axes["wv"][1]
    np.testing.assert_array_equal(compared, channels.axes["wk"][1])
    np.testing.assert_array_equal(valued, channels.axes["wo"][0])
    gone = [*compared[[1, 6]].tolist(), *valued[[0, 3, 5, 7]].tolist()]
    zeroed = drawn()
    for name, places in (("wq", [1, 6]), ("wk", [1, 6]), ("wv", [0, 3, 5, 7])):
        zeroed[name][:, places] = 0
    for call in calls(2):
        given = Interpreter(sliced(whole, channels, gone))(call)["output"]
        np.testing.assert_allclose(given, Interpreter(program(zeroed, heads=2))(call)["output"], atol=1e-5)
    # Each of these is told apart by what it matters, though no weight sums over it.
    worth = importance(context(), whole, channels, calls(1), [0.0], 0.0, Draws(2, "cpu"))
    assert len(set(worth[compared].tolist())) == len(compared) and (worth[compared] > 0).all()


@pytest.mark.parametrize("quantity", ["latency", "bytes"])
def test_a_budget_takes_the_least_share_that_keeps_to_it(quantity: str) -> None:
    whole, given = program(drawn()), replace(context(), cost_model=Predicted(SLOW))
    channels = find(whole.variants["full"].graph)
    done = apply(
        [PruneChannels(PruneChannelsConfig(budget=f"{quantity}=0.8x", calls=6, draws=1))], whole, given
    )
    share = done.history[-1].effect["share"]
    some = families(channels)
    worth = importance(context(), whole, channels, calls()[::2], [0.0] * 3, 0.05, Draws(1, "cpu"))

    def cost(share: float) -> float:
        gone = [one for family in some for one in chosen(family, worth, share)]
        return Predicted(SLOW)(sliced(whole, channels, gone)).total(quantity)

    assert Predicted(SLOW)(done).total(quantity) <= 0.8 * cost(0.0) < cost(share - 1e-6)


def test_budgets_that_cannot_be_kept_are_told() -> None:
    given = replace(context(), cost_model=Predicted(SLOW))
    for budget, told in (
        ("latency=0.01x", r"cannot keep to latency .*: the least is latency .* \(0\.\d+x\); raise the budget"),
        ("energy=0.5x", r"has a budget of energy, and what programs cost on this target is known in latency, bytes"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            apply(
                [PruneChannels(PruneChannelsConfig(budget=budget, calls=6, draws=1))], program(drawn()), given
            )
    with pytest.raises(
        UserError, match=r"widths = 'stages' goes with a UNet of diffusers, whose weights are called"
    ):
        apply(
            [PruneChannels(PruneChannelsConfig(widths="stages", calls=6, draws=1))], program(drawn()), given
        )
