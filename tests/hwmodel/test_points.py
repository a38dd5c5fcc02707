"""Design after design against an estimate from scratch: whatever part of a spec changes, the totals are the same, and
no less than their floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.hwmodel.estimate import estimate
from fick.hwmodel.hardware import Hardware, load, names
from fick.hwmodel.points import Points
from fick.hwmodel.specs import Tiled
from fick.hwmodel.workload import Operation, Workload
from fick.ir.errors import UserError
from fick.ir.rates import Rate

from .cases import specs, tasks

STEPS = 3
KINDS = ("product", "convolution", "vectors")
CHANGES = (
    ("clock_hz", 2),
    ("energy.node_nm", 0.5),
    ("nonlinear.elements_per_cycle", 2),
    ("buffers.vectors", 4),
    ("cores", 3),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Operations, some of them alike and some followed by what may run behind them, in a prompt and two variants."""

    def operations(variant: str) -> Iterator[Operation]:
        drawn = draw(st.lists(st.sampled_from(KINDS).flatmap(tasks), min_size=1, max_size=2))
        for place, task in enumerate(drawn):
            for turn in range(draw(st.integers(1, 2))):
                name = f"{variant} {place} {turn}"
                yield replace(task.operation, name=name, result=replace(task.operation.result, value=name))
                if task.behind:
                    read = replace(task.behind.operands[0], value=name)
                    written = replace(task.behind.result, value=f"behind {name}")
                    yield replace(task.behind, name=written.value, operands=(read,), result=written)

    rates = {"prompt": Rate.PROMPT, "full": Rate.SAMPLE, "cached": Rate.SAMPLE}
    variants = {name: tuple(operations(name)) for name in rates}
    return Workload("drawn", variants, rates, {STEPS: ("full", "cached", "full")})


def check(points: Points, workload: Workload, hardware: Hardware) -> bool:
    """Whole numbers are the same to the last digit, joules are sums in another order; whether there are any."""
    try:
        facts = estimate(workload, hardware, STEPS)
    except UserError as error:
        with pytest.raises(UserError) as raised:
            points.totals(hardware.spec)
        assert str(raised.value) == str(error)
        return False
    totals, clock_hz = points.totals(hardware.spec), hardware.spec.clock_hz
    assert totals.image.cycles / clock_hz == facts["image_latency_s"]
    assert totals.step.cycles / clock_hz == pytest.approx(facts["step_latency_s"], rel=1e-12)
    assert totals.step.macs == pytest.approx(facts["macs"], abs=0.5)
    assert totals.step.ema_bytes == pytest.approx(facts["ema_bytes"], abs=1)
    assert totals.step.energy_mj == pytest.approx(facts["step_energy_mj"], rel=1e-9)
    assert totals.image.energy_mj == pytest.approx(facts["image_energy_mj"], rel=1e-9)
    # Whatever its buffers, a design takes no less than its floor.
    least = points.least(hardware.spec)
    for floor, whole in ((least.step, totals.step), (least.image, totals.image)):
        assert floor.cycles <= whole.cycles * (1 + 1e-9)
        assert sum(floor.ema_bytes.values()) <= sum(whole.ema_bytes.values()) + len(whole.ema_bytes)
        assert floor.energy.core <= whole.energy.core * (1 + 1e-9)
        assert floor.energy.total <= whole.energy.total * (1 + 1e-9)
    return True


@pytest.mark.parametrize("name", ["sda", "dbsc"])
def test_totals_do_not_depend_on_the_designs_before(name: str) -> None:
    priced = 0
    shipped = load(name).spec
    assert isinstance(shipped, Tiled)

    @settings(max_examples=60, deadline=None)
    @given(workloads(), specs(shipped), st.integers(1, 3), st.lists(st.sampled_from(CHANGES), max_size=4))
    def run(workload: Workload, spec: Tiled, cores: int, changes: list[tuple[str, float]]) -> None:
        nonlocal priced
        points, hardware = Points(workload, STEPS), Hardware(spec.model_copy(update={"cores": cores}), {})
        for path, factor in [("clock_hz", 1), *changes]:
            priced += check(points, workload, hardware.scaled(path, factor) or hardware)

    run()
    assert priced >= 20


@pytest.mark.parametrize("name", names())
def test_totals_of_a_unet(workloads: dict[str, Workload], name: str) -> None:
    hardware, workload = load(name), workloads["bk-sdm-tiny"]
    points = Points(workload, STEPS)
    designs = [
        hardware,
        *(hardware.scaled(path, 2) for path in ("clock_hz", "bits.scores", "energy.node_nm", "cores")),
    ]
    assert all(check(points, workload, one) for one in designs if one)
