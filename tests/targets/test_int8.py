"""Sums of products of int8 numbers against int64 NumPy, exactly, over drawn shapes, with every instruction for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.targets import profile as profiles
from fick.targets.cpu.contraction import Contraction
from fick.targets.cpu.dots import DOTS
from fick.targets.cpu.lower_sums import Sums, plan
from fick.targets.cpu.register_tiles import Step, choose_tile, panel_starts
from fick.targets.cpu.worker import assembly
from fick.targets.expressions import Apply, Load, Value
from fick.targets.packing import Panels, WordPanels

from .kernels import ARM, Emulated, Host
from .test_kernels import few

HERE = [Host(one) for one in profiles.fitting()]
X3 = next(machine for machine in ARM if machine.profile.name == "cortex-x3")
WAYS = [(machine, dot) for machine in HERE for dot in (machine.profile.int8_dot, "shifts", None)]
WAYS += [(machine, machine.profile.int8_dot) for machine in ARM] + [(X3, "sdot")]


def integers(seed: int, *shape: int) -> np.ndarray:
    """All of int8's numbers, its ends often."""
    drawn = np.random.default_rng(seed).integers(-160, 160, shape)
    return np.clip(drawn, -128, 127).astype(np.int8)


def kernel(profile, dot, rows, columns, words, parts=1, splits=0, blocks=1):
    """Of as many rows as share a register, at least."""
    held, shared = (DOTS[dot].held, DOTS[dot].rows) if dot else (1, 1)
    first = 4 if splits else 3
    halves = Value() if parts == 1 else Apply("Sub", (Value(0), Value(1)))
    return Contraction(
        dtypes=(*("int8", "int8", "float32", "int32")[:first], "float32"),
        rows=(rows,), a_rows=(words,), reduce=(words, 1) if splits else (words,),
        a_reduce=(1, 1) if splits else (1,), columns=columns, parts=parts,
        tile=choose_tile(rows, columns, parts, profile, Step(held, shared=shared)), out_strides=(columns, 1),
        epilogue=Apply("Mul", (halves, Load(first, (0, 1)))), splits=splits, blocks=min(blocks, rows), pieces=1,
        dot=dot,
    )  # fmt: skip


def is_exact(way, rows, columns, words, splits, blocks, parts):
    machine, dot = way
    rows = max(rows, DOTS[dot].rows) if dot else rows
    depth = DOTS[dot].together * words if dot else words
    a, b = integers(1, rows, depth), integers(2, columns * parts, depth)
    made = kernel(machine.profile, dot, rows, columns, words, parts, splits, blocks)
    panels = {
        "order": (0, 1),
        "width": made.tile.width,
        "starts": panel_starts(columns, made.tile.width // parts),
        "parts": parts,
    }
    packing = Panels(**panels)
    if dot:
        packing = WordPanels(**panels, together=DOTS[dot].together, bias=DOTS[dot].bias)
    out = np.full((rows, columns), np.nan, np.float32)
    scale = np.exp2(np.arange(columns) % 7 - 3).astype(np.float32)
    scratch = [np.zeros(max(made.scratch_floats, 1), np.int32)] if splits else []
    machine.run(made, a, packing.pack(b), out, *scratch, scale)
    sums = a.astype(np.int64) @ b.astype(np.int64).T
    assert np.abs(sums).max() < 2**24
    wanted = sums if parts == 1 else sums[:, :columns] - sums[:, columns:]
    np.testing.assert_array_equal(out, wanted * scale)


shapes = (
    st.integers(1, 40), st.integers(1, 70), st.integers(1, 40), st.integers(0, 1), st.integers(1, 3),
    st.integers(1, 2),
)  # fmt: skip


@few
@given(st.sampled_from(WAYS), *shapes)
def test_matrix_product(way, rows, columns, words, splits, blocks, parts):
    is_exact(way, rows, columns, words, splits, blocks, parts)


@few
@given(*shapes)
def test_matrix_product_of_rows_by_two(rows, columns, words, splits, blocks, parts):
    """By the instruction for matrices, whose sums of two rows share registers."""
    is_exact((X3, "smmla"), rows, columns, words, splits, blocks, parts)


@pytest.mark.parametrize(
    ("name", "dot", "instruction"),
    [("cortex-x3", "smmla", "16b, v"), ("cortex-x3", "sdot", "4b["), ("cortex-a76", "sdot", "4b[")],
)
def test_the_instruction_is_used(name: str, dot: str, instruction: str) -> None:
    """By all products, and no factor is copied to every lane first."""
    profile = profiles.processor(name)
    lines = assembly(kernel(profile, dot, 64, 64, 16), profile.llvm_target()).splitlines()
    products = [line for line in lines if line.startswith(f"\t{dot}\t")]
    assert len(products) >= 32 and all(instruction in line for line in products)
    assert not any("dup" in line for line in lines)


def test_a_core_without_the_instruction_is_told_so() -> None:
    older = X3.profile.model_copy(update={"name": "cortex-a76", "requires": ("asimddp", "i8mm")})
    with pytest.raises(RuntimeError, match=r"fick_open: .*i8mm"):
        is_exact((Emulated(older), "smmla"), 4, 8, 2, 0, 1, 1)


@given(
    st.integers(1, 9), st.sampled_from([4, 6, 8, 12, 16, 20, 320]), st.sampled_from(["int8", "int4"]),
)  # fmt: skip
def test_what_does_not_fit_two_rows_of_eight(rows, depth, right):
    """Is left to dot products of four, and what does not fit those to products one by one."""
    sums = Sums((3, rows), (64 * depth, depth), (depth,), (1,), 40, 1, (64 * 40, 40, 1))
    made = plan(sums, (0, 1), ("int8", right), X3.profile).kernel(
        ("int8", "int8" if right == "int8" else "uint8", "float32"), Value()
    )
    assert isinstance(made, Contraction)
    whole = "smmla" if rows > 1 else "sdot"
    assert made.dot == {0: whole, 4: "sdot"}.get(depth % 8)
