"""Drawn machines and tasks: a few multipliers, buffers that hold a little, operations of a few elements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st

from fick.hwmodel.nonlinear import Task
from fick.hwmodel.specs import Accelerator, Tiled
from fick.hwmodel.workload import (
    Bounds,
    Convolution,
    Fused,
    Gemm,
    Kind,
    Operand,
    Operation,
    TensorClass,
    Vectors,
)

S = TypeVar("S", bound=Accelerator)


def with_values(spec: S, **values: Any) -> S:
    """The spec with other values by dotted path, dots written as two underscores."""
    tree = spec.model_dump()
    for path, value in values.items():
        *tables, field = path.split("__")
        node = tree
        for table in tables:
            node = node[table]
        node[field] = value
    return type(spec).model_validate(tree)


def operand(elements: int, bits: int, tensor_class: TensorClass = TensorClass.ACTIVATIONS) -> Operand:
    return Operand("", elements, bits, tensor_class)


def operation(
    bounds: Bounds, kind: Kind = Kind.MATMUL, bits: tuple[int, int, int] = (8, 4, 8), **fields: Any
) -> Operation:
    """An operation with the operands that its bounds imply."""
    first, second, out = bits
    if isinstance(bounds, Vectors):
        return Operation(
            "op", kind, bounds, (operand(bounds.elements, first),), operand(bounds.elements, out), **fields
        )
    gemm = bounds.as_gemm()
    read = gemm.batch * gemm.rows * gemm.reduction
    if isinstance(bounds, Convolution):
        read = bounds.batch * bounds.inputs * bounds.size[0] * bounds.size[1]
    stationary = operand(gemm.batch * gemm.reduction * gemm.columns, second, TensorClass.WEIGHTS)
    results = gemm.batch * gemm.rows * gemm.columns
    return Operation("op", kind, bounds, (operand(read, first), stationary), operand(results, out), **fields)


def scores_and_softmax(gemm: Gemm, readers: int = 1) -> Task:
    scores = operation(gemm, Kind.SCORES, bits=(8, 8, 8), readers=readers)
    vectors = Vectors(gemm.batch * gemm.rows, gemm.columns)
    return Task(scores, operation(vectors, Kind.SOFTMAX))


SMALL, SLICES = st.integers(1, 2), st.sampled_from((2, 4, 8))
LAYOUTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "hybrid-systolic": {
        "sub_array_rows": SMALL,
        "sub_array_columns": SMALL,
        "pe_rows": SMALL,
        "pe_columns": SMALL,
        "convolution_taps": st.integers(1, 3),
        "convolution_pixels": SMALL,
        "matmul_rows": SMALL,
        "matmul_columns": SMALL,
        "weight_slot_bits": st.sampled_from((2, 4)),
        "activation_slot_bits": SLICES,
    },
    "bit-slice": {
        "inputs": SMALL,
        "taps": st.integers(1, 3),
        "held": st.integers(1, 4),
        "streamed": st.integers(1, 3),
        "activation_slice_bits": st.sampled_from((3, 6)),
        "weight_slice_bits": SLICES,
    },
}
"""Small arrays of each kind."""


@st.composite
def specs(draw: st.DrawFn, shipped: Tiled) -> Tiled:
    """A machine of a few PEs with buffers that hold a little, and memory that may be too slow."""
    bits = st.integers(6, 12).map(lambda power: 2**power)
    layout = {f"array__{name}": draw(values) for name, values in LAYOUTS[str(shipped.kind)].items()}

    def stream(port: str) -> dict[str, Any]:
        useful = draw(st.integers(4, 120))
        return {"port": port, "useful_bits": useful, "carried_bits": useful + draw(st.integers(0, 20))}

    streams = {
        "activations": stream("a"),
        "matmul_weights": stream(draw(st.sampled_from("aw"))),
        "convolution_weights": stream(draw(st.sampled_from("aw"))),
        "shortcut": stream("s"),
        "output": stream(draw(st.sampled_from("ao"))),
    }
    return with_values(
        shipped,
        clock_hz=1e6,
        array__fill_cycles=draw(st.integers(0, 5)),
        array__strided_use=draw(st.sampled_from((0.3, 0.5, 1.0))),
        nonlinear__elements_per_cycle=draw(st.integers(1, 4)),
        buffers__matmul_activations=draw(bits),
        buffers__matmul_weights=draw(bits),
        buffers__convolution_weights=draw(bits) * 2,
        buffers__lines=draw(bits),
        buffers__shortcut=draw(bits),
        buffers__vectors=draw(bits) * 2,
        memory__port_bits=draw(st.sampled_from((8, 16, 64))),
        memory__dram_bytes_per_s=draw(st.sampled_from((0.5e6, 1.7e6, 1e8))),
        memory__dram_latency_s=draw(st.sampled_from((0.0, 2.5e-6))),
        memory__streams=streams,
        **layout,
    )


@st.composite
def tasks(draw: st.DrawFn, kind: str) -> Task:
    widths = draw(st.tuples(st.sampled_from((3, 8)), st.sampled_from((4, 5, 8)), st.sampled_from((6, 8))))
    size = st.integers(1, 9)
    fields: dict[str, Any] = {"readers": draw(st.integers(1, 2))}
    if kind == "vectors":
        what = draw(
            st.sampled_from(
                (Kind.NORMALISATION, Kind.SOFTMAX, Kind.ACTIVATION, Kind.ELEMENTWISE, Kind.MOVEMENT)
            )
        )
        vectors = operation(Vectors(draw(size), draw(st.integers(1, 40))), what, widths)
        return Task(replace(vectors, fused=tuple(draw(fused_work(vectors)))))
    if kind == "product":
        bounds = Gemm(draw(st.integers(1, 2)), draw(st.integers(1, 20)), draw(size), draw(size))
        made = operation(bounds, Kind.MATMUL, widths, **fields)
        if draw(st.booleans()):  # A gate: half of the results are kept.
            made = replace(made, result=replace(made.result, elements=-(-made.result.elements // 2)))
            return Task(replace(made, fused=(Fused("gelu"), Fused("mul"))))
        behind = operation(Vectors(bounds.batch * bounds.rows, bounds.columns), Kind.NORMALISATION, widths)
    else:
        groups, stride = draw(st.sampled_from((1, 1, 2))), draw(st.integers(1, 2))
        kernel, channels, rows, columns = (
            draw(st.sampled_from((1, 2, 3, 5))),
            draw(st.integers(1, 4)),
            draw(st.integers(1, 5)),
            draw(st.integers(1, 5)),
        )
        padding = draw(st.integers(0, kernel // 2))
        height = max(1, (rows - 1) * stride + kernel - 2 * padding)
        bounds = Convolution(
            draw(st.integers(1, 2)), 2 * channels * groups, draw(st.integers(1, 4)) * groups,
            rows, columns, (height, columns * stride), (kernel, kernel), (stride, stride), groups,
        )  # fmt: skip
        made = operation(bounds, Kind.CONVOLUTION, widths, **fields)
        sets = draw(st.sampled_from([n for n in range(1, 2 * channels + 1) if 2 * channels % n == 0]))
        picture = rows * columns
        behind = operation(
            Vectors(bounds.batch * sets * groups, 2 * channels // sets * picture), Kind.NORMALISATION, widths
        )
        if groups > 1 or bounds.kernel == (1, 1):
            behind = None
    made = replace(made, fused=tuple(draw(fused_work(made))))
    return Task(made, behind if draw(st.booleans()) else None)


@st.composite
def fused_work(draw: st.DrawFn, of: Operation) -> list[Fused]:
    elements = of.result.elements
    options = [
        Fused("bias", operand(max(1, elements // 7), 4, TensorClass.WEIGHTS)),
        Fused("timestep add", operand(max(1, elements // 5), 8)),
        Fused("residual", operand(elements, 8)),
        Fused("silu"),
    ]
    return draw(st.lists(st.sampled_from(options), max_size=3, unique=True))
