"""How long a denoising step and an image take, what they cost, and why: a dictionary ready for JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ..ir.errors import UserError
from ..ir.program import Program
from ..ir.rates import Rate
from .area import resources
from .cores import chip
from .costs import Cost, Prices, total
from .extract import extract
from .hardware import Hardware
from .memory import ARRAY, STREAMING, VECTORS, Timing
from .nonlinear import Task
from .roofs import Roofs, dram_bytes_per_s
from .workload import Workload

UNITS = {ARRAY: "array", STREAMING: "nonlinear", VECTORS: "nonlinear"}
"""Unit of each stage on the chip; every other stage is a port of the memory."""


@dataclass(frozen=True)
class Row:
    """A task with its timing and what one run of it costs."""

    task: Task
    timing: Timing
    cost: Cost


def rows(workload: Workload, hardware: Hardware, dram: str | None = None) -> dict[str, list[Row]]:
    """Every task of every variant. ``dram`` names another table than the spec's.

    Raises UserError for an operand that the core does not multiply, a layer that no buffer holds, or a table that
    is not known.
    """
    machine, prices = chip(hardware.spec), Prices(hardware.spec, dram)
    return {
        name: [Row(task, timing, prices.of(task, timing)) for task, timing in machine.run(operations)]
        for name, operations in workload.variants.items()
    }


def estimate(
    model: Program | Workload, hardware: Hardware, steps: int, dram: str | None = None
) -> dict[str, Any]:
    """What an image of ``steps`` calls of the model costs on ``hardware``, ready for JSON.

    ``macs``, ``step_*``, ``ema_bytes``, ``stages`` and ``array_busy`` are those of the mean step; ``image_*`` count
    the prologue of the prompt as well. ``operators`` lists one run of each task and ``runs`` how often an image has
    it; where a normalisation or softmax runs behind another operator, ``behind`` names it and the two are one task.
    ``array_busy`` and ``busy_cycles`` are those of the core that has most to do, where there are several.
    ``bound`` is compute, nonlinear, bandwidth, fill or untimed; ``busy_cycles`` are those in which the busiest part
    of a unit works. Energies are in mJ, bytes cross the pins; ``step_static_mj`` is what is drawn whatever happens,
    a part of ``step_energy_mj``. ``peak_macs_per_s`` by mode and ``dram_bytes_per_s`` are the roofs; ``mode`` is
    the operator's. ``resources`` are those of the FPGA or the silicon, by part of the design.

    Raises UserError if ``steps`` is not positive, and as ``rows`` and ``extract`` do.
    """
    if steps < 1:
        raise UserError(f"an image of {steps} steps cannot be estimated; give 1 or more.")
    spec = hardware.spec
    workload = model if isinstance(model, Workload) else extract(model, spec.bits)
    made, runs = rows(workload, hardware, dram), workload.runs(steps)
    by_step = [name for name in made if runs[name] and workload.rates[name] is not Rate.PROMPT]
    by_stage: dict[str, list[tuple[Cost, float]]] = {}
    for name in by_step:
        for row in made[name]:
            stage = row.task.operation.stage or name
            by_stage.setdefault(stage, []).append((row.cost, runs[name] / steps))
    stages = {stage: total(costs) for stage, costs in by_stage.items()}
    step = total((cost, 1) for cost in stages.values())
    image = total((row.cost, runs[name]) for name, tasks in made.items() for row in tasks)
    roofs, peaks, operators = Roofs(spec), dict[str, float](), list[dict[str, Any]]()
    timed: dict[Timing, dict[str, Any]] = {}
    for name in (name for name in made if runs[name]):
        for row in made[name]:
            # Tasks that share a timing differ in their names alone.
            if row.timing not in timed:
                mode, peak = roofs.of(row.task.operation) or (None, 0.0)
                if mode:
                    peaks[mode] = peak
                timed[row.timing] = _timed(row.timing, row.cost) | {"mode": mode}
            operators.append(_described(row.task) | timed[row.timing] | {"variant": name, "runs": runs[name]})
    return {
        "model": workload.name,
        "hardware": spec.name,
        "steps": steps,
        "macs": round(step.macs),
        "step_cycles": round(step.cycles),
        "step_latency_s": step.cycles / spec.clock_hz,
        "image_latency_s": image.cycles / spec.clock_hz,
        "step_energy_mj": step.energy_mj,
        "step_static_mj": {
            "compute": spec.cores * spec.energy.compute_w * step.cycles / spec.clock_hz * 1e3,
            "sram": spec.cores * spec.energy.sram_w * step.cycles / spec.clock_hz * 1e3,
        },
        "image_energy_mj": image.energy_mj,
        "ema_bytes": step.ema_bytes,
        "array_busy": step.array_busy,
        "clock_hz": spec.clock_hz,
        "dram": dram or spec.energy.dram,
        "peak_macs_per_s": peaks,
        "dram_bytes_per_s": dram_bytes_per_s(spec),
        "resources": resources(spec),
        "assumed": hardware.assumed(),
        "stages": [{"stage": name} | cost.summary(spec.clock_hz) for name, cost in stages.items()],
        "operators": operators,
    }


def _described(task: Task) -> dict[str, Any]:
    operation = task.operation
    return {
        "name": operation.name,
        "behind": task.behind.name if task.behind else None,
        "kind": str(operation.kind),
        "stage": operation.stage,
        "shape": dict(_shape(operation.bounds)),
        "bits": [operand.bits for operand in (*operation.operands, operation.result)],
        "macs": operation.macs,
    }


def _timed(timing: Timing, cost: Cost) -> dict[str, Any]:
    return {
        "cycles": timing.cycles,
        "array_busy": cost.array_busy,
        "busy_cycles": _busy(timing),
        "bound": timing.bound,
        "energy_mj": cost.energy_mj,
        "ema_bytes": cost.ema_bytes,
    }


def _busy(timing: Timing) -> dict[str, float]:
    """Cycles of work by unit: stages of one unit work side by side, and the busiest of them speaks for it."""
    busy = {"array": 0.0, "nonlinear": 0.0, "memory": 0.0}
    for stage, cycles in timing.busy.items():
        unit = UNITS.get(stage, "memory")
        busy[unit] = max(busy[unit], float(cycles))
    return busy


def _shape(bounds: Any) -> Iterator[tuple[str, Any]]:
    for one in fields(bounds):
        value = getattr(bounds, one.name)
        yield one.name, list(value) if isinstance(value, tuple) else value
