"""The max-plus pipeline against a simulator that looks at every cycle, and against sums made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.hwmodel import pipeline
from fick.hwmodel.pipeline import Loop, Nest, Step, makespan, work

from . import matrices
from .reference import simulate

STAGES = ("load", "compute", "nonlinear", "store")
BUFFERS = ("in", "between", "out")
PING_PONG = dict.fromkeys(BUFFERS, 2)


def tile(*cycles: int) -> tuple[Step, ...]:
    """A tile through all four stages."""
    load, compute, nonlinear, store = cycles
    return (
        Step("load", load, claims=("in",), fills=("in",)),
        Step("compute", compute, takes=("in",), frees=("in",), claims=("between",), fills=("between",)),
        Step("nonlinear", nonlinear, takes=("between",), frees=("between",), claims=("out",), fills=("out",)),
        Step("store", store, takes=("out",), frees=("out",)),
    )


durations = st.tuples(*[st.integers(0, 9)] * 4)
depths = st.fixed_dictionaries({buffer: st.integers(1, 3) for buffer in BUFFERS})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), durations), max_size=4), depths)
def test_runs_of_tiles_take_as_long_as_cycle_by_cycle(
    phases: list[tuple[int, tuple[int, ...]]], slots: dict[str, int]
) -> None:
    nest = [Loop(count, tile(*cycles)) for count, cycles in phases]
    assert makespan(nest, slots) == simulate(nest, slots)


@st.composite
def blocks(draw: st.DrawFn) -> Nest:
    """A block of rows is loaded whole and held while its column tiles pass; a vector unit ends the block."""
    times = st.integers(0, 7)

    def block() -> tuple[Step | Loop, ...]:
        def column() -> tuple[Step, ...]:
            return (
                Step("weights", draw(times), claims=("panel",), fills=("panel",)),
                Step(
                    "compute",
                    draw(times),
                    takes=("rows", "panel"),
                    frees=("panel",),
                    claims=("between",),
                    fills=("between",),
                ),
                Step("nonlinear", draw(times), takes=("between",), frees=("between",)),
            )

        return (
            Step("load", draw(times), claims=("rows",), fills=("rows",)),
            Step("nonlinear", 0, claims=("vectors",)),
            Loop(draw(st.integers(1, 4)), column()),
            *column(),
            Step("compute", 0, takes=("rows",), frees=("rows",)),
            Step("nonlinear", 0, fills=("vectors",)),
            Step(
                "vectors",
                draw(times),
                takes=("vectors",),
                frees=("vectors",),
                claims=("out",),
                fills=("out",),
            ),
            Step("store", draw(times), takes=("out",), frees=("out",)),
        )

    return (Step("compute", draw(times)), Loop(draw(st.integers(1, 4)), block()), *block())


@settings(max_examples=200, deadline=None)
@given(blocks(), st.integers(1, 3), st.integers(1, 3))
def test_nests_of_blocks_take_as_long_as_cycle_by_cycle(nest: Nest, outer: int, inner: int) -> None:
    slots = {"rows": outer, "vectors": outer, "panel": inner, "between": inner, "out": 2}
    assert makespan(nest, slots) == simulate(nest, slots)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6), durations)
def test_equal_tiles_take_the_sum_once_and_the_longest_stage_for_each_other_tile(
    count: int, cycles: tuple[int, ...]
) -> None:
    nest = [Loop(count, tile(*cycles))]
    assert makespan(nest, PING_PONG) == sum(cycles) + (count - 1) * max(cycles)
    assert work(nest) == {(stage, ""): count * each for stage, each in zip(STAGES, cycles, strict=True)}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(990, 1010)] * 4), min_size=1, max_size=2), depths, st.integers(1, 10**5)
)
def test_stages_that_drift_apart_slowly_take_as_long_as_by_matrices(
    parts: list[tuple[int, ...]], slots: dict[str, int], count: int
) -> None:
    """Stages of almost equal pace take thousands of turns to fill the buffers between them."""
    nest = [Loop(count, tuple(step for cycles in parts for step in tile(*cycles))), *tile(1, 1, 1, 1)]
    assert makespan(nest, slots) == matrices.makespan(nest, slots)


def test_turns_that_drift_are_not_played_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    played = 0
    whole = pipeline._State.play

    def counted(state: Any, nest: Nest) -> None:
        nonlocal played
        played += 1
        whole(state, nest)

    monkeypatch.setattr(pipeline._State, "play", counted)
    slots = dict.fromkeys(BUFFERS, 40)
    assert makespan([Loop(10**6, tile(9999, 10000, 10001, 10002))], slots) == 10002 * 10**6 + 30000
    assert played < 1000  # Of a million.


def test_one_slot_makes_neighbours_take_turns() -> None:
    # Load and compute share a buffer of one slot: 3 + 5 for each tile, then nonlinear and store for the last.
    assert makespan([Loop(10, tile(3, 5, 1, 1))], dict.fromkeys(BUFFERS, 1)) == 10 * 8 + 2


def test_nothing_takes_no_time() -> None:
    assert makespan([], PING_PONG) == makespan([Loop(0, tile(1, 1, 1, 1))], PING_PONG) == 0


def test_a_loop_that_leaves_a_buffer_full_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="free as many slots"):
        makespan([Loop(3, (Step("load", 1, claims=("in",), fills=("in",)),))], PING_PONG)
