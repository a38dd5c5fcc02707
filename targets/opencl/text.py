"""OpenCL C as text: what kernels read, compute and write, in vectors of one, two or four numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..expressions import Apply, Expression, Literal, Load

POINTED = {
    "float32": "float", "float16": "half", "bfloat16": "ushort", "int64": "long", "int32": "int", "int8": "char",
    "uint8": "uchar", "bool": "uchar",
}  # fmt: skip
"""What operands point at. Half is a format of storage alone, which needs no extension."""

PREAMBLE = """\
#define ARG(T, I) __global T *restrict p##I, const uint o##I
#define AT(T, I) p##I = (__global T *)((__global uchar *)p##I + o##I)
#define TEXTURE(I) __read_only image2d_t p##I, const uint o##I
#define GROUP(X, Y, Z) __attribute__((reqd_work_group_size(X, Y, Z)))
#if defined(FICK_PLAIN)
#elif defined(cl_khr_integer_dot_product)
#define DOT(A, B, SUM) (SUM + dot_4x8packed_ss_int(as_uint(A), as_uint(B)))
#elif defined(cl_arm_integer_dot_product_accumulate_int8)
#pragma OPENCL EXTENSION cl_arm_integer_dot_product_accumulate_int8 : enable
#define DOT(A, B, SUM) arm_dot_acc(A, B, SUM)
#elif defined(cl_arm_integer_dot_product_int8)
#pragma OPENCL EXTENSION cl_arm_integer_dot_product_int8 : enable
#define DOT(A, B, SUM) (SUM + arm_dot(A, B))
#endif
int dot4(char4 a, char4 b, int sum) {
#ifdef DOT
  return DOT(a, b, sum);
#else
  const int4 each = convert_int4(a) * convert_int4(b);
  return sum + each.s0 + each.s1 + each.s2 + each.s3;
#endif
}
#if defined(cl_khr_fp16) && !defined(FICK_PLAIN)
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define H4 half4
#define LOAD_H4(P, AT) vload4(0, P + AT)
#define TEXEL_H4(P, AT) read_imageh(P, AT)
#define ADD_H4(A, B, SUM) (A * B + SUM)
#else
#define H4 float4
#define LOAD_H4(P, AT) vload_half4(0, P + AT)
#define TEXEL_H4(P, AT) read_imagef(P, AT)
#ifdef FICK_ROUND_HALF
float4 to_half(float4 x) {
  ushort bits[4];
  vstore_half4_rte(x, 0, (half *)bits);
  return vload_half4(0, (half *)bits);
}
#define ADD_H4(A, B, SUM) to_half(to_half(A * B) + SUM)
#else
#define ADD_H4(A, B, SUM) (A * B + SUM)
#endif
#endif
ushort to_bf16(float x) {
  const uint bits = as_uint(x);
  return isnan(x) ? (ushort)0x7fc0 : (ushort)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
ushort2 to_bf162(float2 x) { return (ushort2)(to_bf16(x.s0), to_bf16(x.s1)); }
ushort4 to_bf164(float4 x) { return (ushort4)(to_bf162(x.lo), to_bf162(x.hi)); }
float gelu1(float x) { return 0.5f * x * (1.0f + erf(x * 0.70710678f)); }
float2 gelu2(float2 x) { return 0.5f * x * (1.0f + erf(x * 0.70710678f)); }
float4 gelu4(float4 x) { return 0.5f * x * (1.0f + erf(x * 0.70710678f)); }
"""

"""What all kernels may use. Without cl_khr_fp16, what is to be added up in half is added up in float, and to see what
half would make of it, FICK_ROUND_HALF rounds after every operation.
"""

OPERATORS = {
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{0} / {1}",
    "Pow": "pow({0}, {1})",
    "Max": "fmax({0}, {1})",
    "Min": "fmin({0}, {1})",
    "Neg": "-{0}",
    "Abs": "fabs({0})",
    "Reciprocal": "1.0f / {0}",
    "Sqrt": "sqrt({0})",
    "Exp": "exp({0})",
    "Log": "log({0})",
    "Sin": "sin({0})",
    "Cos": "cos({0})",
    "Floor": "floor({0})",
    "Round": "rint({0})",
    "Trunc": "trunc({0})",
    "Erf": "erf({0})",
    "Tanh": "tanh({0})",
    "Sigmoid": "1.0f / (1.0f + exp(-{0}))",
    "Swish": "{0} / (1.0f + exp(-{0}))",
    "Relu": "fmax({0}, 0.0f)",
    "ThresholdedRelu": "{0} > {1} ? {0} : 0.0f * {1}",
    "Gelu": "gelu{n}({0})",
    "GeluTanh": "0.5f * {0} * (1.0f + tanh(0.79788456f * ({0} + 0.044715f * {0} * {0} * {0})))",
    "Identity": "{0}",
    "Ceil": "ceil({0})",
    "Sign": "sign({0})",
    "Equal": "{0} == {1} ? {one} : {zero}",
    "Greater": "{0} > {1} ? {one} : {zero}",
    "GreaterOrEqual": "{0} >= {1} ? {one} : {zero}",
    "Less": "{0} < {1} ? {one} : {zero}",
    "LessOrEqual": "{0} <= {1} ? {one} : {zero}",
    "And": "{0} * {1}",
    "Or": "fmax({0}, {1})",
    "Not": "1.0f - {0}",
    "Where": "{0} != {zero} ? {1} : {2}",
}
"""Elementwise operators; every one of them takes vectors as it takes numbers."""


def kind(lanes: int, of: str = "float") -> str:
    return of if lanes == 1 else f"{of}{lanes}"


def number(value: float, lanes: int = 1) -> str:
    """A float32 constant, the same in each lane."""
    rounded = float(np.float32(value))
    text = f"{rounded!r}f" if math.isfinite(rounded) else ("NAN" if math.isnan(rounded) else "INFINITY")
    text = f"-{text}" if rounded == -math.inf else text
    return text if lanes == 1 else f"(float{lanes})({text})"


def flat(coordinates: Sequence[str], strides: Sequence[int]) -> str:
    """``sum(coordinate * stride)``, leaving out what is zero."""
    terms = [
        name if stride == 1 else f"{name} * {stride}"
        for name, stride in zip(coordinates, strides, strict=True)
        if stride
    ]
    return " + ".join(terms) or "0"


@dataclass
class Code:
    """The lines of a kernel whose operands are of ``dtypes``."""

    dtypes: Sequence[str]
    lines: list[str] = field(default_factory=list[str])
    depth: int = 1
    names: int = 0

    def add(self, line: str) -> None:
        self.lines.append("  " * self.depth + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.add(f"{head} {{")
        self.depth += 1
        yield
        self.depth -= 1
        self.add("}")

    def fresh(self) -> str:
        self.names += 1
        return f"t{self.names}"

    def unflatten(self, index: str, extents: Sequence[int], prefix: str) -> list[str]:
        """Coordinates of a row-major position, as new variables."""
        names = [f"{prefix}{axis}" for axis in range(len(extents))]
        step = math.prod(extents)
        for axis, (name, extent) in enumerate(zip(names, extents, strict=True)):
            step //= extent
            value = index if step == 1 else f"{index} / {step}"
            if axis:
                value = f"({value}) % {extent}" if step > 1 else f"{value} % {extent}"
            self.add(f"const int {name} = {value};")
        return names

    def load(self, operand: int, at: str, lanes: int = 1, stride: int = 1) -> str:
        """So many numbers of an operand from element ``at`` on, as floats."""
        dtype, pointer = self.dtypes[operand], f"p{operand}"
        if lanes > 1 and stride != 1:
            places = [at] if stride == 0 else [f"{at} + {lane * stride}" for lane in range(lanes)]
            return f"(float{lanes})({', '.join(self.load(operand, one) for one in places)})"
        if dtype == "float16":
            return f"vload_half{lanes}(0, {pointer} + {at})" if lanes > 1 else f"vload_half({at}, {pointer})"
        word = f"{pointer}[{at}]" if lanes == 1 else f"vload{lanes}(0, {pointer} + {at})"
        if dtype == "bfloat16":
            return f"as_{kind(lanes)}(convert_{kind(lanes, 'uint')}({word}) << 16)"
        return word if dtype == "float32" else f"convert_{kind(lanes)}({word})"

    def store(self, operand: int, value: str, at: str, lanes: int = 1, stride: int = 1) -> None:
        """Write floats in the format that the operand is stored in; whole numbers to one of integers."""
        if lanes > 1 and stride != 1:
            for lane in range(lanes):
                self.store(operand, f"{value}.s{lane}", f"{at} + {lane * stride}")
            return
        dtype, pointer = self.dtypes[operand], f"p{operand}"
        suffix = str(lanes) if lanes > 1 else ""
        if dtype == "float16":
            where = f"0, {pointer} + {at}" if lanes > 1 else f"{at}, {pointer}"
            self.add(f"vstore_half{suffix}_rte({value}, {where});")
            return
        if dtype == "bfloat16":
            value = f"to_bf16{suffix}({value})"
        elif dtype == "bool":
            flags = f"{value} != 0.0f ? {number(1, lanes)} : {number(0, lanes)}"
            value = f"convert_{kind(lanes, 'uchar')}({flags})"
        elif dtype != "float32":
            value = f"convert_{kind(lanes, POINTED[dtype])}({value})"
        if lanes == 1:
            self.add(f"{pointer}[{at}] = {value};")
        else:
            self.add(f"vstore{lanes}({value}, 0, {pointer} + {at});")

    def evaluate(
        self, expression: Expression, coordinates: Sequence[str], values: Sequence[str], lanes: int
    ) -> str:
        """An expression for ``lanes`` neighbours along the last coordinate, as a name or a constant.

        ``values[part]`` is what the kernel computed there. What occurs in several places is computed once.
        """
        known: dict[Expression, str] = {}

        def walk(node: Expression) -> str:
            if node not in known:
                known[node] = emit(node)
            return known[node]

        def bind(text: str) -> str:
            name = self.fresh()
            self.add(f"const {kind(lanes)} {name} = {text};")
            return name

        def emit(node: Expression) -> str:
            match node:
                case Literal(value):
                    return number(value, lanes)
                case Load(operand, strides):
                    return bind(self.load(operand, flat(coordinates, strides), lanes, strides[-1]))
                case Apply("Pow", (base, Literal(2.0))):
                    name = walk(base)
                    return bind(f"{name} * {name}")
                case Apply(op, args):
                    return bind(
                        OPERATORS[op].format(
                            *map(walk, args), n=lanes, one=number(1, lanes), zero=number(0, lanes)
                        )
                    )
                case _:
                    return values[node.part]

        return walk(expression)

    def reduce(
        self, operator: Callable[[str, str], str], items: int, room: str, value: str, result: str
    ) -> None:
        """``result`` = all work-items' ``value`` joined pairwise, by way of local memory ``room`` [items]."""
        self.add("barrier(CLK_LOCAL_MEM_FENCE);")
        self.add(f"{room}[item] = {value};")
        self.add("barrier(CLK_LOCAL_MEM_FENCE);")
        with self.block(f"for (int half_ = {items // 2}; half_ > 0; half_ >>= 1)"):
            self.add(
                f"if (item < half_) {room}[item] = {operator(f'{room}[item]', f'{room}[item + half_]')};"
            )
            self.add("barrier(CLK_LOCAL_MEM_FENCE);")
        self.add(f"const float {result} = {room}[0];")


def sum_of(lanes: int, name: str) -> str:
    """The sum of a vector's lanes."""
    return name if lanes == 1 else f"({' + '.join(f'{name}.s{lane}' for lane in range(lanes))})"


def largest_of(lanes: int, name: str) -> str:
    if lanes == 1:
        return name
    if lanes == 2:
        return f"fmax({name}.s0, {name}.s1)"
    return f"fmax(fmax({name}.s0, {name}.s1), fmax({name}.s2, {name}.s3))"


def lanes_for(extent: int, *strides: int, most: int = 4) -> int:
    """The widest vectors along an axis of this extent that all of ``strides`` read side by side or as one number."""
    if any(stride not in (0, 1) for stride in strides):
        return 1
    return next(lanes for lanes in (most, 2, 1) if extent % lanes == 0)
