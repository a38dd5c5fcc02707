"""The stream of pruned attention scores: what is written, what comes back, and how long it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.passes.pssa.codec import Layout, decode, encode, encoded_bits, prune, quantise


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, Layout]:
    """Softmax of drawn logits over a grid of lines x side pixels, quantised and pruned."""
    side, lines, bits = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 16))
    tokens = side * lines
    logits = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).standard_normal((tokens, tokens))
    weights = np.exp(logits * draw(st.sampled_from((0.1, 1.0, 5.0))))
    scores = quantise(weights / weights.sum(1, keepdims=True), bits)
    return prune(scores, draw(st.integers(0, 2**bits - 1))), Layout(side, bits)


@settings(max_examples=200, deadline=None)
@given(maps())
def test_what_is_encoded_comes_back_and_has_the_bits_that_are_counted(
    case: tuple[np.ndarray, Layout],
) -> None:
    scores, layout = case
    stream = encode(scores, layout)
    assert set(np.unique(stream)) <= {0, 1}
    assert len(stream) == encoded_bits(scores, layout)
    np.testing.assert_array_equal(decode(stream, len(scores), layout), scores)


def test_a_map_encoded_by_hand() -> None:
    """Four tokens, two pixels a line, values of 4 bits.

    The patches are [9 0; 0 9] and [0 0; 0 9] above, [0 9; 0 0] twice below. Each patch: flag, then 4 bits as a bitmap
    or 2 x 2 bits of counts and 1 bit for each one, so that only an empty patch is as short: bitmaps throughout. The
    exclusive ors are 1001, 1000; 0100, 0000: 4 x 5 bits and five values of 4 bits.
    """
    scores = np.array([[9, 0, 0, 0], [0, 9, 0, 9], [0, 9, 0, 9], [0, 0, 0, 0]], np.uint16)
    stream = encode(scores, Layout(2, 4))
    assert "".join(map(str, stream)) == "01001" + "01000" + "00100" + "00000" + "1001" * 5


def test_patches_that_look_alike_are_shorter_together_than_scattered() -> None:
    rng = np.random.default_rng(0)
    line = (rng.random((64, 8)) < 0.15).astype(np.uint16)
    alike = np.tile(line, (1, 8))
    scattered = rng.permuted(alike, axis=1)
    layout = Layout(8, 12)
    assert encoded_bits(alike, layout) < 0.9 * encoded_bits(scattered, layout)


def test_maps_are_counted_together() -> None:
    rng = np.random.default_rng(1)
    several = prune(rng.integers(0, 4096, (2, 3, 16, 16), dtype=np.uint16), 3000)
    layout = Layout(4, 12)
    assert encoded_bits(several, layout) == sum(
        len(encode(one, layout)) for one in several.reshape(-1, 16, 16)
    )


@settings(max_examples=200, deadline=None)
@given(maps(), st.data())
def test_a_damaged_stream_is_refused_or_is_a_map(
    case: tuple[np.ndarray, Layout], data: st.DataObject
) -> None:
    scores, layout = case
    stream = encode(scores, layout)
    place = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(ValueError):
        decode(stream[:place], len(scores), layout)
    stream[place] ^= 1
    try:
        read = decode(stream, len(scores), layout)
    except ValueError:
        return
    assert read.shape == scores.shape


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit in 4 bits"):
        encode(np.full((4, 4), 16, np.uint16), Layout(2, 4))
