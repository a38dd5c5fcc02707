"""Rules that recover Swish and Gelu from their definitions.

Swish: Ramachandran et al., arXiv 1710.05941. Gelu: Hendrycks and Gimpel, arXiv 1606.08415, both the exact
form with erf and the approximation with tanh.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from .propagate import scalar

Build = Callable[[Any, Any], Any]


def _both(left: Build, right: Build) -> list[Build]:
    """A product in both orders."""
    return [lambda op, x: op.Mul(left(op, x), right(op, x)), lambda op, x: op.Mul(right(op, x), left(op, x))]


def _itself(op: Any, x: Any) -> Any:
    return x


def _half(op: Any, x: Any) -> Any:
    return op.Mul(x, 0.5)


def _after(product: Build) -> Build:
    return lambda op, x: op.Mul(product(op, x), 0.5)


def _halved(gate: Build) -> list[Build]:
    """The ways in which 0.5 x gate(x) gets written; numbers stand second, see `order_operands`."""
    return [
        *(_after(product) for product in _both(_itself, gate)),
        *_both(_itself, lambda op, x: op.Mul(gate(op, x), 0.5)),
        *_both(_half, gate),
    ]


def _erf_gate(scaled: Build) -> Build:
    return lambda op, x: op.Add(op.Erf(scaled(op, x)), 1.0)


def _tanh_gate(sum_: Build) -> Build:
    return lambda op, x: op.Add(op.Tanh(op.Mul(sum_(op, x), math.sqrt(2 / math.pi))), 1.0)


def _with_cube(cube: Build) -> list[Build]:
    """x + 0.044715 x^3 in both orders."""
    return [
        lambda op, x: op.Add(x, op.Mul(cube(op, x), 0.044715)),
        lambda op, x: op.Add(op.Mul(cube(op, x), 0.044715), x),
    ]


ERF_GATES = [
    _erf_gate(lambda op, x: op.Div(x, math.sqrt(2))),
    _erf_gate(lambda op, x: op.Mul(x, math.sqrt(0.5))),
    # What a graph of float16 has in place of the root.
    _erf_gate(lambda op, x: op.Div(x, float(np.float16(math.sqrt(2))))),
    _erf_gate(lambda op, x: op.Mul(x, float(np.float16(math.sqrt(0.5))))),
]
CUBES: list[Build] = [
    lambda op, x: op.Pow(x, 3.0),
    *_both(_itself, lambda op, x: op.Mul(x, x)),
]
TANH_GATES = [_tanh_gate(total) for cube in CUBES for total in _with_cube(cube)]


def _rule(build: Build, name: str, **attributes: Any) -> pattern.RewriteRule:
    def target(op: Any, x: Any) -> Any:
        return build(op, x)

    def replacement(op: Any, x: ir.Value) -> Any:
        return getattr(op, name)(x, **attributes)

    return pattern.RewriteRule(target, replacement, name=name)


def _scaled_swish(gate_first: bool) -> pattern.RewriteRule:
    """x sigmoid(alpha x), as CLIP writes its activation."""

    def target(op: Any, x: Any, slope: Any) -> Any:
        gate = op.Sigmoid(op.Mul(x, slope))
        return op.Mul(gate, x) if gate_first else op.Mul(x, gate)

    def check(context: Any, slope: ir.Value, **rest: Any) -> bool:
        return scalar(slope) is not None

    def replacement(op: Any, x: ir.Value, slope: ir.Value) -> Any:
        return op.Swish(x, alpha=scalar(slope))

    return pattern.RewriteRule(target, replacement, check, name="scaled_swish")


ACTIVATION = [
    *(_rule(build, "Swish") for build in _both(_itself, lambda op, x: op.Sigmoid(x))),
    *(_scaled_swish(gate_first) for gate_first in (False, True)),
    *(_rule(build, "Gelu", approximate="none") for gate in ERF_GATES for build in _halved(gate)),
    *(_rule(build, "Gelu", approximate="tanh") for gate in TANH_GATES for build in _halved(gate)),
]
