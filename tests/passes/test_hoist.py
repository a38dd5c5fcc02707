"""Hoisting against the graph before it: the parts, run one after another, give the same numbers."""

from __future__ import annotations

import diffusers
import numpy as np
import onnx_ir as ir
import pytest
import torch

from fick.compiler.frontends import import_model
from fick.ir.interpreter import Interpreter
from fick.ir.modules import module_path
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.ir.referee import session
from fick.passes.base import Context, apply
from fick.passes.hoist import Hoist

Arrays = dict[str, np.ndarray]


def compute(model: ir.Model, inputs: Arrays) -> Arrays:
    """Run without ONNX Runtime's own fusions, which see more of a whole graph than of its parts."""
    runner = session(model, threads=1, optimise=False)
    names = [str(value.name) for value in model.graph.outputs]
    given = {str(value.name): inputs[str(value.name)] for value in model.graph.inputs}
    return dict(zip(names, runner.run(names, given), strict=True))


def draw(model: ir.Model) -> Arrays:
    rng = np.random.default_rng(5)
    return {
        str(value.name): rng.uniform(0.1, 1, [int(size) for size in value.shape or ()]).astype(np.float32)
        for value in model.graph.inputs
    }


def hoisted(program: Program) -> Program:
    """Hoist; check that every part runs, and that the result is that of the graph before it, to the bit."""
    whole = program.variants["full"]
    known = draw(whole)
    expected = compute(whole, known)
    result = apply([Hoist()], program, Context())
    for model in result.variants.values():
        known.update(compute(model, known))
    for name, array in expected.items():
        np.testing.assert_array_equal(known[name], array)
    assert program.variants == {"full": whole} and not program.history
    return result


def from_text(signature: str, body: str) -> Program:
    text = f'<ir_version: 10, opset_import: ["" : 23]> g {signature} {{ {body} }}'
    model = ir.from_onnx_text(text)
    ir.passes.common.ShapeInferencePass()(model)
    return Program("small", {"full": model}, {"x": Rate.SAMPLE, "p": Rate.PROMPT, "t": Rate.STEP})


def kinds(program: Program) -> dict[str, list[str]]:
    return {name: [node.op_type for node in model.graph] for name, model in program.variants.items()}


@pytest.fixture(scope="module")
def unet() -> Program:
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,
    )
    imported = import_model(model.eval())
    rates = {name: Rate(rate) for name, rate in imported.inputs.items()}
    return Program(imported.name, {"full": imported.model}, rates, imported.weights)


def test_unet(unet: Program) -> None:
    result = hoisted(unet)
    prompt = [module_path(node) for node in result.variants["prompt"].graph]
    crossing = [name for name in unet.weights if "attn2.to_k" in name or "attn2.to_v" in name]
    assert len(crossing) == 8
    assert sorted(f"{path}.weight" for path in prompt) == sorted(crossing)
    step = result.variants["step"].graph
    assert {"time_embedding.linear_1.weight", "time_embedding.linear_2.weight"} <= set(step.initializers)
    projections = {name for name in unet.weights if "time_emb_proj" in name}
    elsewhere = {name for part in ("prompt", "full") for name in result.variants[part].graph.initializers}
    assert projections and not projections & elsewhere
    assert "timestep" not in [value.name for value in result.variants["full"].graph.inputs]
    # Keys and values of 77 tokens, 4 bytes an element: three layers of 16 channels and one of 32.
    effect = result.history[0].effect
    assert effect["carried_bytes"]["prompt"] == 4 * 77 * 2 * (3 * 16 + 32)
    before = len(unet.variants["full"].graph)
    assert sum(effect["nodes"].values()) == before
    assert effect["nodes"]["full"] < before


def test_source_weights_keep_their_names(unet: Program) -> None:
    result = hoisted(unet)
    found = {name for model in result.variants.values() for name in model.graph.initializers}
    assert unet.weights <= found
    assert not set(result.variants["constant"].graph.inputs)


def test_the_same_input_gives_the_same_graphs(unet: Program) -> None:
    first, second = (apply([Hoist()], unet, Context()).variants for _ in range(2))
    for name, model in first.items():
        one, other = (
            ir.serde.serialize_model(found).SerializeToString(deterministic=True)
            for found in (model, second[name])
        )
        assert one == other


def test_a_view_stays_where_it_is_read() -> None:
    program = from_text(
        "(float[1,4] x, float[1,4] p) => (float[4,1] y) <int64[2] s = {4, 1}>",
        "e = Exp(p)  v = Reshape(e, s)  u = Reshape(x, s)  y = Add(u, v)",
    )
    assert kinds(hoisted(program)) == {"prompt": ["Exp"], "full": ["Reshape", "Reshape", "Add"]}


def test_a_view_inside_hoisted_work_goes_with_it() -> None:
    program = from_text(
        "(float[4,1] x, float[1,4] p) => (float[4,1] y) <int64[2] s = {4, 1}>",
        "v = Reshape(p, s)  e = Exp(v)  y = Add(x, e)",
    )
    assert kinds(hoisted(program)) == {"prompt": ["Reshape", "Exp"], "full": ["Add"]}


@pytest.mark.parametrize("source", ["p", "w"])
def test_an_enlarging_broadcast_is_not_carried(source: str) -> None:
    program = from_text(
        "(float[8,4] x, float[1,4] p) => (float[8,4] y) <int64[2] s = {8, 4}, float[1,4] w = {1, 2, 3, 4}>",
        f"e = Exp({source})  b = Expand(e, s)  z = Add(x, b)  y = Add(z, p)",
    )
    home = "prompt" if source == "p" else "constant"
    assert kinds(hoisted(program)) == {home: ["Exp"], "full": ["Expand", "Add", "Add"]}


def test_prompt_and_step_together_stay() -> None:
    program = from_text(
        "(float[4] x, float[4] p, float[4] t) => (float[4] y)",
        "a = Exp(p)  b = Sin(t)  c = Mul(a, b)  d = Sqrt(c)  y = Add(x, d)",
    )
    assert kinds(hoisted(program)) == {"prompt": ["Exp"], "step": ["Sin"], "full": ["Mul", "Sqrt", "Add"]}


def test_constant_work_feeds_every_other_part() -> None:
    program = from_text(
        "(float[4] x, float[4] p, float[4] t) => (float[4] y) <float[4] w = {1, 2, 3, 4}>",
        "v = Sqrt(w)  a = Mul(p, v)  b = Mul(t, v)  c = Mul(x, v)  d = Add(a, c)  y = Add(b, d)",
    )
    result = hoisted(program)
    assert kinds(result) == {
        "constant": ["Sqrt"],
        "prompt": ["Mul"],
        "step": ["Mul"],
        "full": ["Mul", "Add", "Add"],
    }
    assert [link.target for link in result.links() if link.value == "v"] == ["prompt", "step", "full"]


def test_what_the_model_returns_is_the_samples() -> None:
    program = from_text(
        "(float[4] x, float[4] t) => (float[4] y, float[4] e)", "e = Exp(t)  f = Sin(e)  y = Add(x, f)"
    )
    assert kinds(hoisted(program)) == {"full": ["Exp", "Sin", "Add"]}


def test_work_on_the_sample_alone_stays_whole() -> None:
    program = from_text("(float[4] x) => (float[4] y)", "a = Exp(x)  y = Sqrt(a)")
    assert kinds(hoisted(program)) == {"full": ["Exp", "Sqrt"]}


ALTERNATIVES = {
    # Of p: one value that both compute, one of the same name that they do not, one that only "other" has.
    "full": "e = Exp(p) n = Neg(p) s = Sqrt(t) a = Add(x, e) b = Add(a, n) y = Mul(b, s)",
    "other": "e = Exp(p) n = Tanh(p) s = Sqrt(t) q = Sigmoid(n) a = Add(x, e) b = Add(a, q) y = Mul(b, s)",
    # Under the names of what the others take from prompt and step, numbers of the sample.
    "third": "e = Exp(x) s = Sqrt(e) n = Tanh(p) c = Add(e, s) y = Add(c, n)",
}


def test_alternatives_share_what_they_have_in_common() -> None:
    signature = "(float[1,4] x, float[1,4] p, float[1,4] t) => (float[1,4] y)"
    program = from_text(signature, ALTERNATIVES["full"])
    for name in ("other", "third"):
        program.variants[name] = from_text(signature, ALTERNATIVES[name]).variants["full"]
    program.schedule = {3: ["full", "other", "third"]}
    result = apply([Hoist()], program, Context())
    assert kinds(result) == {
        "prompt": ["Exp", "Neg", "Tanh", "Sigmoid"],
        "step": ["Sqrt"],
        "full": ["Add", "Add", "Mul"],
        "other": ["Add", "Add", "Mul"],
        "third": ["Exp", "Sqrt", "Add", "Add"],
    }
    for name in program.alternatives:
        for node in program.variants[name].graph:
            node.name = f"node of {node.outputs[0].name}"
    result = apply([Hoist()], program, Context())
    for model in result.variants.values():
        called = [node.name for node in model.graph]
        assert len({*called}) == len(called)  # or ONNX Runtime refuses the graph
    whole, split = Interpreter(program), Interpreter(result)
    rng = np.random.default_rng(0)
    for name in ("full", "other", "third", "other"):
        call = {one: rng.uniform(0.1, 1, (1, 4)).astype(np.float32) for one in "xpt"}
        np.testing.assert_array_equal(split(call, name)["y"], whole(call, name)["y"])
