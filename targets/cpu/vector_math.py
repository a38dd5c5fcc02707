"""Elementwise operators as TIR expressions that LLVM turns into vector code.

TVM lowers ``exp``, ``erf`` and ``tanh`` to scalar calls into libm, which costs more than the layer around
them. The polynomials here stay in registers: ``exp`` by Cody-Waite range reduction and the Cephes minimax
polynomial (error below 2 units in the last place), ``exp2`` by a minimax polynomial of its own, ``erf`` by
Abramowitz and Stegun 7.1.26 (absolute error below 2e-7 in float32). Sin, Cos, Log and Pow occur on embeddings
of a few hundred numbers and call libm.

TIR has trees: what is used twice would be written, simplified and lowered twice, and what it is made of four times.
Such numbers have names, by ``let``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from ..expressions import Apply, Expression, Literal, Load, Value

LOG2_E = 1.4426950408889634
COARSE_LANES = 16
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
EXP_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
EXP2_POLYNOMIAL = (
    1.3276470685e-3,
    9.6755413240e-3,
    5.5507132775e-2,
    2.4022119724e-1,
    6.9314696706e-1,
    1.0000000717,
)
COARSE_EXP2_POLYNOMIAL = (7.8024520e-02, 2.2606716e-01, 6.9583354e-01, 9.9992522e-01)
ERF_POLYNOMIAL = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
ERF_SCALE = 0.3275911


def constant(value: float) -> Any:
    return T.float32(value)


def let(value: Any, body: Callable[[Any], Any]) -> Any:
    """``body`` of a value that is computed once, however often it occurs there.

    As an expression: names of statements are replaced by what they stand for as soon as TVM simplifies.
    """
    name = tirx.Var("x", value.ty)
    return tirx.Let(name, value, body(name))


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    total = constant(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + constant(coefficient)
    return total


def exp(x: Any) -> Any:
    """Clamped so that neither the result nor its reciprocal is infinite or denormal.

    A sigmoid of -88 would be a denormal number, and arithmetic on those takes a hundred times as long.
    """

    def power(whole: Any, rest: Any) -> Any:
        fraction = _horner(EXP_POLYNOMIAL, rest) * rest * rest + rest + constant(1.0)
        exponent = T.shift_left(T.cast(whole, "int32") + T.int32(127), T.int32(23))
        return fraction * T.reinterpret("float32", exponent)

    def split(x: Any, whole: Any) -> Any:
        rest = x - whole * constant(LN2_HIGH) - whole * constant(LN2_LOW)
        return let(rest, lambda rest: power(whole, rest))

    clamped = T.max(T.min(x, constant(87.0)), constant(-87.0))
    return let(
        clamped, lambda x: let(T.floor(x * constant(LOG2_E) + constant(0.5)), lambda whole: split(x, whole))
    )


def exp2(x: Any) -> Any:
    """A power of two for x of 0 or less, to 8e-8 of itself; below -125 it stays a number that counts as nothing."""

    def power(x: Any, whole: Any) -> Any:
        fraction = let(x - whole, lambda rest: _horner(EXP2_POLYNOMIAL, rest))
        exponent = T.shift_left(T.cast(whole, "int32"), T.int32(23))
        return T.reinterpret("float32", T.reinterpret("int32", fraction) + exponent)

    clamped = T.max(x, constant(-125.0))
    return let(clamped, lambda x: let(T.floor(x + constant(0.5)), lambda whole: power(x, whole)))


def coarse_exp2(x: Any) -> Any:
    """Powers of two for a vector of numbers of 0 or less, to 8e-5 of themselves: enough for results of 8 bits."""
    everywhere, to_nearest, downwards = T.uint16(0xFFFF), T.int32(4), T.int32(1)
    zeros = T.Broadcast(T.float32(0), COARSE_LANES)
    prefix, kind = "llvm.x86.avx512.mask", f"float32x{COARSE_LANES}"
    fraction = T.call_llvm_pure_intrin(
        kind, f"{prefix}.reduce.ps.512", x, downwards, zeros, everywhere, to_nearest
    )
    power = functools.reduce(
        lambda total, coefficient: total * fraction + T.float32(coefficient),
        COARSE_EXP2_POLYNOMIAL[1:],
        T.Broadcast(T.float32(COARSE_EXP2_POLYNOMIAL[0]), COARSE_LANES),
    )
    return T.call_llvm_pure_intrin(kind, f"{prefix}.scalef.ps.512", power, x, zeros, everywhere, to_nearest)


def sigmoid(x: Any) -> Any:
    return constant(1.0) / (constant(1.0) + exp(constant(0.0) - x))


def tanh(x: Any) -> Any:
    return constant(1.0) - constant(2.0) / (exp(x * constant(2.0)) + constant(1.0))


def erf(x: Any) -> Any:
    def tail(size: Any) -> Any:
        first = constant(1.0) / (size * constant(ERF_SCALE) + constant(1.0))
        return let(first, lambda t: _horner(ERF_POLYNOMIAL, t) * t) * exp(constant(0.0) - size * size)

    def signed(x: Any) -> Any:
        rest = let(T.max(x, constant(0.0) - x), tail)
        return let(rest, lambda rest: T.Select(x < constant(0.0), rest - constant(1.0), constant(1.0) - rest))

    return let(x, signed)


def gelu(x: Any) -> Any:
    return x * constant(0.5) * (erf(x * constant(0.7071067811865476)) + constant(1.0))


def gelu_tanh(x: Any) -> Any:
    inner = (x + x * x * x * constant(0.044715)) * constant(0.7978845608028654)
    return x * constant(0.5) * (tanh(inner) + constant(1.0))


def said(condition: Any) -> Any:
    """True and false as one and zero."""
    return T.Select(condition, constant(1.0), constant(0.0))


def holds(x: Any) -> Any:
    return x != constant(0.0)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Pow": lambda a, b: T.pow(a, b),
    "Max": lambda a, b: T.max(a, b),
    "Min": lambda a, b: T.min(a, b),
    "Neg": lambda a: constant(0.0) - a,
    "Abs": lambda a: T.max(a, constant(0.0) - a),
    "Reciprocal": lambda a: constant(1.0) / a,
    "Sqrt": lambda a: T.sqrt(a),
    "Exp": exp,
    "Log": lambda a: T.log(a),
    "Sin": lambda a: T.sin(a),
    "Cos": lambda a: T.cos(a),
    "Floor": lambda a: T.floor(a),
    "Trunc": lambda a: T.trunc(a),
    "Round": lambda a: T.nearbyint(a),
    "Erf": erf,
    "Tanh": tanh,
    "Sigmoid": sigmoid,
    "Swish": lambda a: a * sigmoid(a),
    "Relu": lambda a: T.max(a, constant(0.0)),
    "ThresholdedRelu": lambda a, limit: T.Select(a > limit, a, constant(0.0)),
    "Gelu": gelu,
    "GeluTanh": gelu_tanh,
    "Identity": lambda a: a,
    "Ceil": lambda a: T.ceil(a),
    "Sign": lambda a: said(a > constant(0.0)) - said(a < constant(0.0)),
    "Equal": lambda a, b: said(a == b),
    "Greater": lambda a, b: said(a > b),
    "GreaterOrEqual": lambda a, b: said(a >= b),
    "Less": lambda a, b: said(a < b),
    "LessOrEqual": lambda a, b: said(a <= b),
    "And": lambda a, b: a * b,
    "Or": lambda a, b: T.max(a, b),
    "Not": lambda a: constant(1.0) - a,
    "Where": lambda condition, a, b: T.Select(holds(condition), a, b),
}


def emit(expression: Expression, load: Callable[[Load], Any], value: Callable[[int], Any]) -> Any:
    """The TIR form of an expression; ``load`` reads an operand, ``value`` is what the kernel computed.

    What occurs in several places is computed once.
    """
    known: dict[Expression, Any] = {}
    named: list[tuple[Any, Any]] = []

    def walk(node: Expression) -> Any:
        if isinstance(node, Literal):
            return made(node)
        if node not in known:
            found = made(node)
            known[node] = tirx.Var("x", found.ty)
            named.append((known[node], found))
        return known[node]

    def made(node: Expression) -> Any:
        match node:
            case Load():
                return load(node)
            case Apply("Pow", (base, Literal(2.0))):
                return walk(base) * walk(base)
            case Apply(op, args):
                return OPERATORS[op](*map(walk, args))
            case Literal(number):
                return constant(number)
            case Value(part):
                return value(part)

    result = walk(expression)
    for name, found in reversed(named):
        result = tirx.Let(name, found, result)
    return result
