"""Times that outlive a spec: another design is answered as if nothing had been timed before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from pydantic import ValidationError

from fick.hwmodel.bitslice import BitSliceCore
from fick.hwmodel.fitting import Misfit
from fick.hwmodel.hardware import load
from fick.hwmodel.nonlinear import Task
from fick.hwmodel.slices import Timings
from fick.hwmodel.specs import BitSlice, HybridSystolic, Tiled
from fick.hwmodel.systolic import HybridSA
from fick.ir.errors import UserError

from .cases import specs, tasks, with_values
from .test_tiled import BUFFERS


def numbers(tree: dict[str, Any], table: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a spec by dotted path, dots written as two underscores."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{table}{name}__")
        elif isinstance(value, int | float):
            yield table + name, value


def designs(spec: Tiled) -> Iterator[tuple[str, Tiled]]:
    """Those that differ in one number, or in the port of a stream, and where."""
    changes: list[tuple[str, Any]] = [
        (path, type(value)(value * factor))
        for path, value in numbers(spec.model_dump())
        for factor in (1 / 16, 4)
    ]
    changes += [(f"memory__streams__{stream}__port", "x") for stream in spec.memory.streams.model_dump()]
    for path, value in changes:
        try:
            yield path, with_values(spec, **{path: value})
        except ValidationError:
            continue


def outcome(spec: Tiled, task: Task, timings: Timings) -> tuple[Any, ...] | str:
    assert isinstance(spec, HybridSystolic | BitSlice)
    machine = HybridSA(spec, timings) if isinstance(spec, HybridSystolic) else BitSliceCore(spec, timings)
    try:
        timing = machine.time(task)
    except (Misfit, UserError) as error:
        return str(error)
    return timing.cycles, timing.busy, timing.ema_bytes, timing.actions


@pytest.mark.parametrize("kind", ["product", "convolution", "vectors"])
@pytest.mark.parametrize("name", ["sda", "dbsc"])
def test_a_design_is_timed_as_if_it_were_the_first(name: str, kind: str) -> None:
    drawn, mattered = 0, set[str]()
    # All buffers of the kind, and what every task depends on.
    wanted = {f"buffers__{buffer}" for buffer in BUFFERS[kind]} | {"memory__port_bits"}
    shipped = load(name).spec
    assert isinstance(shipped, Tiled)

    # Some numbers matter in few draws: there are more of them until all have.
    @settings(max_examples=1000, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(specs(shipped), tasks(kind))
    def check(spec: Tiled, task: Task) -> None:
        nonlocal drawn
        drawn += 1
        if drawn > 12 and mattered >= wanted:
            return
        timings = Timings()
        first = outcome(spec, task, timings)
        for path, design in designs(spec):
            expected = outcome(design, task, Timings())
            assert outcome(design, task, timings) == expected, path
            if expected != first:
                mattered.add(path)

    check()
    assert mattered >= wanted
