"""The arithmetic of a fusion group, as data: what a kernel does with each element before storing it.

A kernel is identified by its specification, expression included, so expressions are plain frozen values: they
hash, pickle and compare. Turning one into code is the business of a device family.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def bound(expression: Expression, first_operand: int, strides: Sequence[Sequence[int]]) -> Expression:
    """The expression with load i reading kernel operand ``first_operand + i`` at ``strides[i]``."""
    match expression:
        case Load(operand):
            return Load(first_operand + operand, tuple(strides[operand]))
        case Apply(op, args):
            return Apply(op, tuple(bound(arg, first_operand, strides) for arg in args))
        case _:
            return expression


def loads_of(expression: Expression) -> list[Load]:
    match expression:
        case Load():
            return [expression]
        case Apply(_, args):
            return [load for arg in args for load in loads_of(arg)]
        case _:
            return []


def operations(expression: Expression) -> int:
    return 1 + sum(map(operations, expression.args)) if isinstance(expression, Apply) else 0
