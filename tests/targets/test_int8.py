"""Sums of products of int8 numbers against int64 NumPy, exactly, over drawn shapes, with every instruction for them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fick.targets import profile as profiles
from fick.targets.cpu.contraction import Contraction, choose_tile, panel_starts
from fick.targets.cpu.dots import DOTS
from fick.targets.expressions import Apply, Load, Value
from fick.targets.packing import Panels, Quads

from .kernels import ARM, Host
from .test_kernels import few

HERE = [Host(one) for one in profiles.fitting()]
WAYS = [(machine, dot) for machine in HERE for dot in (machine.profile.int8_dot, "shifts", None)]
WAYS += [(machine, machine.profile.int8_dot) for machine in ARM]


def integers(seed: int, *shape: int) -> np.ndarray:
    """All of int8's numbers, its ends often."""
    drawn = np.random.default_rng(seed).integers(-160, 160, shape)
    return np.clip(drawn, -128, 127).astype(np.int8)


@few
@given(
    st.sampled_from(WAYS), st.integers(1, 40), st.integers(1, 70), st.integers(1, 40), st.integers(0, 1),
    st.integers(1, 3), st.integers(1, 2),
)  # fmt: skip
def test_matrix_product(way, rows, columns, words, splits, blocks, parts):
    machine, dot = way
    depth = 4 * words if dot else words
    a, b = integers(1, rows, depth), integers(2, columns * parts, depth)
    tile = choose_tile(rows, columns, parts, machine.profile, DOTS[dot].held if dot else 1)
    panels = {
        "order": (0, 1),
        "width": tile.width,
        "starts": panel_starts(columns, tile.width // parts),
        "parts": parts,
    }
    packed = Quads(**panels, bias=DOTS[dot].bias).pack(b) if dot else Panels(**panels).pack(b)
    first = 4 if splits else 3
    halves = Value() if parts == 1 else Apply("Sub", (Value(0), Value(1)))
    kernel = Contraction(
        dtypes=(*("int8", "int8", "float32", "int32")[:first], "float32"),
        rows=(rows,), a_rows=(words,), reduce=(words, 1) if splits else (words,),
        a_reduce=(1, 1) if splits else (1,), columns=columns, parts=parts, tile=tile, out_strides=(columns, 1),
        epilogue=Apply("Mul", (halves, Load(first, (0, 1)))), splits=splits, blocks=min(blocks, rows), pieces=1,
        dot=dot,
    )  # fmt: skip
    out = np.full((rows, columns), np.nan, np.float32)
    scale = np.exp2(np.arange(columns) % 7 - 3).astype(np.float32)
    scratch = [np.zeros(max(kernel.scratch_floats, 1), np.int32)] if splits else []
    machine.run(kernel, a, packed, out, *scratch, scale)
    sums = a.astype(np.int64) @ b.astype(np.int64).T
    assert np.abs(sums).max() < 2**24
    wanted = sums if parts == 1 else sums[:, :columns] - sums[:, columns:]
    np.testing.assert_array_equal(out, wanted * scale)
