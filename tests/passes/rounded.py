"""A program and one whose weights are rounded coarsely, with calls of several pictures: what there is to correct."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fick.ir.interpreter import Interpreter
from fick.ir.making import Maker
from fick.ir.operators import PRODUCTS
from fick.ir.program import Program
from fick.passes.base import Context

from . import small_unet

TIMESTEPS = (801.0, 401.0, 1.0)


def rounded(program: Program, largest: int = 5) -> Program:
    """Its products' weights in so many integers either side of zero, one scale a tensor."""
    changed = program.copy()
    graph = changed.variants["full"].graph
    for node in list(graph):
        weight = node.inputs[1] if node.op_type in PRODUCTS else None
        if weight is None or weight.const_value is None or weight.shape is None:
            continue
        maker, shape = Maker(node, "rounded"), weight.shape.numpy()
        peak = float(np.abs(weight.const_value.numpy()).max())
        scale = maker.constant(np.array(peak / largest, np.float32))
        integers = maker.add("QuantizeLinear", (weight, scale), shape, ir.DataType.INT8, output_dtype=3)
        numbers = maker.add("DequantizeLinear", (integers, scale), shape, ir.DataType.FLOAT)
        maker.before()
        node.replace_input_with(1, numbers)
    return changed


def calls(pictures: int = 6) -> list[dict[str, NDArray[np.float32]]]:
    """Picture by picture, as they are drawn. Samples of unit variance, and texts that differ by picture and branch."""
    rng = np.random.default_rng(2)
    found: list[dict[str, NDArray[np.float32]]] = []
    for _ in range(pictures):
        text = rng.standard_normal((small_unet.BATCH, small_unet.TOKENS, small_unet.TEXT)).astype(np.float32)
        for at in TIMESTEPS:
            sample = rng.standard_normal((1, 4, small_unet.HEIGHT, small_unet.WIDTH)).astype(np.float32)
            found.append(
                {
                    "sample": np.repeat(sample, small_unet.BATCH, 0),
                    "timestep": np.array([at / 1000], np.float32),
                    "encoder_hidden_states": text,
                }
            )
    return found


def context(reference: Program, pictures: int = 6) -> Context:
    return replace(
        small_unet.context(), calibration=calls(pictures), reference=reference, referee=Interpreter
    )
