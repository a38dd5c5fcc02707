"""A quantised UNet on 64-bit Arm, under qemu: its kernels beside the referee, its integers beside this machine's."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

import fick
from fick.compiler.bundle.golden import TYPES
from fick.compiler.bundle.skeleton import GOLDEN
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.compiler.recipes import NOTHING
from fick.compiler.runner import program
from fick.ir import referee
from fick.ir.canonical import canonicalise
from fick.ir.interpreter import Interpreter
from fick.ir.operators import PRODUCTS
from fick.ir.program import Program
from fick.passes.base import apply
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.targets import profile

from ..emulated import CORES, run_bundle, run_program
from ..passes import small_unet
from . import pipelines
from .test_int8 import bundle

RECIPE = """
[calibration]
prompts = "prompts.txt"
pictures = 1
steps = 2

[[pass]]
name = "quantise"
least_depth = 1
"""


def test_every_kernel_gives_what_the_referee_gives(tmp_path: Path) -> None:
    """Among them those that store integers and float16, and a picture runs each of them."""
    core = "cortex-a76"
    pipelines.make(tmp_path)
    (tmp_path / "prompts.txt").write_text("cat\n")
    (tmp_path / "w8a8.toml").write_text(RECIPE)
    path, runner, profiled = (tmp_path / name for name in ("arm.fick", "fick-run", "calls.json"))
    recipe = tmp_path / "w8a8.toml"
    fick.compile(tmp_path / "tiny-sd", core, path, recipe=recipe, precision="float16", self_test=True)
    runner.write_bytes(program("aarch64", cache_folder() / "core", "gnu"))
    runner.chmod(0o755)
    with zipfile.ZipFile(path) as archive:
        golden = json.loads(archive.read(GOLDEN))["components"]
        unet = json.loads(archive.read("manifest.json"))["components"]["unet"]
    stored = Counter(row[2] for one in golden.values() for rows in one.values() for row in rows)
    assert stored[TYPES["int8"]] > 10 and stored[TYPES["float16"]] > 0
    ran = run_program(runner, core, str(path), "--self-test")
    # Nothing runs the encoder of pictures here.
    checked = sum(len(rows) for name, one in golden.items() for rows in one.values() if name != "vae_encoder")
    assert (ran.stdout, ran.stderr) == (f"{checked} kernel calls give what they should\n", "")
    asked = ["--prompt", "cat", "--steps", "2", "--quiet", "--profile", str(profiled)]
    ran = run_program(runner, core, str(path), *asked, "-o", str(tmp_path / "x.png"))
    assert (ran.returncode, ran.stderr) == (0, "")
    calls = [one for one in json.loads(profiled.read_text())["calls"] if one["component"] == "unet"]
    counted = Counter(one["variant"] for one in calls)
    assert counted == {name: facts["calls"] for name, facts in unet["variants"].items() if facts["calls"]}
    assert {one["runs"] for one in calls if one["variant"] == "full"} == {2}


@dataclass(frozen=True)
class Layer:
    """A quantised product: its node, and what opens its two operands."""

    node: ir.Node
    opened: tuple[ir.Node, ir.Node]

    @property
    def codes(self) -> list[str]:
        return [str(one.inputs[0].name) for one in self.opened]  # type: ignore[union-attr]

    @property
    def scales(self) -> list[str]:
        return [str(one.inputs[1].name) for one in self.opened]  # type: ignore[union-attr]

    @property
    def source(self) -> str:
        """What the left operand's integers are made of."""
        return str(self.opened[0].inputs[0].producer().inputs[0].name)  # type: ignore[union-attr]

    def sums(self, known: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """By its own operator on integers: float32 numbers hold sums of them exactly up to 2^24."""
        feeds = {name: known[name].astype(np.float32) for name in self.codes}
        right = feeds[self.codes[1]]
        assert 127 * 127 * np.prod(right.shape[1:] if right.ndim == 4 else right.shape[0]) < 2**24
        values = [
            ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
            for name, array in feeds.items()
        ]
        again = ir.Node("", self.node.op_type, values, list(self.node.attributes.values()))
        again.outputs[0].name, again.outputs[0].type = "sums", values[0].type
        graph = ir.Graph(values, again.outputs, nodes=[again], opset_imports={"": 24})
        return referee.run(ir.Model(graph, ir_version=11), feeds)["sums"]


def layers(quantised: Program) -> dict[str, Layer]:
    """By the names of their results."""
    found: dict[str, Layer] = {}
    for node in quantised.variants["full"].graph:
        if node.op_type in PRODUCTS:
            left, right = (value.producer() for value in node.inputs[:2])  # type: ignore[union-attr]
            if left is not None and left.op_type == "DequantizeLinear" and right is not None:
                found[str(node.outputs[0].name)] = Layer(node, (left, right))
    return found


def test_every_layer_sums_the_same_integers(tmp_path: Path) -> None:
    """Of a UNet, each given what it reads there: here, on cores with dot products and on one without. Not a bit of any
    result differs, and over the scales they are the sums of the integers themselves.
    """
    passes = [Quantise(QuantiseConfig(least_depth=1))]
    quantised = apply(passes, small_unet.program(), small_unet.context())
    found = layers(quantised)
    assert len(found) == quantised.history[-1].effect["products"] > 12
    graph, call = quantised.variants["full"].graph, small_unet.calls()[0]
    known = {name: value.const_value.numpy() for name, value in graph.initializers.items()}  # type: ignore[union-attr]
    inside = {name for one in found.values() for name in (one.source, *one.codes, *one.scales)} - {*known}
    known |= {**call, **Interpreter(quantised, inside)(call)}
    feeds = {name: known[name] for name in sorted({one.source for one in found.values()})}
    # Side by side: what they read is given, and what they give is given back.
    apart = onnx.utils.Extractor(ir.to_proto(quantised.variants["full"])).extract_model([*feeds], [*found])

    def compiled(target: str) -> Path:
        model = canonicalise(ir.from_proto(apart))
        weights = frozenset(model.graph.initializers)
        given = Imported(model, "layers", "onnx", dict.fromkeys(feeds, "sample"), weights)
        return bundle(given, feeds, profile.load(target), tmp_path, recipe=NOTHING)

    with fick.load(compiled("host")) as loaded:
        here = loaded.run(**feeds)
    for core in CORES:
        there = run_bundle(compiled(core), core, feeds)
        for name in found:
            np.testing.assert_array_equal(there[name], here[name], err_msg=f"{name} on {core}")
    for name, layer in found.items():
        exact, (left, right) = layer.sums(known), (known[one] for one in layer.scales)
        sums = here[name] / (left * (right.reshape(-1, 1, 1) if layer.node.op_type == "Conv" else right))
        assert np.ptp(exact) > 1000 and np.abs(sums - exact).max() < 0.25, name
        np.testing.assert_array_equal(np.rint(sums), exact, err_msg=name)
