"""Programs stored in bfloat16 through the whole compiler, on every target that runs here, against the referee."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.targets import profile

from .test_operators import model

GRAPHS = {
    "a resnet": (
        "g (float[2, 64, 12, 20] x, float[2, 96, 1, 1] t) => (float[2, 96, 12, 20] y) "
        "<float[64] s1, float[64] b1, float[96, 64, 3, 3] w1, float[96] c1, float[96] s2, float[96] b2, "
        "float[96, 96, 3, 3] w2, float[96] c2, float[96, 64, 1, 1] w3> "
        "{ n = GroupNormalization <num_groups = 8> (x, s1, b1) a = Swish(n) "
        "c = Conv <pads = [1, 1, 1, 1]> (a, w1, c1) d = Add(c, t) m = GroupNormalization <num_groups = 8> (d, s2, b2) "
        "e = Swish(m) f = Conv <pads = [1, 1, 1, 1]> (e, w2, c2) i = Identity(a) h = Conv(i, w3) y = Add(f, h) }"
    ),
    "a transformer": (
        "g (float[2, 100, 64] x, float[2, 77, 96] k) => (float[2, 100, 64] y) "
        "<float[64] s, float[64] b, float[64, 64] q1, float[64, 64] k1, float[64, 64] v1, float[64, 64] o1, "
        "float[64, 64] q2, float[96, 64] k2, float[96, 64] v2, float[64, 64] o2, float[64, 512] u, float[512] c, "
        "float[256, 64] d, int64[2] halves = {256, 256}> "
        "{ n = LayerNormalization(x, s, b) q = MatMul(n, q1) kk = MatMul(n, k1) v = MatMul(n, v1) "
        "a = Attention <q_num_heads = 2, kv_num_heads = 2> (q, kk, v) o = MatMul(a, o1) r = Add(o, x) "
        "m = LayerNormalization(r, s, b) p = MatMul(m, q2) ck = MatMul(k, k2) cv = MatMul(k, v2) "
        "e = Attention <q_num_heads = 4, kv_num_heads = 4> (p, ck, cv) f = MatMul(e, o2) w = Add(f, r) "
        "l = LayerNormalization(w, s, b) h = MatMul(l, u) z = Add(h, c) h1, h2 = Split <axis = -1> (z, halves) "
        "g2 = Gelu(h2) gg = Mul(h1, g2) ff = MatMul(gg, d) y = Add(ff, w) }"
    ),
    "down, up and beside": (
        "g (float[1, 64, 16, 16] x) => (float[1, 32, 16, 16] y) "
        "<float[64, 64, 3, 3] down, float[96, 64, 3, 3] up, float[32, 160, 1, 1] end, float[4] k = {1.0, 1.0, 2.0, 2.0}> "
        "{ r = Relu(x) a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, down) b = Swish(a) "
        'c = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (b, , k) '
        "d = Conv <pads = [1, 1, 1, 1]> (c, up) j = Concat <axis = 1> (d, r) e = Conv(j, end) y = Tanh(e) }"
    ),
}
PROMPTS = frozenset({"k"})
"""Inputs that a denoising loop does not change."""


def imported(name: str) -> tuple[Imported, dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    graph = model(GRAPHS[name], rng)
    for value in graph.graph.initializers.values():
        array = value.const_value.numpy()
        if array.ndim > 1:
            fan_in = np.prod(array.shape[1:]) if array.ndim == 4 else array.shape[0]
            value.const_value = ir.tensor((array / np.sqrt(fan_in)).astype(np.float32))
    feeds = {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)
        for value in graph.graph.inputs
    }
    rates = {one: "prompt" if one in PROMPTS else "sample" for one in feeds}
    weights = frozenset(graph.graph.initializers)
    return Imported(canonicalise(graph), "graph", "onnx", rates, weights), feeds


@pytest.mark.parametrize("target", profile.fitting(), ids=lambda one: one.name)
@pytest.mark.parametrize("name", GRAPHS)
def test_the_compiled_program_rounds_what_the_referee_rounds(
    name: str, target: profile.Profile, tmp_path: Path
) -> None:
    exact, rounded = (
        Interpreter(fused(imported(name)[0], precision=precision))(imported(name)[1])["y"]
        for precision in ("float32", "bfloat16")
    )
    given, feeds = imported(name)
    skeleton = build({"graph": given}, target, cache_folder(), name="graph", precision="bfloat16")
    skeleton.write(tmp_path / "graph.fick", {"graph": tensors(imported(name)[0].model)})
    with fick.load(tmp_path / "graph.fick") as loaded:
        got = loaded.run(**feeds)["y"]
        kernels = {call.kernel.split("_")[0] for call in loaded.profile()}
    # Sums in another order fall on the other side of a rounding now and then, each time by one unit of it, and a
    # matrix unit takes attention's weights rounded as well: both together stay below what the graph rounds.
    assert np.std(got - rounded) < np.std(rounded - exact)
    assert np.abs(got - exact).max() < 0.05 * np.std(exact)
    assert bool(target.tile_formats) == any(kernel.startswith("tile") for kernel in kernels)


def test_wide_convolutions_are_filtered_where_that_rounds_little(tmp_path: Path) -> None:
    """Where dot products make them as fast as others, filters are transformed in bfloat16: by half a percent."""
    text = (
        "g (float[1, 256, 24, 24] x) => (float[1, 256, 24, 24] y) <float[256, 256, 3, 3] w, float[256] c> "
        "{ r = Relu(x) y = Conv <pads = [1, 1, 1, 1]> (r, w, c) }"
    )
    for target in profile.fitting():
        graph = model(text, np.random.default_rng(4))
        feeds = {"x": np.random.default_rng(5).standard_normal((1, 256, 24, 24)).astype(np.float32)}
        given = Imported(
            canonicalise(graph), "graph", "onnx", {"x": "sample"}, frozenset(graph.graph.initializers)
        )
        exact = Interpreter(fused(given))(feeds)["y"]
        skeleton = build({"graph": given}, target, cache_folder(), name="graph", precision="bfloat16")
        skeleton.write(tmp_path / "graph.fick", {"graph": tensors(given.model)})
        with fick.load(tmp_path / "graph.fick") as loaded:
            got = loaded.run(**feeds)["y"]
            kernels = {call.kernel.split("_")[0] for call in loaded.profile()}
        assert ("winogradinput" in kernels) == (target.bfloat16_dot is not None)
        assert np.std(got - exact) < 6e-3 * np.std(exact)


def test_weights_take_half_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ir.save(model(GRAPHS["a resnet"], np.random.default_rng(4)), path)
    small = profile.load("host").model_copy(update={"enlarge_weights": False})
    assert "bfloat16" in small.formats
    sizes = {
        precision: fick.compile(path, output=tmp_path / f"{precision}.fick", precision=precision).weight_bytes
        for precision in ("float32", "bfloat16")
    }
    assert sizes["bfloat16"] < 0.6 * sizes["float32"]


def test_a_precision_that_the_target_lacks(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ir.save(model(GRAPHS["a resnet"], np.random.default_rng(4)), path)
    with pytest.raises(
        UserError, match=r"--precision float8: .* has no such kernels; it has float32, bfloat16"
    ):
        fick.compile(path, output=tmp_path / "none.fick", precision="float8")
    assert not (tmp_path / "none.fick").exists()
