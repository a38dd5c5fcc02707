"""3 x 3 convolutions of SD-1.5's shapes, summed directly and as the compiler chooses: where ``macs_per_byte`` is from.

    python benchmarks/convolutions.py [--rounds 7]

Rounds are interleaved; a layer's time is the median of all its kernels' together, and the ratio what was predicted
beside what was measured.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from onnx import TensorProto, helper, numpy_helper

import fick
from fick.runtime import Model
from fick.targets import profile as profiles
from fick.targets.planning.filtering import choose, predicted_ratio

LAYERS = (
    (64, 320, 320), (64, 640, 320), (64, 960, 320), (32, 640, 640), (32, 1280, 640), (16, 1280, 1280),
    (16, 2560, 1280), (8, 1280, 1280),
)  # fmt: skip
"""Pixels a side, channels in, channels out."""


def main(rounds: Annotated[int, typer.Option(help="Runs of each.")] = 7) -> None:
    """Print a line a layer."""
    host = profiles.processor("host")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        onnx.save(graph(), folder / "convolutions.onnx")
        loaded: dict[bool, Model] = {}
        for enlarge in (False, True):
            target = folder / f"{enlarge}.toml"
            target.write_text(as_toml(host.model_copy(update={"enlarge_weights": enlarge})))
            report = fick.compile(folder / "convolutions.onnx", str(target), folder / f"{enlarge}.fick")
            opened = fick.load(report.bundle)
            assert isinstance(opened, Model)
            loaded[enlarge] = opened
        rng = np.random.default_rng(0)
        times: dict[tuple[bool, str], list[float]] = defaultdict(list)
        for _ in range(rounds):
            # Anew in each round: what depends on inputs that stay the same is not computed again.
            feeds: dict[str, Any] = {
                name: rng.standard_normal(one.shape).astype(np.float32)
                for name, one in loaded[True].inputs.items()
            }
            for enlarge, model in loaded.items():
                model.run(**feeds)
                seconds: dict[str, float] = defaultdict(float)
                for call in model.profile():
                    seconds[call.node] += call.seconds
                for node, one in seconds.items():
                    times[enlarge, node].append(one)
        for model in loaded.values():
            model.close()
    print("layer, direct ms, chosen ms, tile, ratio measured, ratio predicted")
    for side, channels, columns in LAYERS:
        name, shape = f"{side}x{side} {channels}->{columns}", (1, columns, side, side)
        direct, chosen = (median(times[enlarge, name]) for enlarge in (False, True))
        tile = choose(host.macs_per_byte, shape, channels)
        predicted = predicted_ratio(host.macs_per_byte, shape, channels, tile) if tile else 1.0
        print(
            f"{name}, {direct * 1e3:.1f}, {chosen * 1e3:.1f}, {tile}, {chosen / direct:.2f}, {predicted:.2f}"
        )


def graph() -> onnx.ModelProto:
    """All layers side by side, each of an input of its own; random weights."""
    rng = np.random.default_rng(0)
    nodes, weights, inputs, outputs = [], [], [], []
    for at, (side, channels, columns) in enumerate(LAYERS):
        drawn = rng.standard_normal((columns, channels, 3, 3)) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(drawn.astype(np.float32), f"w{at}"))
        inputs.append(helper.make_tensor_value_info(f"x{at}", TensorProto.FLOAT, [1, channels, side, side]))
        outputs.append(helper.make_tensor_value_info(f"y{at}", TensorProto.FLOAT, [1, columns, side, side]))
        name = f"{side}x{side} {channels}->{columns}"
        nodes.append(helper.make_node("Conv", [f"x{at}", f"w{at}"], [f"y{at}"], name=name, pads=[1] * 4))
    made = helper.make_graph(nodes, "convolutions", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def as_toml(profile: profiles.Profile) -> str:
    def text(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return str(list(value)) if isinstance(value, tuple) else repr(value)

    return "".join(f"{key} = {text(value)}\n" for key, value in profile.model_dump().items())


if __name__ == "__main__":
    typer.run(main)
