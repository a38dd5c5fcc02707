"""Every OpenCL template against float64 NumPy over drawn shapes, through the C core that a phone runs.

Building a program takes PoCL a while, so that an example draws a case of each template and all of them are the calls
of one bundle. Tolerances are those of test_kernels.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fick
from fick.targets import profile as profiles
from fick.targets.compiled import Call, Operand, StateTensor
from fick.targets.expressions import Apply, Expression, Literal, Load, Value
from fick.targets.memory import aligned
from fick.targets.opencl.attention import Attention
from fick.targets.opencl.contraction import Contraction, Edge
from fick.targets.opencl.elementwise import Gather, Map, Pad
from fick.targets.opencl.kernel import Kernel
from fick.targets.opencl.norms import GroupNorm, RowNorm
from fick.targets.opencl.reduction import Reduction
from fick.targets.opencl.text import lanes_for

from .kernels import write_calls
from .test_kernels import REFERENCE, attended, noise, sum_tolerance

UNIT = 2.0**-24
Array = NDArray[np.generic]


@dataclass(frozen=True)
class Case:
    """``operands[out]`` is what the kernel writes, to be within ``tolerance`` of ``wanted``."""

    kernel: Kernel
    operands: list[Array]
    out: int
    wanted: Array
    tolerance: float | Array


@pytest.fixture(autouse=True, scope="module")
def own_builds(tmp_path_factory: pytest.TempPathFactory):
    """PoCL keeps what it builds; in the home folder that would outlive the tests. To optimise it takes four times as long
    as to build.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "pocl"))
        patch.setenv("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable")
        yield


def words(array: Array) -> NDArray[np.float32]:
    """The bytes of an array as numbers that a caller can give."""
    return np.frombuffer(array.tobytes() + bytes(-array.nbytes % 4), np.float32)


def check(cases: list[Case]) -> None:
    """Run them as the calls of one bundle, whose inputs and outputs all operands are."""
    tensors, calls, feeds, at = list[StateTensor](), list[Call](), dict[str, Array](), 0
    for number, case in enumerate(cases):
        places = list[Operand]()
        for index, array in enumerate(case.operands):
            name = f"p{number}_{index}"
            feeds[name] = words(array)
            tensors.append(StateTensor(name, "float32", feeds[name].shape, at, "sample"))
            places.append(Operand("state", at))
            at += aligned(array.nbytes)
        calls.append(Call(f"kernel{number}", tuple(places), f"case {number}"))
    named = {f"kernel{number}": case.kernel for number, case in enumerate(cases)}
    sources = {name: kernel.source(name).encode() for name, kernel in named.items()}
    launches = {name: kernel.launch for name, kernel in named.items()}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "kernels.fick"
        write_calls(path, profiles.load("opencl-host"), sources, calls, tensors, at, launches)
        with fick.load(path) as loaded:
            found = loaded.run(**feeds)
    for number, case in enumerate(cases):
        given = case.operands[case.out]
        got = found[f"p{number}_{case.out}"].view(given.dtype)[: given.size].reshape(given.shape)
        title = f"{type(case.kernel).__name__}: {case.kernel}"
        assert np.all(np.abs(got.astype(np.float64) - case.wanted) <= case.tolerance), title


Draw = Callable[[st.SearchStrategy[int]], int]


def product(draw: Draw) -> Case:
    rows, columns, depth, parts = (
        draw(st.integers(1, most)) for most in (40, 40, 40, 2)
    )  # fmt: skip
    a, b, bias = noise(1, rows, depth), noise(2, columns * parts, depth), noise(3, columns)
    lanes = lanes_for(columns, 1)
    panels = b.reshape(parts, columns, depth).transpose(2, 0, 1)
    gate: Expression = Value() if parts == 1 else Apply("Mul", (Value(0), Value(1)))
    kernel = Contraction(
        ("float32",) * 4, rows=(rows,), a_rows=(depth,), reduce=(depth,), a_reduce=(1,), columns=columns, parts=parts,
        width=columns, out_strides=(columns, 1), epilogue=Apply("Add", (gate, Load(3, (0, 1)))),
        tile=(draw(st.sampled_from([1, 2, 4])), lanes), work_group=64,
    )  # fmt: skip
    wanted = a.astype(np.float64) @ b.astype(np.float64).T
    if parts == 2:
        wanted = wanted[:, :columns] * wanted[:, columns:]
    tolerance = sum_tolerance(depth) * max(1.0, float(np.abs(wanted).max())) + 4 * UNIT
    out = np.full((rows, columns), np.nan, np.float32)
    return Case(kernel, [a, np.ascontiguousarray(panels), out, bias], 2, wanted + bias, tolerance)


def convolution(draw: Draw) -> Case:
    height, width, inputs, outputs = (draw(st.integers(3, most)) for most in (12, 12, 20, 20))
    stride, before, after = draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(0, 2))
    image, weight = noise(4, height, width, inputs), noise(5, outputs, inputs, 3, 3)
    size = [(one + before + after - 3) // stride + 1 for one in (height, width)]
    lanes, row = lanes_for(outputs, 1), width * inputs
    edge = Edge((height, width), (stride, stride), (1, 1), (before, before)) if before + after else None
    kernel = Contraction(
        ("float32",) * 3, rows=tuple(size), a_rows=(stride * row, stride * inputs), reduce=(3, 3, inputs),
        a_reduce=(row, inputs, 1), columns=outputs, parts=1, width=outputs, out_strides=(size[1] * outputs, outputs, 1),
        epilogue=Value(), tile=(draw(st.sampled_from([1, 4])), lanes), work_group=64, edge=edge,
    )  # fmt: skip
    framed = np.pad(image.astype(np.float64), ((before, after), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(0, 1))[::stride, ::stride]
    wanted = np.einsum("yxcij,ocij->yxo", windows, weight.astype(np.float64))
    out = np.full((*size, outputs), np.nan, np.float32)
    packed = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
    return Case(kernel, [image, packed, out], 2, wanted, sum_tolerance(9 * inputs))


def attention(draw: Draw) -> Case:
    batch, heads, queries, keys, depth = (draw(st.integers(1, most)) for most in (2, 3, 20, 70, 40))
    masked, causal = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    q, k, v = (noise(6 + i, batch, n, heads, depth) for i, n in enumerate((queries, keys, keys)))
    mask = [noise(16, batch, 1, queries, keys)] if masked else []

    def strides(tokens: int) -> tuple[int, ...]:
        return tokens * heads * depth, depth, heads * depth, 1

    kernel = Attention(
        ("float32",) * (4 + masked), batch=batch, heads=heads, queries=queries, keys=keys, depth=depth, value_depth=depth,
        scale=depth**-0.5, q_strides=strides(queries), k_strides=strides(keys), v_strides=strides(keys),
        out_strides=strides(queries), tile=draw(st.sampled_from([1, 8])), block=min(32, keys), items=64,
        causal=bool(causal), mask_strides=(queries * keys, 0, keys, 1) if masked else (),
    )  # fmt: skip
    wanted = attended(q, k, v, mask, causal)
    operands = [q, k, v, np.full_like(q, np.nan), *mask]
    return Case(kernel, operands, 3, wanted, 5 * sum_tolerance(depth + keys))


def group_norm(draw: Draw) -> Case:
    images, pixels, groups, size = (draw(st.integers(1, most)) for most in (2, 30, 4, 12))
    channels, mean = groups * size, draw(st.integers(0, 1000))
    x = noise(9, images, pixels, channels) + np.float32(mean)
    scale, bias = noise(10, channels), noise(11, channels)
    kernel = GroupNorm(
        ("float32",) * 4, images=images, pixels=(pixels,), channels=channels, groups=groups, epsilon=1e-5,
        x_strides=(pixels * channels, channels, 1), out_strides=(pixels * channels, channels, 1), epilogue=Value(),
    )  # fmt: skip
    grouped = x.astype(np.float64).reshape(images, pixels, groups, size)
    deviation = np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-5)
    normal = (grouped - grouped.mean((1, 3), keepdims=True)) / deviation
    wanted = normal.reshape(images, pixels, channels) * scale + bias
    tolerance = (1e-5 + 16 * UNIT * (mean + 4)) * max(1 / deviation.min(), 1) * 4
    return Case(kernel, [x, scale, bias, np.full_like(x, np.nan)], 3, wanted, float(tolerance))


def rows_of(draw: Draw, epsilon: float | None) -> Case:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 300))
    x = noise(12, rows, columns) * 3 + 5
    wide = x.astype(np.float64)
    kernel = RowNorm(
        ("float32",) * 2, rows=(rows,), columns=columns, x_strides=(columns, 1), out_strides=(columns, 1),
        epilogue=Value(), epsilon=epsilon,
    )  # fmt: skip
    if epsilon is None:
        powers = np.exp(wide - wide.max(-1, keepdims=True))
        wanted, tolerance = powers / powers.sum(-1, keepdims=True), 64 * UNIT
    else:
        deviation = np.sqrt(wide.var(-1, keepdims=True) + epsilon)
        wanted = (wide - wide.mean(-1, keepdims=True)) / deviation
        tolerance = float(256 * UNIT / deviation.min())
    return Case(kernel, [x, np.full_like(x, np.nan)], 1, wanted, tolerance)


def strided_map(draw: Draw) -> Case:
    """A transposed operand, one that is repeated, and a constant, stored in sixteen bits."""
    a, b, c = (draw(st.integers(1, most)) for most in (5, 6, 33))
    x, y = noise(14, b, a), noise(15, c)
    kernel = Map(
        ("float16", "float32", "float32"), (a, b, c), (b * c, c, 1),
        Apply("Max", (Apply("Sub", (Load(1, (1, a, 0)), Load(2, (0, 0, 1)))), Literal(-0.5))),
    )  # fmt: skip
    exact = np.maximum(x.T.astype(np.float32)[:, :, None] - y, np.float32(-0.5))
    return Case(kernel, [np.full((a, b, c), np.nan, np.float16), x, y], 0, exact.astype(np.float16), 0)


def frame(draw: Draw) -> Case:
    height, width, channels, top, left = (draw(st.integers(1, most)) for most in (5, 6, 19, 2, 2))
    x = noise(13, 2, height, width, channels)
    kernel = Pad(
        ("float32",) * 2, planes=2, height=height + top + 1, width=width + left, channels=channels,
        image=(height, width), before=(top, left),
        in_strides=(height * width * channels, width * channels, channels, 1),
    )  # fmt: skip
    wanted = np.pad(x, ((0, 0), (top, 1), (left, 0), (0, 0)))
    return Case(kernel, [np.full(wanted.shape, np.nan, np.float32), x], 0, wanted, 0)


def gather(draw: Draw) -> Case:
    count, rows, columns = (draw(st.integers(1, most)) for most in (9, 11, 19))
    chosen = np.random.default_rng(17).integers(-rows - 3, rows + 3, count)
    table = noise(18, rows, columns)
    kernel = Gather(("float32", "float32", "int64"), count, rows, columns, (columns, 1))
    held = np.clip(np.where(chosen < 0, chosen + rows, chosen), 0, rows - 1)
    return Case(kernel, [np.full((count, columns), np.nan, np.float32), table, chosen], 0, table[held], 0)


def reduction(draw: Draw) -> Case:
    """The largest of the sums of rows and turned columns."""
    rows, columns, depth = (draw(st.integers(1, most)) for most in (9, 21, 30))
    a, b = noise(24, rows, depth), noise(25, depth, columns)
    kernel = Reduction(
        ("float32",) * 3, extents=(rows, columns), out_strides=(columns, 1), reduce=(depth,), operator="Max",
        terms=(Apply("Add", (Load(1, (1, depth, 0)), Load(2, (columns, 0, 1)))),), epilogue=Value(),
    )  # fmt: skip
    wanted = (a[:, :, None] + b[None]).max(1)
    return Case(kernel, [np.full((rows, columns), np.nan, np.float32), a, b], 0, wanted, 0)


TEMPLATES: list[Callable[[Draw], Case]] = [
    product, convolution, attention, group_norm, lambda draw: rows_of(draw, None),
    lambda draw: rows_of(draw, 1e-5), strided_map, frame, gather, reduction,
]  # fmt: skip


@settings(max_examples=2, deadline=None)
@given(st.data())
def test_templates_agree_over_drawn_shapes(data: st.DataObject) -> None:
    check([template(data.draw) for template in TEMPLATES])


def test_mathematics() -> None:
    """Within 1e-6 of one, or of the value where that is larger, as on a processor."""
    cases = list[Case]()
    for op, exact in REFERENCE.items():
        x = np.linspace(-12, 12, 1001, dtype=np.float32)
        if op == "Sqrt":
            x = np.abs(x)
        kernel = Map(("float32",) * 2, (x.size,), (1,), Apply(op, (Load(1, (1,)),)))
        wanted = exact(x.astype(np.float64))
        tolerance = 1e-6 * np.maximum(np.abs(wanted), 1)
        cases.append(Case(kernel, [np.full_like(x, np.nan), x], 0, wanted, tolerance))
    check(cases)
