"""A small UNet with alternatives, written out: what a schedule runs in place of "full", and what steps leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fick.compiler.bundle.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.compiler.recipes import Recipe
from fick.ir.canonical import canonicalise
from fick.ir.program import Program
from fick.passes.base import Context, Pass, PassConfig
from fick.targets import profile

from .test_operators import model

CHANNELS, SIZE = 64, 16
RATES = {"x": "sample", "t": "step", "p": "prompt"}
IMAGE, HALF = f"float[1,{CHANNELS},{SIZE},{SIZE}]", f"float[1,{CHANNELS},{SIZE // 2},{SIZE // 2}]"
WEIGHTS = (
    f"float[{CHANNELS},{CHANNELS},3,3] w1, float[{CHANNELS},{CHANNELS},3,3] w2, float[{CHANNELS},{CHANNELS},3,3] w3, "
    f"float[{CHANNELS},{2 * CHANNELS},3,3] w4, float[1,{CHANNELS},1,1] speed, float[{CHANNELS},{CHANNELS},1,1] wp, "
    "float[4] k = {1.0, 1.0, 2.0, 2.0}"
)
INPUTS = f"{IMAGE} x, float[1] t, float[1,{CHANNELS},1,1] p"
ENTER = (
    "v = Mul(t, speed) c = Conv <pads = [1,1,1,1]> (x, w1) e = Add(c, v) g = Conv(p, wp) "
    "d = Conv <pads = [1,1,1,1], strides = [2,2]> (e, w2) s = Swish(d) m = Conv <pads = [1,1,1,1]> (s, w3) "
)
LEAVE = (
    'u = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> ({deep}, , k) '
    "j = Concat <axis = 1> (u, e) y = Conv <pads = [1,1,1,1]> (j, w4)"
)
TEXTS = {
    "full": (
        f'({INPUTS}) => ({IMAGE} y, {HALF} "deep.next", {HALF} "mean.next")',
        f'{ENTER} "deep.next" = Add(m, g) "mean.next" = Mul("deep.next", "deep.next") '
        + LEAVE.format(deep='"deep.next"'),
    ),
    # Nothing below the first resolution.
    "cached": (
        f"({INPUTS}, {HALF} deep) => ({IMAGE} y)",
        "v = Mul(t, speed) c = Conv <pads = [1,1,1,1]> (x, w1) e = Add(c, v) " + LEAVE.format(deep="deep"),
    ),
    # Reads what it leaves, before and after it has computed that.
    "moving": (
        f'({INPUTS}, {HALF} deep, {HALF} mean) => ({IMAGE} y, {HALF} "mean.next", {HALF} "deep.next")',
        f'{ENTER} f = Add(m, g) h = Add(f, deep) "deep.next" = Mul(h, half) "mean.next" = Add(mean, "deep.next") '
        "r = Add(deep, mean) " + LEAVE.format(deep="r"),
    ),
    # Each takes the other's place: neither can be copied first.
    "swapping": (
        f'({INPUTS}, {HALF} deep, {HALF} mean) => ({IMAGE} y, {HALF} "mean.next", {HALF} "deep.next")',
        '"deep.next" = Transpose <perm = [0,1,3,2]> (mean) "mean.next" = Transpose <perm = [0,1,3,2]> (deep) '
        "v = Mul(t, speed) c = Conv <pads = [1,1,1,1]> (x, w1) e = Add(c, v) " + LEAVE.format(deep="deep"),
    ),
}  # fmt: skip
STATE = dict.fromkeys(("deep", "mean"), (1, CHANNELS, SIZE // 2, SIZE // 2))
SCHEDULE = [
    "full",
    "cached",
    "moving",
    "cached",
    "swapping",
    "moving",
    "full",
    "swapping",
    "swapping",
    "cached",
]


def graph(name: str, seed: int = 0) -> ir.Model:
    """A variant; weights are those of the seed, of a deviation that keeps values near one."""
    signature, body = TEXTS[name]
    declared = WEIGHTS + (", float half = {0.5}" if name == "moving" else "")
    made = model(f"g {signature} <{declared}> {{ {body} }}", np.random.default_rng(seed))
    for label, value in made.graph.initializers.items():
        if label not in ("k", "half"):
            array = value.const_value.numpy()
            fan_in = np.prod(array.shape[1:])
            value.const_value = ir.tensor((array / np.sqrt(fan_in)).astype(np.float32), name=label)
    return canonicalise(made)


class Alternatives(PassConfig):
    """Which alternatives, and what a loop runs."""

    schedule: tuple[str, ...] = tuple(SCHEDULE)


class Scheduled(Pass[Alternatives]):
    """Adds the alternatives that the schedule runs, over the weights that there are."""

    name = "scheduled"
    Config = Alternatives

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        full = program.variants["full"]
        variants = {"full": full}
        for name in sorted({*self.config.schedule} - {"full"}):
            variants[name] = graph(name)
            for label, value in variants[name].graph.initializers.items():
                if label in full.graph.initializers:
                    value.const_value = full.graph.initializers[label].const_value
        schedule = {len(self.config.schedule): list(self.config.schedule)}
        return replace(program, variants=variants, schedule=schedule, state=STATE), {}


def imported(seed: int = 0, *, state: bool = True) -> Imported:
    whole = graph("full", seed)
    if not state:
        del whole.graph.outputs[1:]
    weights = frozenset(whole.graph.initializers) - {"k"}
    return Imported(whole, "scheduled", "onnx", RATES, weights)


def recipe(*schedule: str) -> Recipe:
    return Recipe(passes=(Scheduled(Alternatives(schedule=schedule or tuple(SCHEDULE))),))


def program(*schedule: str, precision: str = "float32") -> Program:
    return fused(imported(), recipe=recipe(*schedule), precision=precision)


def bundle(path: Path, given: Imported, **options: Any) -> Path:
    weights = tensors(given.model)
    skeleton = build(
        {"unet": given}, profile.load("host"), cache_folder(), name="scheduled",
        sampler={"kind": "consistency", "sigma_min": 0.002, "sigmas": [1.5, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]},
        **options,
    )  # fmt: skip
    skeleton.write(path, {"unet": weights})
    return path


def calls(count: int = len(SCHEDULE), seed: int = 1) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    prompt = rng.standard_normal((1, CHANNELS, 1, 1)).astype(np.float32)
    return [
        {
            "x": rng.standard_normal((1, CHANNELS, SIZE, SIZE)).astype(np.float32),
            "t": np.array([step / count], np.float32),
            "p": prompt,
        }
        for step in range(count)
    ]
