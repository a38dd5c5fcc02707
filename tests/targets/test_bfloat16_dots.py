"""Products of bfloat16 numbers two at a time, and attention by them, against float64 NumPy over drawn shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.targets import profile as profiles
from fick.targets.cpu.contraction import Contraction
from fick.targets.cpu.dot_attention import DotAttention, PairedRows
from fick.targets.cpu.register_tiles import choose_tile, panel_starts
from fick.targets.cpu.worker import assembly
from fick.targets.expressions import Apply, Load, Value
from fick.targets.packing import WordPanels, bfloat16_words

from .kernels import ARM, Host
from .test_kernels import attended, few

MACHINES = [one for one in (*map(Host, profiles.fitting()), *ARM) if one.profile.bfloat16_dot]
INSTRUCTIONS = [profiles.load(name) for name in ("x86-64-v4-bf16", "cortex-x3")]


def kernel(profile, rows, columns, words, parts=1, splits=0, blocks=1):
    return Contraction(
        dtypes=("bfloat16", "bfloat16", "float32", *["float32"] * splits, "float32"),
        rows=(rows,), a_rows=(words,), reduce=(words, 1) if splits else (words,),
        a_reduce=(1, 1) if splits else (1,), columns=columns, parts=parts,
        tile=choose_tile(rows, columns, parts, profile), out_strides=(columns, 1),
        epilogue=Apply("Mul", (Value() if parts == 1 else Apply("Sub", (Value(0), Value(1))),
                               Load(3 + splits, (0, 1)))),
        splits=splits, blocks=min(blocks, rows), pieces=1, dot=profile.bfloat16_dot,
    )  # fmt: skip


@few
@given(
    st.sampled_from(MACHINES), st.integers(1, 40), st.integers(1, 70), st.integers(1, 40), st.integers(0, 1),
    st.integers(1, 3), st.integers(1, 2),
)  # fmt: skip
def test_matrix_product(machine, rows, columns, words, splits, blocks, parts):
    draw = np.random.default_rng(words)
    a, b = (
        bfloat16_words(draw.standard_normal((count, 2 * words)).astype(np.float32))
        for count in (rows, columns * parts)
    )
    made = kernel(machine.profile, rows, columns, words, parts, splits, blocks)
    starts = panel_starts(columns, made.tile.width // parts)
    packing = WordPanels(
        order=(0, 1), width=made.tile.width, starts=starts, parts=parts, format="bfloat16", together=2
    )
    out = np.full((rows, columns), np.nan, np.float32)
    scale = np.exp2(np.arange(columns) % 7 - 3).astype(np.float32)
    scratch = [np.zeros(max(made.scratch_floats, 1), np.float32)] * splits
    left, right = wide(a), wide(b)
    machine.run(made, a, packing.pack(right.astype(np.float32)), out, *scratch, scale)
    sums, sizes = left @ right.T, np.abs(left) @ np.abs(right).T
    if parts == 2:
        sums, sizes = sums[:, :columns] - sums[:, columns:], sizes[:, :columns] + sizes[:, columns:]
    # Products are exact in float32; every addition rounds by at most a unit in the last place of what it gives.
    assert np.all(np.abs(out - sums * scale) <= 2 * words * parts * 2.0**-23 * sizes * scale)


def wide(words: np.ndarray) -> np.ndarray:
    return (words.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("profile", INSTRUCTIONS, ids=lambda one: one.name)
def test_the_instruction_is_used(profile: profiles.Profile) -> None:
    """Also where no machine at hand has it."""
    text = assembly(kernel(profile, 12, 64, 16), profile.llvm_target())
    assert text.count(f"\t{profile.bfloat16_dot}\t") >= 12
    assert "fick_bfloat16" not in text.replace(".globl", "")


@pytest.mark.parametrize("words", [16, 18, 17])
def test_bfdot_takes_left_words_from_lanes(words: int) -> None:
    """And none is copied to every lane first, whether four are loaded together or two; a word by itself is loaded so."""
    profile = profiles.processor("cortex-x3")
    lines = assembly(kernel(profile, 64, 64, words), profile.llvm_target()).splitlines()
    products = [line for line in lines if line.startswith("\tbfdot\t")]
    assert len(products) >= 16 and all(("2h[" in line) == (words % 2 == 0) for line in products)
    assert not any("dup" in line for line in lines)


@few
@given(
    st.sampled_from(MACHINES), st.integers(1, 3), st.integers(1, 90), st.integers(1, 24), st.integers(1, 40),
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_attention(machine, runs, keys, pairs, width, heads, vectors, rows, blocks, causal):
    """Heads lie side by side, as projections leave them. To what rounding weights to eight bits costs, in the sum of
    weighted values and in that of weights."""
    draw, lanes = np.random.default_rng(keys), machine.profile.vector_lanes
    tile = vectors * lanes
    queries, depth, together = runs * tile, 2 * pairs, rows * (1 + rows % 2)

    def drawn(tokens: int, channels: int) -> np.ndarray:
        return bfloat16_words(draw.standard_normal((1, tokens, heads, channels)).astype(np.float32))

    def strides(tokens: int, channels: int) -> tuple[int, ...]:
        return tokens * heads * channels, channels, heads * channels, 1

    q, k, v = drawn(queries, depth), drawn(keys, depth), drawn(keys, width)
    packing = PairedRows(("bfloat16", "int32"), (1, heads), keys, width, strides(keys, width), lanes)
    values = np.full((1, heads, packing.pairs, width), -1, np.int32)
    machine.run(packing, v, values)
    made = DotAttention(
        ("bfloat16", "bfloat16", "int32", "float32", "float32"), 1, heads, queries, keys, depth, width, depth**-0.5,
        strides(queries, depth), strides(keys, pairs),
        (values.size, packing.pairs * width, width, 1), strides(queries, width),
        tile=tile, rows=rows, channels=min(width, 5), block=together * -(-20 // together), blocks=blocks, lanes=lanes,
        by_lane=machine.profile.by_lane, causal=causal, instruction=machine.profile.bfloat16_dot,
    )  # fmt: skip
    out = np.full((1, queries, heads, width), np.nan, np.float32)
    machine.run(made, q, k, values, np.full(made.scratch_floats, np.nan, np.float32), out)
    wanted, sizes = (attended(wide(q), wide(k), one, causal=causal) for one in (wide(v), np.abs(wide(v))))
    assert np.all(np.abs(out - wanted) <= 2 * (2**-9 + 1e-4) * sizes)
