"""3 x 3 convolutions through the whole compiler: which way each goes, and that it says what ONNX Runtime says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.ir import referee
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.targets import profile
from fick.targets.planning.filtering import choose

from .test_operators import model

HOST = profile.load("host")

TARGETS = [HOST, *(one for one in profile.fitting() if one.vector_lanes < HOST.vector_lanes)]
"""This machine's widest vectors and its narrower ones."""

GRAPHS = {
    "a resnet's end": (
        "g (float[1, 160, 32, 32] x, float[1, 120, 32, 32] r, float[1, 120, 1, 1] t) => (float[1, 120, 32, 32] y) "
        "<float[120, 160, 3, 3] w, float[120] b> "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w, b) d = Add(c, t) e = Add(d, r) s = Sigmoid(e) y = Mul(e, s) }"
    ),
    "odd sides, two pictures": (
        "g (float[2, 130, 29, 31] x) => (float[2, 150, 29, 31] y) <float[150, 130, 3, 3] w> "
        "{ y = Conv <pads = [1, 1, 1, 1]> (x, w) }"
    ),
    "zeros on two sides": (
        "g (float[1, 128, 30, 33] x) => (float[1, 128, 30, 33] y) <float[128, 128, 3, 3] w> "
        "{ y = Conv <pads = [2, 0, 0, 2]> (x, w) }"
    ),
    "a result that is a view": (
        "g (float[1, 128, 32, 32] x) => (float[1, 1024, 128] y) <float[128, 128, 3, 3] w, int64[3] s = {1, 128, 1024}> "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w) f = Reshape(c, s) y = Transpose <perm = [0, 2, 1]> (f) }"
    ),
}


def compiled(name: str, folder: Path, target: profile.Profile) -> tuple[fick.runtime.Model, dict, np.ndarray]:
    rng = np.random.default_rng(3)
    graph = model(GRAPHS[name], rng)
    for value in graph.graph.initializers.values():
        array = value.const_value.numpy()
        if array.ndim == 4:
            value.const_value = ir.tensor((array / np.sqrt(np.prod(array.shape[1:]))).astype(np.float32))
    feeds = {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)
        for value in graph.graph.inputs
    }
    wanted = referee.run(graph, feeds)["y"]
    weights = frozenset(graph.graph.initializers)
    imported = Imported(canonicalise(graph), "operator", "onnx", dict.fromkeys(feeds, "sample"), weights)
    skeleton = build({"operator": imported}, target, cache_folder(), name="operator")
    skeleton.write(folder / "operator.fick", {"operator": tensors(imported.model)})
    return fick.load(folder / "operator.fick"), feeds, wanted


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_filtered_convolution_agrees_with_onnx_runtime(
    name: str, target: profile.Profile, tmp_path: Path
) -> None:
    loaded, feeds, wanted = compiled(name, tmp_path, target)
    with loaded:
        got = loaded.run(**feeds)["y"]
        kernels = {call.kernel.split("_")[0] for call in loaded.profile()}
    assert "winogradoutput" in kernels
    # A hundred times the rounding of the algorithm, as in tests/targets/test_winograd.py.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=4e-4)


def test_a_target_whose_weights_may_not_grow_sums_directly(tmp_path: Path) -> None:
    name = next(iter(GRAPHS))
    small = HOST.model_copy(update={"enlarge_weights": False})
    sizes = []
    for target, folder in ((HOST, tmp_path / "a"), (small, tmp_path / "b")):
        folder.mkdir()
        loaded, feeds, wanted = compiled(name, folder, target)
        with loaded:
            np.testing.assert_allclose(loaded.run(**feeds)["y"], wanted, rtol=0, atol=4e-4)
            sizes.append(loaded.memory.weights_bytes)
            assert ("winogradoutput" in {call.kernel.split("_")[0] for call in loaded.profile()}) == (
                target is HOST
            )
    assert sizes[1] < sizes[0] / 2


def test_memory_that_is_short_makes_weights_small_again(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ir.save(model(GRAPHS["zeros on two sides"], np.random.default_rng(4)), path)
    roomy = fick.compile(path, output=tmp_path / "roomy.fick")
    tight = fick.compile(path, output=tmp_path / "tight.fick", memory_limit_bytes=roomy.peak_bytes - 1)
    assert tight.weight_bytes < roomy.weight_bytes / 2
    with fick.load(roomy.bundle) as one, fick.load(tight.bundle) as other:
        x = np.random.default_rng(5).standard_normal(one.inputs["x"].shape).astype(np.float32)
        wanted = one.run(x=x)["y"]
        np.testing.assert_allclose(other.run(x=x)["y"], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    with pytest.raises(UserError, match="raise --memory-limit"):
        fick.compile(path, output=tmp_path / "none.fick", memory_limit_bytes=tight.peak_bytes - 1)


def test_few_pixels_and_few_channels_are_summed_directly() -> None:
    assert choose(HOST.macs_per_byte, (1, 320, 64, 64), 320) == 4
    assert choose(HOST.macs_per_byte, (1, 1280, 16, 16), 1280) in (2, 4)
    # What streaming larger weights would cost is more than what is saved.
    assert choose(HOST.macs_per_byte, (1, 1280, 4, 4), 1280) is None
    # Transforms of 4 channels cost as much as the sums.
    assert choose(HOST.macs_per_byte, (1, 4, 64, 64), 4) is None
