"""Every core that works tile by tile, against its reference in slow motion, and what must hold of all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.hwmodel.cores import core
from fick.hwmodel.fitting import Misfit
from fick.hwmodel.hardware import load
from fick.hwmodel.nonlinear import Task
from fick.hwmodel.specs import BitSlice, HybridSystolic, Tiled
from fick.hwmodel.tiled import TiledCore
from fick.ir.errors import UserError

from .cases import specs, tasks, with_values
from .tile_reference import BitSliceReference, Reference, TooSmall

REFERENCES = {"sda": Reference, "dbsc": BitSliceReference}


def shipped(name: str) -> Tiled:
    spec = load(name).spec
    assert isinstance(spec, Tiled)
    return spec


def machine_of(spec: Tiled) -> TiledCore:
    assert isinstance(spec, HybridSystolic | BitSlice)
    made = core(spec)
    assert isinstance(made, TiledCore)
    return made


@pytest.mark.parametrize("kind", ["product", "convolution", "vectors"])
@pytest.mark.parametrize("name", REFERENCES)
def test_every_unit_takes_as_long_as_cycle_by_cycle(name: str, kind: str) -> None:
    """Every way of cutting every task, those that fit no buffer included."""
    timed, reference = 0, REFERENCES[name]

    @settings(max_examples=200, deadline=None)
    @given(specs(shipped(name)), tasks(kind))
    def check(spec: Tiled, task: Task) -> None:
        nonlocal timed
        machine = machine_of(spec)
        choices, planned = machine.ways(task)
        for choice in choices:
            try:
                timing = machine.interface.time(planned(choice))
            except Misfit:
                with pytest.raises(TooSmall):
                    reference(spec, task, choice).cycles()
                continue
            if timing.cycles < 3000:  # The reference looks at every cycle.
                assert timing.cycles == reference(spec, task, choice).cycles()
                timed += 1

    check()
    assert timed >= 100


# What must hold whatever the numbers.

BUFFERS = {
    "product": ("matmul_activations", "matmul_weights", "shortcut", "vectors"),
    "convolution": ("convolution_weights", "lines", "shortcut", "vectors"),
    "vectors": ("vectors",),
}


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize("name", REFERENCES)
def test_a_larger_buffer_never_costs_more(name: str, kind: str) -> None:
    drawn = cheaper = 0

    # The buffer matters in few draws: there are more of them until it has in some.
    @settings(max_examples=1500, deadline=None, derandomize=True)
    @given(specs(shipped(name)), tasks(kind), st.sampled_from(BUFFERS[kind]), st.sampled_from((2, 8, 64)))
    def check(spec: Tiled, task: Task, buffer: str, times: int) -> None:
        nonlocal drawn, cheaper
        drawn += 1
        if drawn > 150 and cheaper >= 5:
            return
        larger = with_values(spec, **{f"buffers__{buffer}": times * getattr(spec.buffers, buffer)})
        try:
            before, after = (cost(one, task) for one in (spec, larger))
        except UserError:
            return
        assert after <= before
        cheaper += after < before

    check()
    assert cheaper >= 5


def cost(spec: Tiled, task: Task) -> float:
    """Of an operation and what may run behind it, together or apart, as the machine decides."""
    operations = [replace(task.operation, result=replace(task.operation.result, value="result"))]
    if task.behind:
        source = replace(task.behind.operands[0], value="result")
        operations.append(replace(task.behind, operands=(source,)))
    machine = machine_of(spec)
    return sum(machine.interface.cost(timing) for _, timing in machine.run(operations))
