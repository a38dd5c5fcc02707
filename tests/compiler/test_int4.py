"""Programs with weights of few bits, and activations as they are, through the whole compiler against the referee.

Integers times integers are in test_int8.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
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
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.formats import FLOATS, format_called, mark
from fick.ir.interpreter import Interpreter
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.choices import WeightFormat
from fick.runtime.loader import check_bundle
from fick.targets import profile

from ..emulated import CORES, run_bundle
from .test_bfloat16 import imported
from .test_int8 import Calibrated, bundle
from .test_operators import model

Feeds = dict[str, NDArray[Any]]


def weights_alone(feeds: Mapping[str, NDArray[Any]], weights: WeightFormat) -> Calibrated:
    config = QuantiseConfig(weights=weights, activations="float32", least_depth=1)
    return Calibrated(passes=(Quantise(config),), calls=(feeds,))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "weights"), [("a resnet", "int4"), ("a transformer", "int4"), ("down, up and beside", "int8")]
)
def test_numbers_times_integers(name: str, weights: WeightFormat, precision: str, tmp_path: Path) -> None:
    exact = Interpreter(fused(imported(name)[0]))(imported(name)[1])["y"]
    given, feeds = imported(name)
    narrow = weights_alone(feeds, weights)
    wanted = Interpreter(fused(given, recipe=narrow, precision=precision))(feeds)["y"]
    host = profile.load("host")
    path = bundle(imported(name)[0], feeds, host, tmp_path, recipe=narrow, precision=precision)
    with fick.load(path) as loaded:
        got = loaded.run(**feeds)["y"]
    if precision == "float32":
        # Both round sums of up to 1000 products of numbers around one, in another order.
        assert np.abs(got - wanted).max() < 1e-4 * np.std(exact)
    else:
        # Sums in another order fall on the other side of a rounding now and then, by one unit of it.
        assert np.std(got - wanted) < 0.02 * np.std(exact)
    assert 1e-3 < np.std(wanted - exact) / np.std(exact) < (0.05 if weights == "int8" else 0.5)


BLOCKED = (
    "g (float[2, 30, 96] t, float[1, 64, 6, 7] x) => (float[2, 30, 40] y, float[1, 24, 6, 7] z) "
    "<float[96, 70] u, float[3, 70] us, float[40, 70] v, float[40, 5] vs, float[24, 64, 1, 1] w, "
    "float[24, 1, 1, 1] ws, int64[2] flat = {60, 70}, "
    "int64[3] whole = {2, 30, 40}, float[40] b> "
    "{ uq = QuantizeLinear <axis = 0, block_size = 32, output_dtype = 22> (u, us) "
    "ud = DequantizeLinear <axis = 0, block_size = 32> (uq, us) h = MatMul(t, ud) r = Reshape(h, flat) "
    "vq = QuantizeLinear <axis = 1, block_size = 14, output_dtype = 3> (v, vs) "
    "vd = DequantizeLinear <axis = 1, block_size = 14> (vq, vs) n = Gemm <transB = 1> (r, vd, b) y = Reshape(n, whole) "
    "wq = QuantizeLinear <axis = 1, block_size = 64, output_dtype = 22> (w, ws) "
    "wd = DequantizeLinear <axis = 1, block_size = 64> (wq, ws) z = Conv(x, wd) }"
)
"""Weights with scales of blocks of the reduction."""


def plain(graph: ir.Model, rng: np.random.Generator, **rates: str) -> tuple[Imported, Feeds]:
    """The graph with weights around one over the root of their depth, and scales for seven steps of those."""
    for name, value in graph.graph.initializers.items():
        assert value.const_value is not None
        array = value.const_value.numpy()
        if name.endswith("s"):
            value.const_value = ir.tensor((0.02 + 0.02 * rng.random(array.shape)).astype(np.float32))
        elif array.ndim > 1:
            value.const_value = ir.tensor((array / 8).astype(np.float32))
    feeds = {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)  # type: ignore[union-attr]
        for value in graph.graph.inputs
    }
    weights = frozenset(
        name for name, value in graph.graph.initializers.items() if value.dtype is ir.DataType.FLOAT
    )
    rates = {**dict.fromkeys(feeds, "sample"), **rates}
    return Imported(canonicalise(graph), "graph", "onnx", rates, weights), feeds


def compiled(given: Imported, target: str, folder: Path) -> Path:
    weights = tensors(given.model)
    skeleton = build({"graph": given}, profile.load(target), cache_folder(), name="graph")
    skeleton.write(folder / "graph.fick", {"graph": weights})
    return folder / "graph.fick"


def run(path: Path, target: str, feeds: Feeds) -> Feeds:
    if target in CORES:
        return run_bundle(path, target, feeds)
    with fick.load(path) as loaded:
        return loaded.run(**feeds)


def agrees(make: Callable[[], tuple[Imported, Feeds]], target: str, folder: Path, *outputs: str) -> Path:
    """Holds what is compiled to what the referee computes, to roundings of sums of numbers around one."""
    given, feeds = make()
    wanted = Interpreter(fused(given))(feeds)
    path = compiled(make()[0], target, folder)
    got = run(path, target, feeds)
    for name in outputs:
        assert 0.3 < np.std(wanted[name]) < 3
        np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=2e-5)
    return path


@pytest.mark.parametrize("target", ["host", "cortex-a53"])
def test_scales_of_blocks(target: str, tmp_path: Path) -> None:
    def make() -> tuple[Imported, Feeds]:
        rng = np.random.default_rng(6)
        return plain(model(BLOCKED, rng), rng)

    agrees(make, target, tmp_path, "y", "z")


CODED = (
    "g (float[2, 30, 96] t, float[1, 64, 6, 7] x) => (float[2, 30, 70] y, float[1, 24, 6, 7] z) "
    "<float[96, 70] u, float[70] us, float[24, 64, 3, 3] w, float[24, 1, 1, 1] ws, float[24] b> "
    "{ uc = Neg(u) ud = Mul(uc, us) y = MatMul(t, ud) wd = Mul(ws, w) z = Conv <pads = [1, 1, 1, 1]> (x, wd, b) }"
)


def coded(name: str) -> tuple[Imported, Feeds]:
    """Weights that are numbers of a format, times scales of the columns."""
    rng = np.random.default_rng(7)
    graph = model(CODED, rng)
    given, feeds = plain(graph, rng)
    format = format_called(name)
    for weight in ("u", "w"):
        value, scale = (given.model.graph.initializers[one] for one in (weight, f"{weight}s"))
        assert value.const_value is not None and scale.const_value is not None
        array, size = value.const_value.numpy(), np.abs(value.const_value.numpy()).max() / format.largest
        value.const_value = ir.tensor(format.rounded(array / size))
        scale.const_value = ir.tensor((25 * size * scale.const_value.numpy()).astype(np.float32))
    # One is computed from its source, one is its own.
    computed = next(node.outputs[0] for node in given.model.graph if node.op_type == "Neg")
    mark(computed, format)
    mark(given.model.graph.initializers["w"], format)
    return given, feeds


@pytest.mark.parametrize(
    ("name", "target"), [*((one, "host") for one in FLOATS), ("e2m1b3", "host"), ("e4m3", "cortex-a53")]
)
def test_small_floats(name: str, target: str, tmp_path: Path) -> None:
    path = agrees(lambda: coded(name), target, tmp_path, "y", "z")
    # Codes, scales and a bias; panels of 70 and 24 columns repeat or fill up to as much again.
    bits = format_called(name).bits
    least = (96 * 70 + 24 * 64 * 9) * bits // 8
    assert least < check_bundle(path).manifest["memory"]["weights_bytes"] < 2 * least + 2048


STEPPED = (
    "g (float[1, 64, 6, 7] x, float[1] t) => (float[1, 24, 6, 7] y, float[1, 24, 6, 7] z) "
    "<float[40, 64, 3, 3] w, float[40] ws, float[24, 40, 1, 1] v, float[24] vs, float[1] k = {0.002}, "
    "float[1] m = {0.01}> "
    "{ a = Mul(t, k) c = Add(a, m) s = Squeeze(c) q = QuantizeLinear <output_dtype = 3> (x, s) d = DequantizeLinear(q, s) "
    "wq = QuantizeLinear <axis = 0, output_dtype = 22> (w, ws) wd = DequantizeLinear <axis = 0> (wq, ws) "
    "h = Conv <pads = [1, 1, 1, 1]> (d, wd) r = Relu(h) e = Add(c, m) es = Squeeze(e) "
    "rq = QuantizeLinear <output_dtype = 3> (r, es) rd = DequantizeLinear(rq, es) "
    "vq = QuantizeLinear <axis = 0, output_dtype = 3> (v, vs) vd = DequantizeLinear <axis = 0> (vq, vs) "
    "y = Conv(rd, vd) z = Mul(y, s) }"
)
"""Integers whose scales change with the timestep: as they are made by a product, and as they are read by one."""


def test_scales_that_change_with_the_timestep(tmp_path: Path) -> None:
    def make() -> tuple[Imported, Feeds]:
        rng = np.random.default_rng(8)
        return plain(model(STEPPED, rng), rng, t="step")

    given, feeds = make()
    program = fused(given)
    assert "step" in program.variants
    referee = Interpreter(program)
    with fick.load(compiled(make()[0], "host", tmp_path)) as loaded:
        results = list[NDArray[Any]]()
        for at in (1.0, 7.0, 30.0):
            feeds["t"] = np.array([at], np.float32)
            wanted, got = referee(feeds)["y"], loaded.run(**feeds)["y"]
            # An integer of a hundred may be its neighbour, where the referee rounds sums that here are exact.
            assert np.abs(got - wanted).max() < 0.02 * np.std(wanted)
            assert np.abs(got - wanted).mean() < 1e-4 * np.std(wanted)
            results.append(got)
    assert min(np.std(one - other) for one, other in pairwise(results)) > 0


def test_new_weights_bring_their_own_codes(tmp_path: Path) -> None:
    repacked_agrees(weights_alone(imported("a transformer")[1], "int4"), tmp_path)


def repacked_agrees(narrow: Calibrated, folder: Path) -> None:
    """With other weights in place of a transformer's, a bundle computes what the referee does with those."""
    given, feeds = imported("a transformer")
    rng = np.random.default_rng(9)
    other = {
        name: (array * (1 + rng.random(array.shape[-1:]))).astype(np.float32) if array.ndim > 1 else array
        for name, array in tensors(given.model).items()
    }
    path = bundle(given, feeds, profile.load("host"), folder, recipe=narrow)
    safetensors.save_file(other, folder / "other.safetensors")
    repacked = repack(path, folder / "other.safetensors", folder / "repacked.fick")
    program = fused(imported("a transformer")[0], recipe=narrow)
    for variant in program.variants.values():
        for name, value in variant.graph.initializers.items():
            if name in other:
                value.const_value = ir.tensor(other[name])
    wanted = Interpreter(program)(feeds)["y"]
    with fick.load(repacked) as loaded:
        got = loaded.run(**feeds)["y"]
    assert np.std(got - wanted) < 1e-4 * np.std(wanted)


HALVED = (
    "g (float[1, 9, 256] x) => (float[1, 9, 256] y) <float[256, 512] u, float[512, 256] v> "
    "{ h = MatMul(x, u) r = Relu(h) y = MatMul(r, v) }"
)


@pytest.mark.parametrize("activations", ["float32", "int8"])
def test_weights_take_half_a_byte_each(activations: str) -> None:
    rng = np.random.default_rng(10)
    given, feeds = plain(model(HALVED, rng), rng)
    config = QuantiseConfig(weights="int4", activations=activations)  # type: ignore[arg-type]
    narrow = Calibrated(passes=(Quantise(config),), calls=(feeds,))
    taken = build({"graph": given}, profile.load("host"), cache_folder(), name="graph", recipe=narrow)
    scales = 4 * (512 + 256) + (activations == "int8") * 2 * 64
    # Where bytes have no sign, a number a column says what sums begin with.
    heads = (0, 4 * (512 + 256))
    assert taken.manifest["memory"]["weights_bytes"] - 256 * 512 - scales in heads


REFUSED = {
    "a zero point of codes": (
        "<float[8, 8, 1, 1] w, float s = {0.1}, int4 z = {3}> "
        "{ q = QuantizeLinear(w, s, z) d = DequantizeLinear(q, s, z) y = Conv(x, d) }"
    ),
    "blocks along the columns": (
        "<float[8, 8, 1, 1] w, float[4, 8, 1, 1] s> { q = QuantizeLinear <axis = 0, block_size = 2, output_dtype = 22> (w, s) "
        "d = DequantizeLinear <axis = 0, block_size = 2> (q, s) y = Conv(x, d) }"
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_codes_of_another_kind(case: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = model(f"g (float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] y) {REFUSED[case]}", rng)
    with pytest.raises(
        UserError, match=r"quantised input 1 is supported for int8 with zero point 0 .or int4, int2. and"
    ):
        compiled(plain(graph, rng)[0], "host", tmp_path)
