"""Whole graphs compiled for a GPU and run by the C core on PoCL, against ONNX Runtime and the interpreter."""

from __future__ import annotations

import json
import platform
import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import safetensors.numpy as safetensors
from typer.testing import CliRunner

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.bundle.file import Entry, write_bundle
from fick.compiler.bundle.link import KERNELS
from fick.compiler.bundle.repack import repack
from fick.compiler.bundle.skeleton import read
from fick.compiler.cache import cache_folder
from fick.compiler.cli import app
from fick.compiler.frontends import Imported
from fick.compiler.pipeline import pipeline
from fick.compiler.programs import fused
from fick.compiler.recipes import NOTHING
from fick.ir import referee
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.passes.base import Context, apply
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.runtime.errors import FickError
from fick.runtime.loader import LIBRARY, check_bundle
from fick.targets import profile
from fick.targets.lower import lower

from ..hwmodel.programs import kept
from ..passes import small_unet
from ..passes.test_store import OVERFLOWS, scaled
from . import test_bfloat16, test_int4, test_operators
from .test_arm import ARM_64
from .test_int8 import Calibrated, attending_case, bundle, exact_case

TARGET = "opencl-host"
WEIGHTS = "weights.safetensors"

GRAPHS = {
    **test_operators.GRAPHS,
    "a convolution of stride two": (
        "g (float[2, 6, 9, 11] x) => (float[2, 10, 5, 6] y) <float[10, 6, 3, 3] w, float[10] b> "
        "{ y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b) }"
    ),
    "taps apart, and more zeros after than before": (
        "g (float[1, 4, 9, 8] x) => (float[1, 3, 8, 8] y) <float[3, 4, 3, 3] w> "
        "{ y = Conv <pads = [1, 2, 2, 2], dilations = [2, 2]> (x, w) }"
    ),
    "groups of three channels": (
        "g (float[2, 12, 5, 7] x) => (float[2, 12, 5, 7] y) <float[12] s, float[12] b> "
        "{ n = GroupNormalization <num_groups = 4> (x, s, b) g = Sigmoid(n) y = Mul(n, g) }"
    ),
}


@pytest.fixture(autouse=True)
def own_builds(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """PoCL keeps what it builds; in the home folder that would outlive the tests. To optimise it takes four times as long
    as to build.
    """
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "pocl"))
    monkeypatch.setenv("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable")


def test_graphs_agree_with_onnx_runtime(tmp_path: Path) -> None:
    feeds, wanted = test_operators.side_by_side(GRAPHS, tmp_path / "graphs.onnx")
    report = fick.compile(tmp_path / "graphs.onnx", TARGET, tmp_path / "graphs.fick")
    with fick.load(report.bundle) as loaded:
        got = loaded.run(**{name: feeds[name] for name in loaded.inputs})
    test_operators.assert_agree(GRAPHS, got, wanted)


def test_a_unet_agrees_with_the_referee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its work for prompts and steps in variants of their own, whose results go to the GPU and back; to 2e-5, as
    each of some thirty layers, of values up to ten, adds some roundings. What the driver built is kept, and a damaged
    file of it is not believed.
    """
    program = small_unet.program()
    ir.save(program.variants["full"], tmp_path / "small.onnx")
    path = fick.compile(tmp_path / "small.onnx", TARGET, tmp_path / "small.fick").bundle
    monkeypatch.setenv("FICK_CACHE", str(tmp_path / "cache"))
    calls = small_unet.calls()
    twice = {**calls[0], "encoder_hidden_states": -calls[0]["encoder_hidden_states"]}
    feeds = [*calls, twice, calls[0]]  # two prompts in turn: the first one's results are kept
    with fick.load(path) as loaded:
        times = np.concatenate([one["timestep"] for one in calls])
        loaded.prepare(times)
        for one in feeds:
            wanted = Interpreter(program)(one)["output"]
            np.testing.assert_allclose(loaded.run(**one)["output"], wanted, rtol=0, atol=2e-5)
        assert sum(call.seconds for call in loaded.profile()) > 0
    [build_of] = (tmp_path / "cache" / "opencl").iterdir()
    whole = build_of.read_bytes()
    for content in (whole, whole[:-1]):
        build_of.write_bytes(content)
        with fick.load(path) as again:
            np.testing.assert_allclose(
                again.run(**twice)["output"], Interpreter(program)(twice)["output"], atol=2e-5
            )
    assert build_of.read_bytes() != whole[:-1]


def test_minimal_filtering(tmp_path: Path) -> None:
    wanted = Interpreter(fused(test_bfloat16.imported("a resnet")[0]))(test_bfloat16.imported("a resnet")[1])[
        "y"
    ]
    given, feeds = test_bfloat16.imported("a resnet")
    with fick.load(bundle(given, feeds, profile.load(TARGET), tmp_path, recipe=NOTHING)) as loaded:
        got = loaded.run(**feeds)["y"]
        kernels = {call.kernel.split("_")[0] for call in loaded.profile()}
    assert {"winogradinput", "winogradoutput"} <= kernels
    assert np.abs(got - wanted).max() < 1e-4 * np.std(wanted)


def test_values_stored_in_sixteen_bits(tmp_path: Path) -> None:
    name, precision = "a resnet", "float16"
    exact, rounded = (
        Interpreter(fused(test_bfloat16.imported(name)[0], precision=one))(test_bfloat16.imported(name)[1])[
            "y"
        ]
        for one in ("float32", precision)
    )
    given, feeds = test_bfloat16.imported(name)
    path = bundle(given, feeds, profile.load(TARGET), tmp_path, recipe=NOTHING, precision=precision)
    with fick.load(path) as loaded:
        got = loaded.run(**feeds)["y"]
    # Sums in another order fall on the other side of a rounding now and then, each time by one unit of it.
    assert np.std(rounded - exact) > 0
    assert np.std(got - rounded) < np.std(rounded - exact)
    assert np.abs(got - exact).max() < 0.02 * np.abs(exact).max()


def test_a_layer_that_float16_does_not_hold(tmp_path: Path) -> None:
    """Is named, and stays in float32."""
    program = scaled(OVERFLOWS["a value"][0])
    ir.save(program.variants["full"], tmp_path / "large.onnx")
    path, json_file = tmp_path / "large.fick", tmp_path / "large.json"
    asked = ["compile", str(tmp_path / "large.onnx"), "--target", TARGET, "--precision", "float16"]
    result = CliRunner().invoke(app, [*asked, "-o", str(path), "--json", str(json_file)])
    assert result.exit_code == 0, result.output
    assert "the range of float16 is too short for unet h, which stay in float32." in " ".join(
        result.output.split()
    )
    assert json.loads(json_file.read_text())["wide"] == {"unet": ["h"]}
    with fick.load(path) as loaded:
        for one in small_unet.calls():
            wanted = Interpreter(program)(one)["output"]
            np.testing.assert_allclose(loaded.run(**one)["output"], wanted, rtol=0, atol=2e-5)


def test_new_weights_that_float16_does_not_hold(tmp_path: Path) -> None:
    given, feeds = test_bfloat16.imported("a resnet")
    path = bundle(given, feeds, profile.load(TARGET), tmp_path, recipe=NOTHING, precision="float16")
    larger = {name: 1e6 * array for name, array in tensors(given.model).items()}
    safetensors.save_file(larger, tmp_path / "larger.safetensors")
    with pytest.raises(
        UserError, match=r"weight graph/w\d leaves the range of float16.*; compile the model anew"
    ):
        repack(path, tmp_path / "larger.safetensors", tmp_path / "repacked.fick")
    assert not (tmp_path / "repacked.fick").exists()


def test_half_arithmetic(tmp_path: Path) -> None:
    """Rounded after every operation, as PoCL has no half arithmetic. Storing float16 alone is off by 2.9e-4 of the output's
    deviation, sums of 16 products in half beside that by 6.3e-4 (of 8 by 5.2e-4, of 32 by 7.8e-4). Without rounding,
    kernels give what those of float32 sums do.
    """
    gpu = profile.load(TARGET).model_copy(update={"half": True, "half_run": 16, "images": True})
    given, feeds = test_bfloat16.imported("a resnet")
    exact = Interpreter(fused(given))(feeds)["y"]
    stored = Interpreter(fused(test_bfloat16.imported("a resnet")[0], precision="float16"))(feeds)["y"]
    given, _ = test_bfloat16.imported("a resnet")
    path = bundle(given, feeds, gpu, tmp_path, recipe=NOTHING, precision="float16")
    source = read(path)[0].files[KERNELS].decode()
    rounding = altered(path, tmp_path / "rounding.fick", "#define FICK_ROUND_HALF\n" + source)
    errors = list[float]()
    for one in (path, rounding):
        with fick.load(one) as loaded:
            errors.append(float(np.std(loaded.run(**feeds)["y"] - exact)))
    assert "ADD_H4((H4)(a[r].s0)" in source
    storing = float(np.std(stored - exact))
    assert errors[0] < 1.02 * storing
    assert 1.5 * storing < errors[1] < 3 * storing


@pytest.mark.parametrize(
    ("weights", "activations", "precision"),
    [("int4", "float32", "float16"), ("int8", "float32", "float16"), ("int8", "int8", "float32")],
)
def test_weights_of_few_bits(weights: Any, activations: Any, precision: str, tmp_path: Path) -> None:
    """Opened in the kernel: W4A16, W8A16 and W8A8."""
    given, feeds = test_bfloat16.imported("down, up and beside")
    config = QuantiseConfig(weights=weights, activations=activations, least_depth=1)
    recipe = Calibrated(passes=(Quantise(config),), calls=(feeds,))
    exact = Interpreter(fused(given))(feeds)["y"]
    given = test_bfloat16.imported("down, up and beside")[0]
    wanted = Interpreter(fused(given, recipe=recipe, precision=precision))(feeds)["y"]
    given = test_bfloat16.imported("down, up and beside")[0]
    path = bundle(given, feeds, profile.load(TARGET), tmp_path, recipe=recipe, precision=precision)
    with fick.load(path) as loaded:
        got = loaded.run(**feeds)["y"]
    # Sums in another order fall on the other side of a rounding now and then, by one unit of what is stored.
    assert np.std(got - wanted) < 0.02 * np.std(exact)
    assert np.std(wanted - exact) > 1e-3 * np.std(exact)


@pytest.mark.parametrize(
    ("weights", "profiled"),
    [("int8", {"int8_dot": True, "images": True}), ("int8", {"int8_dot": False}), ("int4", {"images": True})],
)
def test_integers_are_the_referees(weights: Any, profiled: dict[str, Any], tmp_path: Path) -> None:
    """To the last bit, one by one and as dot products of four, whose plain C PoCL runs, from buffers and images."""
    given, feeds, powers = exact_case(weights)
    wanted = Interpreter(fused(given, recipe=powers))(feeds)
    gpu = profile.load(TARGET).model_copy(update=profiled)
    path = bundle(exact_case(weights)[0], feeds, gpu, tmp_path, recipe=powers)
    assert (b"dot4(a[r]" in read(path)[0].files[KERNELS]) == profiled.get("int8_dot", False)
    with fick.load(path) as loaded:
        got = loaded.run(**feeds)
    for name, one in wanted.items():
        np.testing.assert_array_equal(got[name], one, err_msg=name)


def test_attention_of_integers(tmp_path: Path) -> None:
    """Which a GPU opens first."""
    given, feeds, whole, wanted, largest = attending_case(48, 77)
    with fick.load(bundle(given, feeds, profile.load(TARGET), tmp_path, recipe=whole)) as loaded:
        got = loaded.run(**feeds)["y"]
    np.testing.assert_allclose(got, wanted, atol=1e-4 * largest, rtol=0)


def test_weights_read_as_images(tmp_path: Path) -> None:
    """Some are more rows than an image may have, and lie in strips; others no image can hold."""
    small = profile.load(TARGET).model_copy(update={"images": True, "image_side": 64})
    lowered = lower(apply(pipeline(), small_unet.program(), Context()), small, cache_folder())
    shapes = [one.texture for one in lowered.weights]
    assert {None if one is None else one.rows > one.strip for one in shapes} == {None, False, True}
    assert all(one is None or max(one.size) <= 64 for one in shapes)
    program = small_unet.program()
    ir.save(program.variants["full"], tmp_path / "small.onnx")
    path = fick.compile(tmp_path / "small.onnx", small, tmp_path / "small.fick").bundle
    with fick.load(path) as loaded:
        for one in small_unet.calls():
            wanted = Interpreter(program)(one)["output"]
            np.testing.assert_allclose(loaded.run(**one)["output"], wanted, rtol=0, atol=2e-5)


def test_scales_of_blocks(tmp_path: Path) -> None:
    given, feeds = test_int4.plain(
        test_operators.model(test_int4.BLOCKED, np.random.default_rng(5)), np.random.default_rng(6)
    )
    wanted = Interpreter(fused(given))(feeds)
    given, _ = test_int4.plain(
        test_operators.model(test_int4.BLOCKED, np.random.default_rng(5)), np.random.default_rng(6)
    )
    with fick.load(test_int4.compiled(given, TARGET, tmp_path)) as loaded:
        got = loaded.run(**feeds)
    for name, one in wanted.items():
        np.testing.assert_allclose(got[name], one, rtol=0, atol=1e-5, err_msg=name)


def compiled(graph: ir.Model, folder: Path, target: profile.Target | None = None, **options: Any) -> Path:
    weights, inputs = (
        frozenset(graph.graph.initializers),
        {str(one.name): "sample" for one in graph.graph.inputs},
    )
    imported = Imported(canonicalise(graph), "graph", "onnx", inputs, weights)
    gpu = target or profile.load(TARGET)
    skeleton = build({"graph": imported}, gpu, cache_folder(), name="graph", **options)
    skeleton.write(folder / "graph.fick", {"graph": tensors(imported.model)})
    return folder / "graph.fick"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = test_operators.model(GRAPHS["groups of three channels"], np.random.default_rng(7))
    return compiled(graph, tmp_path_factory.mktemp("gpu"))


def test_what_kernels_move_and_take_is_predicted(small: Path, tmp_path: Path) -> None:
    json_file = tmp_path / "kernels.json"
    result = CliRunner().invoke(app, ["inspect", str(small), "--kernels", "--json", str(json_file)])
    assert result.exit_code == 0 and "assumed" in result.output
    facts = json.loads(json_file.read_text())
    [found] = facts["kernels"].values()
    [kernel] = [one for one in found if one["kernel"].startswith("groupnorm")]
    # An image of 2 x 12 x 5 x 7 numbers read and one written, with 12 scales and 12 biases.
    assert kernel["moved_bytes"] == 4 * (2 * 840 + 2 * 12)
    gpu = profile.load(TARGET)
    assert isinstance(gpu, profile.GpuProfile)
    roof = max(kernel["flops"] / gpu.peak_flops.value, kernel["moved_bytes"] / gpu.bandwidth.value)
    assert kernel["seconds"] == pytest.approx(gpu.launch_seconds.value + roof)
    assert kernel["kernel"] in read(small)[0].files[KERNELS].decode()


def test_a_machine_without_opencl(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FICK_OPENCL", "/nowhere/libOpenCL.so")
    with pytest.raises(FickError, match=r"no OpenCL library here .* compile for a processor"):
        fick.load(small)
    monkeypatch.setenv("FICK_OPENCL", "libm.so.6")
    with pytest.raises(FickError, match="has no clGetPlatformIDs"):
        fick.load(small)


def test_a_limit_counts_what_a_gpu_keeps(small: Path) -> None:
    with fick.load(small) as loaded:
        peak = loaded.memory.peak_bytes
    with fick.load(small, memory_limit_bytes=peak) as loaded:
        assert loaded.memory.peak_bytes == peak
    with pytest.raises(FickError, match=f"needs {peak} bytes at least and the limit is {peak - 1}"):
        fick.load(small, memory_limit_bytes=peak - 1)


def test_a_processor_takes_the_place_of_a_missing_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = test_operators.model(GRAPHS["groups of three channels"], np.random.default_rng(7))
    x = np.random.default_rng(8).standard_normal((2, 12, 5, 7)).astype(np.float32)
    wanted = referee.run(graph, {"x": x})["y"]
    path = compiled(graph, tmp_path, spare=profile.load("host"))
    with fick.load(path) as loaded:
        assert loaded.device != "processor"
        np.testing.assert_allclose(loaded.run(x=x)["y"], wanted, rtol=0, atol=5e-6)
    monkeypatch.setenv("FICK_OPENCL", "/nowhere/libOpenCL.so")
    with (
        pytest.warns(UserWarning, match="runs on the processor: .* no OpenCL library here"),
        fick.load(path) as loaded,
    ):
        assert loaded.device == "processor"
        np.testing.assert_allclose(loaded.run(x=x)["y"], wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("target", "fallback", "precision", "said"),
    [
        ("host", "host", "float32", "it goes with a GPU"),
        (TARGET, "mali", "float32", "is no processor"),
        (TARGET, "host", "float16", "target .* has no such kernels; it has float32, bfloat16"),
    ],
)
def test_a_fallback_that_cannot_be(
    target: str, fallback: str, precision: str, said: str, tmp_path: Path
) -> None:
    ir.save(small_unet.program().variants["full"], tmp_path / "g.onnx")
    with pytest.raises(UserError, match=said):
        fick.compile(tmp_path / "g.onnx", target, tmp_path / "g.fick", fallback=fallback, precision=precision)
    assert not (tmp_path / "g.fick").exists()


def altered(path: Path, changed: Path, source: str) -> Path:
    """The bundle with other kernels."""
    skeleton, entries = read(path, [WEIGHTS])
    files = {WEIGHTS: entries[WEIGHTS], LIBRARY: skeleton.library, **skeleton.files, KERNELS: source.encode()}
    write_bundle(changed, [Entry.of(*one) for one in files.items()], skeleton.manifest)
    return changed


def test_a_kernel_that_does_not_build_is_named(small: Path, tmp_path: Path) -> None:
    source = read(small)[0].files[KERNELS].decode()
    name = re.findall(r"^// kernel (groupnorm_\w+)$", source, re.MULTILINE)[0]
    broken = source.replace("const float mean =", "const nofloat mean =", 1)
    assert broken != source
    with pytest.raises(FickError, match=f"does not build kernel {name}: .*nofloat"):
        fick.load(altered(small, tmp_path / "broken.fick", broken))


def test_a_bundle_for_a_board_is_none_for_this_machine(tmp_path: Path) -> None:
    ir.save(small_unet.program().variants["full"], tmp_path / "small.onnx")
    path = fick.compile(tmp_path / "small.onnx", "mali", tmp_path / "mali.fick").bundle
    (machine,) = struct.unpack_from("<H", check_bundle(path).entries[LIBRARY], 18)
    assert machine == ARM_64
    if platform.machine() != "aarch64":
        with pytest.raises(FickError, match="compiled for aarch64"):
            fick.load(path)


def test_layers_of_one_shape_share_a_kernel(tmp_path: Path) -> None:
    """SD-1.5 for a phone: less than 400 kB of source, and no buffer of more than its driver allocates."""
    gpu = profile.load("mali")
    assert isinstance(gpu, profile.GpuProfile)
    unet = lower(kept("sd-1.5", tmp_path), gpu, tmp_path)
    assert sum(map(len, unet.kernels.values())) < 400_000
    assert len(unet.variants["full"]) > 3 * len(unet.kernels)
    assert max(b - a for a, b in pairwise([*unet.chunks, unet.weights_bytes])) <= gpu.buffer_bytes
    assert unet.arena_bytes <= gpu.buffer_bytes


def test_buffers_stay_below_what_a_device_can_allocate() -> None:
    program = apply(pipeline(), small_unet.program(), Context())
    gpu = profile.load(TARGET)
    whole = lower(program, gpu, cache_folder())
    limit = whole.arena_bytes  # weights are twice as large
    cut = lower(program, gpu.model_copy(update={"buffer_bytes": limit}), cache_folder())
    assert whole.chunks == (0,) and len(cut.chunks) > 1
    assert max(b - a for a, b in pairwise([*cut.chunks, cut.weights_bytes])) <= limit
    assert set(cut.chunks) <= {one.offset_bytes for one in cut.weights}
    with pytest.raises(UserError, match="a buffer of the target holds"):
        lower(program, gpu.model_copy(update={"buffer_bytes": 1 << 10}), cache_folder())
