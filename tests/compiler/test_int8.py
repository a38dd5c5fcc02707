"""Programs of int8 products through the whole compiler, on every target that runs here, against the referee."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import safetensors.numpy as safetensors
from numpy.typing import NDArray

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.bundle.repack import repack
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.compiler.recipes import Recipe
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.formats import INTEGERS
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.choices import WeightFormat
from fick.targets import profile

from ..emulated import CORES, CORES_32, run_bundle
from .test_bfloat16 import GRAPHS, imported
from .test_operators import model

Arrays = Mapping[str, NDArray[Any]]


class Calibrated(Recipe):
    """Everything that can be in int8, with ranges from these calls."""

    calls: tuple[Any, ...]

    def context(self, program: Program, model: Any, seed: int, reporter: Any, sampler: Any = None) -> Context:
        return Context(referee=Interpreter, calibration=self.calls)


def recipe(*calls: Arrays) -> Calibrated:
    return Calibrated(passes=(Quantise(QuantiseConfig(least_depth=1)),), calls=calls)


def bundle(given: Imported, feeds: Arrays, target: profile.Profile, folder: Path, **options: Any) -> Path:
    path = folder / f"{target.name}.fick"
    weights = tensors(given.model)
    options = {"recipe": recipe(feeds), **options}
    skeleton = build({"graph": given}, target, cache_folder(), name="graph", **options)
    skeleton.write(path, {"graph": weights})
    return path


@pytest.mark.parametrize("name", GRAPHS)
def test_the_compiled_program_computes_what_the_referee_computes(name: str, tmp_path: Path) -> None:
    target = profile.load("host")
    exact = Interpreter(fused(imported(name)[0]))(imported(name)[1])["y"]
    given, feeds = imported(name)
    quantised = Interpreter(fused(given, recipe=recipe(feeds)))(feeds)["y"]
    with fick.load(bundle(imported(name)[0], feeds, target, tmp_path)) as loaded:
        got = loaded.run(**feeds)["y"]
        kernels = {call.kernel.split("_")[0] for call in loaded.profile()}
    # Half of a percent of the integers may be their neighbours, where the referee rounds sums that here are exact.
    assert np.std(got - quantised) < 0.07 * np.std(quantised - exact)
    assert 1e-3 < np.std(quantised - exact) / np.std(exact) < 0.05
    assert ("int8" in target.tile_formats) == any(kernel.startswith("tile") for kernel in kernels)


def attending_case(tokens: int, words: int) -> tuple[Imported, Arrays, Calibrated, NDArray[Any], float]:
    """Attention of integers, what it is given, the recipe, what comes of it, and the largest of the values."""
    graph = model(
        f"g (float[2, {tokens}, 64] x, float[2, {words}, 64] z) => (float[2, {tokens}, 64] y) "
        "<float[64, 64] a, float[64, 64] b, float[64, 64] c> "
        "{ q = MatMul(x, a) k = MatMul(z, b) v = MatMul(z, c) "
        "y = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v) }",
        np.random.default_rng(0),
    )
    rng = np.random.default_rng(1)
    sizes = (("x", tokens), ("z", words))
    feeds = {name: rng.standard_normal((2, count, 64)).astype(np.float32) for name, count in sizes}

    def given() -> Imported:
        rates = {"x": "sample", "z": "sample"}
        return Imported(canonicalise(graph.clone()), "graph", "test", rates, frozenset("abc"))

    config = QuantiseConfig(least_depth=1, attention=True)
    whole = Calibrated(passes=(Quantise(config),), calls=(feeds,))
    wanted = Interpreter(fused(given(), recipe=whole), ["v"])(feeds)
    return given(), feeds, whole, wanted["y"], float(np.abs(wanted["v"]).max())


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize(("tokens", "words"), [(48, 48), (37, 37), (640, 640), (64, 77)])
def test_attention_multiplies_integers(target: str, tokens: int, words: int, tmp_path: Path) -> None:
    """In bfloat16, which holds them exactly, where there are products of such: weights alone are rounded there."""
    machine = profile.load(target)
    given, feeds, whole, wanted, largest = attending_case(tokens, words)
    with fick.load(bundle(given, feeds, machine, tmp_path, recipe=whole)) as loaded:
        got = loaded.run(**feeds)["y"]
        kernels = {call.kernel.split("_")[0] for call in loaded.profile()}
    if machine.tile_formats or (machine.bfloat16_dot and tokens % machine.vector_lanes == 0):
        assert kernels & {"dotattention", "tileattention"}
    np.testing.assert_allclose(got, wanted, atol=2 * (2**-9 + 1e-4) * largest, rtol=0)


EXACT = (
    "g (float[2, 64, 10, 12] x, float[2, 50, 128] t) => (float[2, 18, 10, 12] y, float[2, 50, 7] z) "
    "<float[66, 64, 3, 3] w1, float[66] c1, float[40, 66, 1, 1] w2, float[18, 40, 3, 3] w3, "
    "float[128, 130] u, float[130] b, float[130, 64] v, float[7, 64] w, float[7] c, int64[2] flat = {100, 64}, "
    "int64[3] whole = {2, 50, 7}> "
    "{ a = Conv <pads = [1, 1, 1, 1]> (x, w1, c1) r = Relu(a) d = Conv(r, w2) y = Conv <pads = [1, 1, 1, 1]> (d, w3) "
    "h = MatMul(t, u) i = Add(h, b) j = Relu(i) m = MatMul(j, v) f = Reshape(m, flat) "
    "n = Gemm <transB = 1> (f, w, c) z = Reshape(n, whole) }"
)
"""Products, of depths that tiles take and that they do not, and what float32 does to them exactly."""

COLUMN_AXES = {"u": 1, "v": 1}
"""Of weights whose columns are not along their first axis."""


class QuantiseByPowersOfTwo(Quantise):
    """With scales of activations rounded up, so that the referee's float32 numbers are exact."""

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        changed, effect = super().run(program, context)
        for node in changed.variants["full"].graph:
            if node.op_type == "QuantizeLinear" and (known := node.inputs[1].const_value) is not None:
                node.inputs[1].const_value = ir.tensor(np.exp2(np.ceil(np.log2(known.numpy()))))
        return changed, effect


def exact_case(weights: WeightFormat = "int8") -> tuple[Imported, dict[str, np.ndarray], Recipe]:
    """Weights are eighths, in every column up to as many as their format has, and biases quarters."""
    largest = INTEGERS[weights].largest
    rng = np.random.default_rng(5)
    graph = model(EXACT, rng)
    for name, value in graph.graph.initializers.items():
        if value.dtype is ir.DataType.FLOAT:
            drawn = rng.integers(-largest, largest + 1, value.const_value.shape.numpy())
            columns = np.moveaxis(drawn, COLUMN_AXES.get(name, 0), 0)
            if drawn.ndim > 1:
                columns[(slice(None), *[0] * (drawn.ndim - 1))] = largest
            value.const_value = ir.tensor((drawn / (8 if drawn.ndim > 1 else 4)).astype(np.float32))
    feeds = {
        str(value.name): (rng.integers(-400, 401, value.shape.numpy()) / 16).astype(np.float32)
        for value in graph.graph.inputs
    }
    rates, sources = dict.fromkeys(feeds, "sample"), frozenset(graph.graph.initializers)
    given = Imported(canonicalise(graph), "graph", "onnx", rates, sources)
    passes = (QuantiseByPowersOfTwo(QuantiseConfig(weights=weights, least_depth=1)),)
    return given, feeds, Calibrated(passes=passes, calls=(feeds,))


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("target", [*(one.name for one in profile.fitting()), *CORES, *CORES_32])
def test_integers_are_the_referees(target: str, weights: WeightFormat, tmp_path: Path) -> None:
    """Where its sums are exact as well: then so is the output, of integers of integers of integers, to the last bit."""
    given, feeds, powers = exact_case(weights)
    program = fused(given, recipe=powers)
    stored = [
        str(node.outputs[0].name)
        for node in program.variants["full"].graph
        if node.op_type == "QuantizeLinear"
    ]
    wanted = Interpreter(program, stored)(feeds)
    assert all(wanted[one].dtype == np.int8 and wanted[one].max() >= 63 for one in stored)
    path = bundle(exact_case(weights)[0], feeds, profile.load(target), tmp_path, recipe=powers)
    if target in {*CORES, *CORES_32}:
        got = run_bundle(path, target, feeds)
    else:
        with fick.load(path) as loaded:
            got = loaded.run(**feeds)
    for name in ("y", "z"):
        assert len(np.unique(got[name])) > 200
        np.testing.assert_array_equal(got[name], wanted[name])


def test_new_weights_bring_their_own_scales(tmp_path: Path) -> None:
    host = profile.load("host")
    given, feeds = imported("a resnet")
    larger = {
        name: array * np.float32(3) if array.ndim > 1 else array
        for name, array in tensors(given.model).items()
    }
    path = bundle(given, feeds, host, tmp_path)
    safetensors.save_file(larger, tmp_path / "larger.safetensors")
    repacked = repack(path, tmp_path / "larger.safetensors", tmp_path / "repacked.fick")
    given = imported("a resnet")[0]
    program = fused(given, recipe=recipe(feeds))
    for variant in program.variants.values():
        for name, value in variant.graph.initializers.items():
            if name in larger:
                value.const_value = ir.tensor(larger[name])
    wanted = Interpreter(program)(feeds)["y"]
    with fick.load(repacked) as loaded:
        got = loaded.run(**feeds)["y"]
    assert np.std(got - wanted) < 1e-3 * np.std(wanted)


def test_what_is_not_quantised_may_be_stored_in_bfloat16(tmp_path: Path) -> None:
    host = profile.load("host")
    exact = Interpreter(fused(imported("a transformer")[0]))(imported("a transformer")[1])["y"]
    given, feeds = imported("a transformer")
    both = Interpreter(fused(given, recipe=recipe(feeds), precision="bfloat16"))(feeds)["y"]
    path = bundle(imported("a transformer")[0], feeds, host, tmp_path, precision="bfloat16")
    with fick.load(path) as loaded:
        got = loaded.run(**feeds)["y"]
    assert np.std(got - both) < np.std(both - exact) < 0.05 * np.std(exact)


def test_weights_take_a_quarter_of_the_memory(tmp_path: Path) -> None:
    small = profile.load("host").model_copy(update={"enlarge_weights": False})
    given, feeds = imported("a resnet")
    narrow = build({"graph": given}, small, cache_folder(), name="graph", recipe=recipe(feeds))
    wide = build({"graph": imported("a resnet")[0]}, small, cache_folder(), name="graph")
    assert narrow.manifest["memory"]["weights_bytes"] < 0.3 * wide.manifest["memory"]["weights_bytes"]


def test_integers_of_another_kind(tmp_path: Path) -> None:
    text = (
        "g (float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] y) <float[8, 8, 1, 1] w, float s = {0.1}, int8 z = {3}> "
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w) }"
    )
    path = tmp_path / "model.onnx"
    ir.save(model(text, np.random.default_rng(0)), path)
    with pytest.raises(UserError, match="supported for int8 with zero point 0"):
        fick.compile(path, output=tmp_path / "none.fick")
    with pytest.raises(UserError, match=r"--precision int8: .* it has float32, bfloat16; for int8"):
        fick.compile(path, output=tmp_path / "none.fick", precision="int8")
    assert not (tmp_path / "none.fick").exists()
