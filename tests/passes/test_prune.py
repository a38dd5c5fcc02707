"""Blocks taken out: against graphs from which they were taken out by hand, and maps against numpy's least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from fick.compiler.recipes import read_recipe
from fick.ir import referee
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.prune import Prune, PruneConfig, surgery
from fick.passes.prune.candidates import alive, candidates
from fick.passes.prune.repair import repaired
from fick.passes.prune.stacks import trim
from fick.passes.prune.surgery import Removal

from . import small_unet
from .serialised import serialised

CALLS = 6


def pruned(*blocks: str, given: Context | None = None, **config: Any) -> Program:
    wanted = PruneConfig.model_validate({"blocks": blocks, **config})
    return apply([Prune(wanted)], small_unet.program(), given or Context())


def outputs(program: Program, *names: str) -> dict[str, NDArray[Any]]:
    """Of every call, one behind the other; values inside by name."""
    call = Interpreter(program, names)
    found = [{**inputs, **call(inputs)} for inputs in small_unet.calls(CALLS)]
    return {name: np.concatenate([one[name] for one in found]) for name in ("output", *names)}


def by_hand(change: Callable[[dict[str, ir.Value]], tuple[str, ir.Value]]) -> Program:
    """The program with a value, said by ``change``, read in place of another."""
    program = small_unet.program()
    graph = program.variants["full"].graph
    values = {str(one.name): one for node in graph for one in node.outputs}
    name, value = change(values)
    ir.convenience.replace_all_uses_with(values[name], value)
    RemoveUnusedNodesPass()(program.variants["full"])
    return program


@pytest.mark.parametrize(
    ("blocks", "exit", "entry"),
    [
        (["feed_forward.0"], "r3", "r2"),
        (["attention.0"], "r1", "tokens"),
        (["feed_forward.0", "attention.0"], None, None),
    ],
)
def test_without_a_block_its_input_is_read(blocks: list[str], exit: str | None, entry: str | None) -> None:
    program = pruned(*blocks)
    nodes = {str(node.outputs[0].name) for node in program.variants["full"].graph}
    if exit is None or entry is None:
        assert nodes.isdisjoint({"a1", "r1", "f", "r3"}) and {"tokens", "r2"} <= nodes
        assert len(np.unique(outputs(program)["output"])) > 100
        return
    expected = by_hand(lambda values: (exit, values[entry]))
    np.testing.assert_array_equal(outputs(program)["output"], outputs(expected)["output"])
    assert nodes == {str(node.outputs[0].name) for node in expected.variants["full"].graph}
    kept, wanted = (one.variants["full"].graph.initializers.keys() for one in (program, expected))
    assert set(kept) == set(wanted) < small_unet.program().weights | set(small_unet.CONSTANTS)
    # A checkpoint may bring what is not read.
    assert program.weights == small_unet.program().weights
    effect = program.history[-1].effect
    assert (
        effect["parameters"]["after"]
        < effect["parameters"]["before"]
        == sum(int(np.prod(one)) for one in small_unet.SHAPES.values())
    )


def test_blocks_one_behind_the_other_go_in_any_order() -> None:
    """The exit of one is the entry of the other."""
    blocks = ("attention.0", "feed_forward.0")
    one, other = (pruned(*names) for names in (blocks, blocks[::-1]))
    assert serialised(one) == serialised(other)


def test_a_map_is_the_least_squares_of_what_was_there() -> None:
    """numpy's own, over the half of the calls that maps are fitted to; held in float32, so to a part in 1e5."""
    given = small_unet.context(CALLS)
    program = pruned("feed_forward.0", given=given, by="linear", ridge=0.0, calls=CALLS)
    fitted = [one for index, one in enumerate(small_unet.calls(CALLS)) if index not in (1, 3, 5)]
    call = Interpreter(small_unet.program(), ["r2", "r3"])
    results = [call(inputs) for inputs in fitted]
    x, y = (np.concatenate([one[name] for one in results]).reshape(-1, 16) for name in ("r2", "r3"))
    wide = np.concatenate([x, np.ones((len(x), 1))], 1).astype(np.float64)
    expected, *_ = np.linalg.lstsq(wide, y.astype(np.float64))
    ours = outputs(program, "r2", "r3")
    wanted = ours["r2"].astype(np.float64) @ expected[:-1] + expected[-1]
    np.testing.assert_allclose(ours["r3"], wanted, atol=1e-5 * np.abs(wanted).max())
    assert "w1" not in program.weights
    plain, exact = outputs(pruned("feed_forward.0")), outputs(small_unet.program())
    assert np.linalg.norm(ours["output"] - exact["output"]) < np.linalg.norm(
        plain["output"] - exact["output"]
    )


def test_repair_regresses_each_channel_behind_what_went_before() -> None:
    """As numpy does, from what the program without both blocks has there to what the whole one has."""
    whole, given = small_unet.program(), small_unet.context(CALLS)
    found = {one.name: one for one in candidates(whole.variants["full"].graph)}
    gone = [Removal(found[name], "identity", {}) for name in ("feed_forward.0", "attention.0")]
    mended = repaired(given, whole, gone, small_unet.calls(CALLS), 0.0, "prune")
    ours = outputs(surgery.pruned(whole, mended, "prune"), "tokens", "r1", "r2", "r3")
    theirs = outputs(whole, "r1", "r3")
    for before, after in (("tokens", "r1"), ("r2", "r3")):
        x, y, fitted = (one.reshape(-1, 16) for one in (ours[before], theirs[after], ours[after]))
        for channel in range(16):
            slope, shift = np.polyfit(x[:, channel].astype(np.float64), y[:, channel], 1)
            np.testing.assert_allclose(fitted[:, channel], slope * x[:, channel] + shift, atol=1e-4)
    effect = pruned("feed_forward.0", given=given, repair=True).history[-1].effect
    assert effect["output_error"] < effect["unrepaired_error"]


def test_the_same_twice() -> None:
    given = small_unet.context(CALLS)
    one, other = (
        pruned("attention.0", "feed_forward.0", given=given, by="linear", repair=True) for _ in range(2)
    )
    assert serialised(one) == serialised(other)


@pytest.mark.parametrize(
    ("blocks", "config", "said"),
    [
        (["feed_forwrd.0"], {}, "no block feed_forwrd.0 that can go; did you mean feed_forward.0?"),
        (
            ["attention.1"],
            {},
            "with attention.1 gone, the last path from encoder_hidden_states to the output",
        ),
        ([], {}, "pass prune names no block"),
        (["attention.0"], {"by": "linear"}, "pass prune needs calibration"),
    ],
)
def test_mistakes_are_told(blocks: Sequence[str], config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        pruned(*blocks, **config)


def test_a_recipe_names_blocks(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        '[[pass]]\nname = "prune"\nblocks = ["mid_block"]\nby = "shortcut"\n'
    )
    (one,) = read_recipe(tmp_path / "recipe.toml").passes
    assert one.config == PruneConfig(blocks=("mid_block",), by="shortcut")
    (tmp_path / "recipe.toml").write_text('[[pass]]\nname = "prune"\nblocks = ["mid_block"]\nby = "magic"\n')
    with pytest.raises(UserError, match=r"pass 1 \(prune\), by\.literal.*: Input should be 'identity'"):
        read_recipe(tmp_path / "recipe.toml")


def test_candidates_hold_what_their_exits_need() -> None:
    graph = small_unet.program().variants["full"].graph
    found = {one.name: one for one in candidates(graph)}
    assert found.keys() == {"attention.0", "attention.1", "feed_forward.0"}
    everything, inputs = alive(graph, {})
    assert inputs == set(small_unet.RATES)
    left, _ = alive(graph, {"r3": "r2"})
    assert everything - left == {"r3", "f", "g", "h", "n3"}


STACKED = """<ir_version: 11, opset_import: ["" : 24]>
stacked (float[1,3] time, float[4,3] w0, float[6,3] w1, float[2,3] w2, float[4] b0, float[6] b1, float[2] b2,
         int64[4] whole, int64[4] sizes) => (float[1,4,1,1] first, float[1,2,1,1] last)
{
  weights = Concat<axis=0>(w0, w1, w2)
  biases = Concat<axis=0>(b0, b1, b2)
  product = Gemm<transB=1>(time, weights, biases)
  picture = Reshape(product, whole)
  first, scale, shift, last = Split<axis=1>(picture, sizes)
}"""


def test_projections_of_the_timestep_that_nothing_reads_go() -> None:
    """A scale and a shift of one that went, and what stood beside it: with another time, the same as before."""
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(STACKED)
    given = {str(value.name): value for value in model.graph.inputs if value.name != "time"}
    for name, value in given.items():
        assert value.shape is not None
        array: Any = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        array = {"whole": np.array([1, 12, 1, 1]), "sizes": np.array([4, 3, 3, 2])}.get(name, array)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
    ShapeInferencePass()(model)
    time = {"time": rng.standard_normal((1, 3)).astype(np.float32)}
    before = referee.run(model, time)
    trim(model.graph)
    RemoveUnusedNodesPass()(model)
    after = referee.run(model, time)
    for name in ("first", "last"):
        np.testing.assert_array_equal(after[name], before[name])
    assert not {"w1", "b1", "sizes", "whole"} & set(model.graph.initializers)
