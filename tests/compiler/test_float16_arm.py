"""Programs stored in float16 on 64-bit Arm, under qemu, against the referee, which rounds the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.compiler.recipes import NOTHING
from fick.ir.canonical import canonicalise
from fick.ir.interpreter import Interpreter
from fick.runtime.loader import check_bundle
from fick.targets import profile
from fick.targets.cpu.contraction import Contraction
from fick.targets.lower import planned_calls

from ..emulated import run_bundle
from .test_bfloat16 import GRAPHS, imported
from .test_int8 import bundle
from .test_operators import model

CORE = "cortex-a76"

UNET = (
    "g (float[1, 4, 16, 16] x, float[1, 64, 1, 1] t, float[1, 12, 48] k) => (float[1, 4, 16, 16] y) "
    "<float[64, 4, 3, 3] enter, float[64] s, float[64] b, float[64, 64, 3, 3] a1, float[64, 64, 3, 3] a2, "
    "float[128, 64, 3, 3] down, float[128] s2, float[128] b2, float[128, 128] q1, float[128, 128] k1, "
    "float[128, 128] v1, float[128, 128] o1, float[128, 128] q2, float[48, 128] k2, float[48, 128] v2, "
    "float[128, 128] o2, float[128, 512] u1, float[512, 128] u2, float[64, 128, 3, 3] up, float[64, 128, 1, 1] join, "
    "float[4, 64, 3, 3] leave, float[4] scales = {1.0, 1.0, 2.0, 2.0}, int64[3] flat = {1, 128, 64}, "
    "int64[4] grid = {1, 128, 8, 8}> "
    "{ e = Conv <pads = [1, 1, 1, 1]> (x, enter) n = GroupNormalization <num_groups = 8> (e, s, b) i = Swish(n) "
    "c = Conv <pads = [1, 1, 1, 1]> (i, a1) d = Add(c, t) m = GroupNormalization <num_groups = 8> (d, s, b) "
    "j = Swish(m) f = Conv <pads = [1, 1, 1, 1]> (j, a2) skip = Add(e, f) "
    "h = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (skip, down) w = Reshape(h, flat) "
    "z = Transpose <perm = [0, 2, 1]> (w) l1 = LayerNormalization(z, s2, b2) qq = MatMul(l1, q1) "
    "kk = MatMul(l1, k1) vv = MatMul(l1, v1) a = Attention <q_num_heads = 4, kv_num_heads = 4> (qq, kk, vv) "
    "o = MatMul(a, o1) r1 = Add(o, z) l2 = LayerNormalization(r1, s2, b2) pq = MatMul(l2, q2) pk = MatMul(k, k2) "
    "pv = MatMul(k, v2) aa = Attention <q_num_heads = 4, kv_num_heads = 4> (pq, pk, pv) oo = MatMul(aa, o2) "
    "r2 = Add(oo, r1) l3 = LayerNormalization(r2, s2, b2) g1 = MatMul(l3, u1) g2 = Gelu(g1) g3 = MatMul(g2, u2) "
    "r3 = Add(g3, r2) back = Transpose <perm = [0, 2, 1]> (r3) image = Reshape(back, grid) "
    'large = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (image, , scales) '
    "v = Conv <pads = [1, 1, 1, 1]> (large, up) both = Concat <axis = 1> (v, skip) one = Conv(both, join) "
    "p = GroupNormalization <num_groups = 8> (one, s, b) last = Swish(p) "
    "y = Conv <pads = [1, 1, 1, 1]> (last, leave) }"
)


def test_what_is_stored_is_what_the_referee_rounds(tmp_path: Path) -> None:
    """Where nothing is added up in float16."""
    target = profile.processor(CORE).model_copy(update={"half_run": 0})
    for name in GRAPHS:
        exact, rounded = (
            Interpreter(fused(imported(name)[0], precision=precision))(imported(name)[1])["y"]
            for precision in ("float32", "float16")
        )
        given, feeds = imported(name)
        path = bundle(given, feeds, target, tmp_path, recipe=NOTHING, precision="float16")
        got = run_bundle(path, CORE, feeds)["y"]
        # Sums in another order fall on the other side of a rounding now and then, each time by one unit of it.
        assert np.std(got - rounded) < np.std(rounded - exact), name
        assert 1e-4 < np.std(rounded - exact) / np.std(exact) < 2e-3, name


def unet(rng: np.random.Generator) -> Imported:
    graph = model(UNET, rng)
    for value in graph.graph.initializers.values():
        assert value.const_value is not None
        array = value.const_value.numpy()
        if array.ndim > 1:
            fan_in = np.prod(array.shape[1:]) if array.ndim == 4 else array.shape[0]
            value.const_value = ir.tensor((array / np.sqrt(fan_in)).astype(np.float32))
    rates = {"x": "sample", "t": "step", "k": "prompt"}
    return Imported(canonicalise(graph), "graph", "onnx", rates, frozenset(graph.graph.initializers))


def test_a_unet_is_near_its_float32_self(tmp_path: Path) -> None:
    """With weights of half the size, and nearly all of its products in float16."""
    target, rng = profile.processor(CORE), np.random.default_rng(6)
    feeds: Mapping[str, NDArray[np.float32]] = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("x", (1, 4, 16, 16)), ("t", (1, 64, 1, 1)), ("k", (1, 12, 48)))
    }
    found, sizes = {}, {}
    for precision in ("float32", "float16"):
        given = unet(np.random.default_rng(7))
        path = bundle(given, feeds, target, tmp_path, recipe=NOTHING, precision=precision)
        found[precision] = run_bundle(path, CORE, feeds)["y"]
        sizes[precision] = check_bundle(path).manifest["memory"]["weights_bytes"]
    error = np.std(found["float16"] - found["float32"]) / np.std(found["float32"])
    assert 1e-4 < error < 2e-2
    assert sizes["float16"] < 0.6 * sizes["float32"]
    calls, _ = planned_calls(fused(unet(np.random.default_rng(7)), precision="float16"), target)
    products = [one.kernel for one in calls["full"] if isinstance(one.kernel, Contraction)]
    assert sum(one.run > 0 for one in products) >= 0.75 * len(products)
