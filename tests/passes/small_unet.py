"""A UNet of two resolutions with self- and cross-attention, written out: random weights, no torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context

BATCH, CHANNELS, HEIGHT, WIDTH, TOKENS, TEXT = 2, 16, 4, 8, 5, 8
PIXELS = HEIGHT * WIDTH
RATES = {"sample": Rate.SAMPLE, "timestep": Rate.STEP, "encoder_hidden_states": Rate.PROMPT}

TEXT_FORM = f"""<ir_version: 11, opset_import: ["" : 24]>
unet (float[{BATCH},4,{HEIGHT},{WIDTH}] sample, float[1] timestep, float[{BATCH},{TOKENS},{TEXT}] encoder_hidden_states,
      WEIGHTS)
  => (float[{BATCH},4,{HEIGHT},{WIDTH}] output)
{{
  entered = Conv<pads=[1,1,1,1]>(sample, conv_in)
  time = Mul(timestep, time_scale)
  timed = Add(entered, time)
  skip = Identity(timed)
  half = Conv<pads=[1,1,1,1], strides=[2,2]>(timed, conv_down)
  active = Swish(half)
  inner = Conv<pads=[1,1,1,1]>(active, conv_mid)
  middle = Add(half, inner)
  twice = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(middle, , scales)
  up = Conv<pads=[1,1,1,1]>(twice, conv_up)
  joined = Concat<axis=1>(up, skip)
  narrow = Conv(joined, conv_join)
  flat = Reshape(narrow, to_flat)
  tokens = Transpose<perm=[0,2,1]>(flat)
  n1 = LayerNormalization(tokens, gamma, beta)
  q1 = MatMul(n1, wq1)
  k1 = MatMul(n1, wk1)
  v1 = MatMul(n1, wv1)
  a1 = Attention<q_num_heads=2, kv_num_heads=2>(q1, k1, v1)
  o1 = MatMul(a1, wo1)
  r1 = Add(o1, tokens)
  n2 = LayerNormalization(r1, gamma, beta)
  q2 = MatMul(n2, wq2)
  k2 = MatMul(encoder_hidden_states, wk2)
  v2 = MatMul(encoder_hidden_states, wv2)
  a2 = Attention<q_num_heads=2, kv_num_heads=2>(q2, k2, v2)
  o2 = MatMul(a2, wo2)
  r2 = Add(o2, r1)
  n3 = LayerNormalization(r2, gamma, beta)
  h = MatMul(n3, w1)
  g = Gelu(h)
  f = MatMul(g, w2)
  r3 = Add(f, r2)
  image = Transpose<perm=[0,2,1]>(r3)
  grid = Reshape(image, to_grid)
  output = Conv<pads=[1,1,1,1]>(grid, conv_out)
}}"""

SHAPES = {
    "conv_in": (CHANNELS, 4, 3, 3), "time_scale": (1, CHANNELS, 1, 1), "conv_down": (CHANNELS, CHANNELS, 3, 3),
    "conv_mid": (CHANNELS, CHANNELS, 3, 3), "conv_up": (CHANNELS, CHANNELS, 3, 3),
    "conv_join": (CHANNELS, 2 * CHANNELS, 1, 1), "conv_out": (4, CHANNELS, 3, 3), "gamma": (CHANNELS,),
    "beta": (CHANNELS,), "w1": (CHANNELS, 4 * CHANNELS), "w2": (4 * CHANNELS, CHANNELS),
    **{f"w{one}1": (CHANNELS, CHANNELS) for one in "qkvo"}, "wq2": (CHANNELS, CHANNELS), "wo2": (CHANNELS, CHANNELS),
    "wk2": (TEXT, CHANNELS), "wv2": (TEXT, CHANNELS),
}  # fmt: skip

CONSTANTS = {
    "scales": np.array([1, 1, 2, 2], np.float32),
    "to_flat": np.array([BATCH, CHANNELS, PIXELS]),
    "to_grid": np.array([BATCH, CHANNELS, HEIGHT, WIDTH]),
}


def program(attention_gain: float = 3.0) -> Program:
    """Weights of a deviation that keeps activations near one; ``attention_gain`` makes maps less even."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.generic]] = dict(CONSTANTS)
    for name, shape in SHAPES.items():
        drawn = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else shape[0])
        arrays[name] = (drawn * (attention_gain if name[:2] in ("wq", "wk") else 1)).astype(np.float32)
    arrays["gamma"] = np.ones(CHANNELS, np.float32)
    kinds = {np.float32: "float", np.int64: "int64"}
    declared = (
        f"{kinds[one.dtype.type]}[{','.join(map(str, one.shape))}] {name}" for name, one in arrays.items()
    )
    model = ir.from_onnx_text(TEXT_FORM.replace("WEIGHTS", ", ".join(declared)))
    given = {str(value.name): value for value in model.graph.inputs}
    for name, array in arrays.items():
        model.graph.inputs.remove(given[name])
        given[name].const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(given[name])
    ShapeInferencePass()(model)
    return Program("small", {"full": model}, dict(RATES), weights=frozenset(SHAPES))


def calls(count: int = 3) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(1)
    text = rng.standard_normal((BATCH, TOKENS, TEXT)).astype(np.float32)
    return [
        {
            "sample": rng.standard_normal((BATCH, 4, HEIGHT, WIDTH)).astype(np.float32),
            "timestep": np.array([step / count], np.float32),
            "encoder_hidden_states": text,
        }
        for step in range(count)
    ]


def context(count: int = 3) -> Context:
    return Context(referee=Interpreter, calibration=calls(count))
