"""Learned rounding: what it replaces, what that is worth on calls it has not seen, and that it can be taken up again."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import diffusers
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from fick.compiler.frontends.torch_module import import_module
from fick.ir.constants import numbers_of
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.making import Maker
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Arrays, Context, apply
from fick.passes.held_out import split
from fick.passes.hoist import Hoist
from fick.passes.learned.low_rank import LowRank
from fick.passes.learned.rounding import LearnRounding, LearnRoundingConfig
from fick.passes.learned.units import units
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.apply import quantised as quantised_as
from fick.passes.quantise.choices import Choice
from fick.passes.quantise.products import products
from fick.passes.quantise.ranges import Ranges

from . import small_unet
from .serialised import serialised

CALLS = 12
QUICK = {"iterations": 100, "learning_rate": 0.03, "regulariser": 1.0, "drop": 0.5, "calls": CALLS}
ONE_BLOCK = {"least_depth": 64}
"""Quantises five products: those of the feed-forward part's end and of four convolutions."""


def calls() -> list[dict[str, np.ndarray]]:
    """Samples as smooth as those of a trajectory: what neighbouring pixels and channels share is what rounding of one
    weight can make up for in another.
    """
    rng = np.random.default_rng(3)
    made = small_unet.calls(CALLS)
    for one in made:
        coarse = rng.standard_normal((small_unet.BATCH, 4, 2, 4)).repeat(2, 2).repeat(2, 3)
        one["sample"] = (one["sample"] * 0.3 + coarse + coarse.sum(1, keepdims=True)).astype(np.float32)
    return made


def context(work_folder: Path | None = None) -> Context:
    return Context(
        referee=Interpreter, calibration=calls(), reference=small_unet.program(), work_folder=work_folder
    )


def quantised(**config: object) -> Program:
    chosen = QuantiseConfig.model_validate({"weights": "int4", "activations": "float32", **config})
    return apply([Quantise(chosen)], small_unet.program(), context())


def learned(program: Program, given: Context | None = None, **config: object) -> Program:
    chosen = LearnRoundingConfig.model_validate({**QUICK, **config})
    return apply([LearnRounding(chosen)], program, given or context())


def integers(program: Program) -> dict[str, ir.Value]:
    """What products' weights are dequantised from, by the name of what the products read."""
    return {
        str(node.outputs[0].name): node.inputs[0]
        for node in program.variants["full"].graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].dtype is ir.DataType.INT4
    }


def relative(program: Program, name: str, held_out: list[Arrays]) -> float:
    """|given - wanted| / |wanted| of a value, by the referee."""
    given, wanted = (
        np.stack([Interpreter(which, [name])(call)[name] for call in held_out]).astype(np.float64)
        for which in (program, small_unet.program())
    )
    return float(np.linalg.norm(given - wanted) / np.linalg.norm(wanted))


@pytest.fixture(scope="module")
def whole() -> tuple[Program, Program]:
    """Every product in four bits, rounded to the nearest, and learned."""
    before = quantised(least_depth=1)
    return before, learned(before)


def test_weights_become_integers_next_to_what_they_were(whole: tuple[Program, Program]) -> None:
    before, after = whole
    graph = after.variants["full"].graph
    assert "QuantizeLinear" not in {node.op_type for node in graph}
    exact, nearest, found = integers(small_unet.program()), integers(before), integers(after)
    assert not exact and set(found) == set(nearest) and len(found) == 16
    changed = 0
    for name, value in found.items():
        assert value.is_initializer() and value.dtype is ir.DataType.INT4
        source, scale = nearest[name].producer().inputs
        axis = nearest[name].producer().attributes["axis"].as_int()
        weight = numbers_of(source)
        shape = [1] * weight.ndim
        shape[axis] = -1
        numbers = value.const_value.numpy().astype(np.float32)
        steps = weight / numbers_of(scale).reshape(shape)
        assert (np.abs(numbers - steps) < 1.00001).all()
        changed += int((numbers != np.rint(steps)).sum())
    effect = after.history[-1].effect
    assert effect["weights"] == 16
    total = sum(value.const_value.size for value in found.values())
    assert effect["changed_share"] == pytest.approx(changed / total) and 0.05 < changed / total < 0.5


def test_the_checkpoints_tensors_are_read_no_more(whole: tuple[Program, Program]) -> None:
    before, after = whole
    assert before.weights == frozenset(small_unet.SHAPES)
    assert after.weights == {"time_scale", "gamma", "beta"}
    assert after.weights <= set(after.variants["full"].graph.initializers)
    assert not set(small_unet.SHAPES) - after.weights & set(after.variants["full"].graph.initializers)
    hoisted = apply([Hoist()], after.copy(), context())
    for model in hoisted.variants.values():
        onnx.checker.check_model(ir.serde.serialize_model(model))
    call = calls()[0]
    np.testing.assert_allclose(
        Interpreter(hoisted)(call)["output"], Interpreter(after)(call)["output"], atol=1e-5
    )


def test_blocks_err_less_on_calls_that_were_not_learned_from(whole: tuple[Program, Program]) -> None:
    effect = whole[1].history[-1].effect
    errors = effect["block_error"]
    # Five convolutions, the three parts of a transformer, and one more.
    assert len(errors) == effect["blocks"] == 9
    assert all(one["learned"] <= one["nearest"] for one in errors.values())
    assert effect["improved"] >= 7
    gains = [one["learned"] / one["nearest"] for one in errors.values()]
    assert np.mean(gains) < 0.95
    assert effect["output_error"] < 0.8 * effect["output_error_nearest"]


def test_the_errors_told_are_those_of_the_referee(whole: tuple[Program, Program]) -> None:
    before, after = whole
    effect = after.history[-1].effect
    held_out = split(small_unet.program(), calls(), CALLS, LearnRoundingConfig().held_out)[1]
    assert len(held_out) == 3
    # Sums in another order, and whatever steep attention makes of them.
    for name in ("half", "up", "narrow"):
        assert relative(after, name, held_out) == pytest.approx(
            effect["block_error"][name]["learned"], rel=1e-3
        )
    for program, key in ((before, "output_error_nearest"), (after, "output_error")):
        assert relative(program, "output", held_out) == pytest.approx(effect[key], rel=1e-3)


def test_every_weight_belongs_to_one_block() -> None:
    program = quantised(least_depth=1)
    known = {
        str(value.name) for node in small_unet.program().variants["full"].graph for value in node.outputs
    }
    for extent, count in (("layer", 16), ("part", 9), ("block", 9)):
        found = units(program, extent, 4, known)
        names = [weight.name for unit in found for weight in unit.weights]
        assert len(names) == len(set(names)) == 16
        assert len(found) == count
    parts = {unit.name: unit for unit in units(program, "part", 4, known)}
    # Keys and values of the text belong to the attention that alone reads them.
    assert parts["attention.1"].inputs == ("r1", "encoder_hidden_states")
    assert len(parts["attention.1"].weights) == 4 and parts["attention.1"].outputs == ("r2",)
    assert not units(program, "part", 3, known)


def test_blocks_of_a_transformer_hold_what_is_beside_its_parts() -> None:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=16, attention_head_dim=2,
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    imported = import_module(unet, None)
    rates = {name: Rate(rate) for name, rate in imported.inputs.items()}
    program = Program("unet", {"full": imported.model}, rates, weights=imported.weights)
    choice = Choice("int4", "float32")
    listed = products(imported.model.graph, rates)
    narrow = quantised_as(program, {one.name: choice for one in listed}, Ranges({}))
    known = {str(value.name) for node in imported.model.graph for value in node.outputs}
    found = {extent: units(narrow, extent, 4, known) for extent in ("layer", "part", "block")}
    for extent in found:
        assert sum(len(unit.weights) for unit in found[extent]) == len(found["layer"]) == len(listed)
    transformers = [unit for unit in found["block"] if re.fullmatch(r".*attentions\.\d+", unit.name)]
    assert len(transformers) == 4
    for unit in transformers:
        # Four products of each attention, two of the feed-forward part, one before and one after them all.
        assert len(unit.weights) == 12
        parts = [one for one in found["part"] if one.name.startswith(unit.name)]
        assert [len(one.weights) for one in parts] == [4, 4, 2]
    resnets = [unit for unit in found["block"] if ".resnets." in unit.name]
    assert resnets == [unit for unit in found["part"] if ".resnets." in unit.name]


def test_twice_gives_the_same_bytes_and_so_does_taking_it_up_again(tmp_path: Path) -> None:
    program = quantised(**ONE_BLOCK)
    plain, kept = learned(program), learned(program, context(tmp_path))
    assert serialised(plain) == serialised(kept)
    files = sorted((tmp_path / "learn-rounding").rglob("*.safetensors"))
    assert len(files) == kept.history[-1].effect["blocks"] == 5

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        told.append(done)
        if done == 250:
            raise Stopped

    told: list[int] = []
    interrupted = tmp_path / "second"
    with pytest.raises(Stopped):
        learned(program, dataclasses.replace(context(interrupted), progress=stop))
    finished = sorted(interrupted.rglob("*.safetensors"))
    assert len(finished) == 2 and {one.name for one in finished} <= {one.name for one in files}
    # A file that is damaged is made again.
    finished[0].write_bytes(finished[0].read_bytes()[:100])
    assert serialised(learned(program, context(interrupted))) == serialised(plain)
    other = learned(program, context(tmp_path), iterations=101)
    assert serialised(other) != serialised(plain)
    assert len(list((tmp_path / "learn-rounding").rglob("*.safetensors"))) == 10


def test_only_weights_of_few_bits_are_learned() -> None:
    program = quantised(weights="int8", least_depth=64)
    with pytest.raises(UserError, match="finds no weight quantised to 4 bits or fewer"):
        learned(program)
    after = learned(program, bits=8, iterations=20)
    assert after.history[-1].effect["weights"] == 5
    assert not {"QuantizeLinear"} & {node.op_type for node in after.variants["full"].graph}


def test_activations_of_eight_bits_are_learned_through() -> None:
    program = quantised(activations="int8", **ONE_BLOCK)
    after = learned(program, extent="block")
    rounding = [node for node in after.variants["full"].graph if node.op_type == "QuantizeLinear"]
    assert len(rounding) == 5  # those of activations stay
    effect = after.history[-1].effect
    assert effect["improved"] >= 3 and effect["output_error"] < effect["output_error_nearest"]


def test_a_scale_for_every_block_of_a_column() -> None:
    """Written by hand: sixteen rows of the feed-forward layer's end share a scale."""
    program = small_unet.program()
    graph = program.variants["full"].graph
    node = next(node for node in graph if node.outputs[0].name == "f")
    weight = graph.initializers["w2"]
    blocks = weight.const_value.numpy().reshape(4, 16, 16)
    maker = Maker(node, "int4")
    scale = maker.constant((np.abs(blocks).max(1) / 7).astype(np.float32))
    form = {"axis": 0, "block_size": 16}
    whole = maker.add(
        "QuantizeLinear", (weight, scale), (64, 16), ir.DataType.INT4, output_dtype=int(ir.DataType.INT4), **form
    )  # fmt: skip
    result = maker.add("DequantizeLinear", (whole, scale), (64, 16), ir.DataType.FLOAT, **form)
    maker.before()
    node.replace_input_with(1, result)
    after = learned(program, extent="layer")
    (error,) = after.history[-1].effect["block_error"].values()
    assert error["learned"] < 0.95 * error["nearest"]
    (value,) = integers(after).values()
    steps = blocks / scale.const_value.numpy()[:, None]
    assert (np.abs(value.const_value.numpy().astype(np.float32).reshape(4, 16, 16) - steps) < 1.00001).all()


def test_behind_a_low_rank_branch() -> None:
    program = apply(
        [LowRank(), Quantise(QuantiseConfig(weights="int4", activations="float32", least_depth=1))],
        small_unet.program(),
        context(),
    )
    after = learned(program, iterations=30)
    assert after.history[-1].effect["weights"] == 16


def test_what_is_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="needs reference"):
        learned(small_unet.program(), dataclasses.replace(context(), reference=None))
    with pytest.raises(UserError, match="needs calibration"):
        learned(small_unet.program(), dataclasses.replace(context(), calibration=None))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        UserError, match=r"pass learn-rounding needs torch; install it with `pip install 'fick\[torch\]'`"
    ):
        learned(small_unet.program())
