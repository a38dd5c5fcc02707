"""The arithmetic of a fusion group, as data: what a kernel does with each element before storing it.

A kernel is identified by its specification, expression included, so expressions are plain frozen values: they
hash, pickle and compare. Turning one into code is the business of a device family.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """Element of kernel operand ``operand`` at ``sum(coordinate * stride)`` over the kernel's coordinates."""

    operand: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """What the kernel itself computed at these coordinates. ``part`` tells the halves of a gated layer apart."""

    part: int = 0


@dataclass(frozen=True)
class Literal:
    value: float


@dataclass(frozen=True)
class Apply:
    """``op`` names an elementwise ONNX operator (or a form of one, such as GeluTanh)."""

    op: str
    args: tuple[Expression, ...]


Expression = Load | Value | Literal | Apply

ARITY = {
    "Add": 2, "Sub": 2, "Mul": 2, "Div": 2, "Pow": 2, "Max": 2, "Min": 2,
    "Neg": 1, "Abs": 1, "Reciprocal": 1, "Sqrt": 1, "Exp": 1, "Log": 1, "Sin": 1, "Cos": 1, "Floor": 1,
    "Erf": 1, "Tanh": 1, "Sigmoid": 1, "Swish": 1, "Relu": 1, "Gelu": 1, "GeluTanh": 1, "Identity": 1,
}  # fmt: skip
"""Every operator that may stand in an ``Apply``, with its number of arguments."""
