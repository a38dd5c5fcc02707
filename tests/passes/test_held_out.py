"""What is judged is of other pictures than what was learned from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fick.passes.base import Arrays
from fick.passes.calls import pictures
from fick.passes.held_out import split

from . import small_unet

PROGRAM = small_unet.program()


def drawn(count: int, steps: int) -> list[Arrays]:
    """Picture by picture, each with a number of its own as its text, at timesteps that fall."""
    return [
        {"timestep": np.array([1.0 - step / steps], np.float32), "encoder_hidden_states": np.array(picture)}
        for picture in range(count)
        for step in range(steps)
    ]


def texts(calls: list[Arrays]) -> set[int]:
    return {int(one["encoder_hidden_states"]) for one in calls}


@given(
    count=st.integers(2, 12), steps=st.integers(2, 8), most=st.integers(2, 120), share=st.floats(0.05, 0.9)
)
def test_no_picture_is_on_both_sides(count: int, steps: int, most: int, share: float) -> None:
    calls = drawn(count, steps)
    assert pictures(PROGRAM, calls) == [picture for picture in range(count) for _ in range(steps)]
    learning, judging = split(PROGRAM, calls, most, share)
    assert learning and judging and len(learning) + len(judging) <= most
    assert not texts(learning) & texts(judging)
    if most >= len(calls):
        apart = min(max(1, round(count * share)), count - 1)
        assert len(texts(judging)) == apart


@given(steps=st.integers(2, 40), most=st.integers(2, 60), share=st.floats(0.05, 0.9))
def test_of_a_single_picture_neighbours_are_apart(steps: int, most: int, share: float) -> None:
    learning, judging = split(PROGRAM, drawn(1, steps), most, share)
    assert len(learning) + len(judging) == min(most, steps) and learning and judging


def test_of_a_single_call_both_are_that_one() -> None:
    (call,) = drawn(1, 1)
    assert split(PROGRAM, [call], 8, 0.5) == ([call], [call])
