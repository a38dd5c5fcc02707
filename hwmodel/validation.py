"""The model against the literature: every published figure, what the model says, and what that is worth.

The figures are data (``tables/published.toml``); a measure here says how the model arrives at each. A headline that
rests on constants that nobody published shows how it moves if each of them is a quarter off.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from ..ir.errors import UserError
from ..ir.program import Program
from .area import resources
from .array import Dataflow, folds
from .cores import core
from .energy import Joules, Meter
from .estimate import rows
from .extract import extract
from .hardware import Hardware, load
from .memory import ARRAY, Timing
from .specs import BitSlice, Table
from .synthetic import operation, square
from .tiled import TiledCore
from .workload import Gemm, TensorClass, Workload, moved_once

Role = Literal["prediction", "calibration", "input", "measured"]

OFF = 0.25
"""How far off an assumed constant may be: the sensitivity of a figure is how it moves then."""


Moves = tuple[float | None, float | None]
"""Relative change of a figure with a constant so much smaller and so much larger; None if it cannot be that."""


class Figure(Table):
    """A published figure."""

    number: str = Field(description="Its number in the reference table.")
    what: str = Field(description="What was reported, of what.")
    measure: str = Field(description="How the model arrives at it: a name in MEASURES.")
    arguments: dict[str, Any] = Field(description="Of the measure.")
    reported: float = Field(description="Published value, in the unit.")
    unit: str = Field(description="Unit; empty for a share.")
    aim: float | None = Field(default=None, description="Largest error; none if it is only shown.")
    points: bool = Field(default=False, description="Whether the error is a difference rather than a ratio.")
    role: Role = Field(description="What the comparison is worth.")
    headline: bool = Field(default=False, description="Whether to show what it rests on.")
    note: str = Field(default="", description="Why.")


@dataclass(frozen=True)
class Row:
    """A figure beside the model's, and how that moves with each assumed constant, by dotted path."""

    figure: Figure
    modelled: float
    sensitivity: Mapping[str, Moves]

    @property
    def error(self) -> float:
        """Relative, or the difference where the figure is a share."""
        difference = self.modelled - self.figure.reported
        return difference if self.figure.points else difference / self.figure.reported

    @property
    def held(self) -> bool:
        """Whether the error is within the aim."""
        return self.figure.aim is None or abs(self.error) <= self.figure.aim

    def shown(self) -> dict[str, str]:
        """As a line of a table: number, what, reported, modelled, error, aim, whether it is held, and its role."""
        figure = self.figure

        def size(error: float, form: str) -> str:
            return f"{100 * error:{form}}" + (" pts" if figure.points else "%")

        return {
            "number": figure.number,
            "figure": figure.what,
            "reported": f"{figure.reported:,.5g} {figure.unit}".strip(),
            "modelled": f"{self.modelled:,.5g}",
            "error": size(self.error, "+.2f"),
            "aim": "-" if figure.aim is None else "exact" if figure.aim == 0 else size(figure.aim, "g"),
            "held": "-" if figure.aim is None else "yes" if self.held else "NO",
            "role": figure.role,
        }

    def ranked(self) -> list[tuple[str, Moves]]:
        """What it is sensitive to, most of all first."""

        def most(moves: Moves) -> float:
            return max(abs(move) for move in moves if move is not None)

        return sorted(self.sensitivity.items(), key=lambda item: -most(item[1]))

    def facts(self) -> dict[str, Any]:
        """Ready for JSON. ``sensitivity`` has the relative moves with a constant 25 % smaller and larger."""
        return {
            **self.figure.model_dump(exclude={"measure", "arguments", "headline"}),
            "modelled": self.modelled,
            "error": self.error,
            "held": self.held,
            "sensitivity": {path: list(moves) for path, moves in self.sensitivity.items()},
        }


@cache
def figures() -> tuple[Figure, ...]:
    """All published figures."""
    text = files("fick.hwmodel").joinpath("tables", "published.toml").read_text(encoding="utf-8")
    return tuple(Figure.model_validate(one) for one in tomllib.loads(text)["figure"])


def models() -> list[str]:
    """Names of the models that figures are about."""
    return sorted({figure.arguments["model"] for figure in figures() if "model" in figure.arguments})


def validate(
    programs: Mapping[str, Program],
    with_sensitivity: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """A row for every figure. ``programs`` are the fused programs of ``models()`` by name.

    Asked for their sensitivity, the headlines are computed twice for each assumed constant, half a minute in all;
    ``progress`` is told how many of how many constants are done.
    """
    made = [Row(figure, _evaluate(figure, programs, _hardware(figure)), {}) for figure in figures()]
    if not with_sensitivity:
        return made
    rests = {row.figure.number: _assumed(row.figure) for row in made if row.figure.headline}
    total, done = sum(map(len, rests.values())), 0

    def counted(paths: Iterable[str]) -> Iterator[str]:
        nonlocal done
        for path in paths:
            yield path
            done += 1
            progress(done, total)

    return [
        replace(row, sensitivity=sensitivity(row.figure, programs, counted(rests.get(row.figure.number, []))))
        for row in made
    ]


def sensitivity(
    figure: Figure, programs: Mapping[str, Program], paths: Iterable[str] | None = None
) -> dict[str, Moves]:
    """How a figure moves with each assumed constant of its hardware, or with those at some dotted paths."""
    hardware = _hardware(figure)
    if hardware is None:
        return {}
    modelled = _evaluate(figure, programs, hardware)
    found: dict[str, Moves] = {}
    for path in _assumed(figure) if paths is None else paths:
        low, high = (
            _moved(figure, programs, hardware.scaled(path, 1 + off), modelled) for off in (-OFF, OFF)
        )
        if (low, high) != (None, None):
            found[path] = low, high
    return found


def _moved(
    figure: Figure, programs: Mapping[str, Program], changed: Hardware | None, modelled: float
) -> float | None:
    if changed is None:
        return None
    try:
        return _evaluate(figure, programs, changed) / modelled - 1
    except UserError:  # Such a machine does not run the model at all.
        return None


def _assumed(figure: Figure) -> list[str]:
    hardware = _hardware(figure)
    return hardware.assumed() if hardware is not None else []


def _hardware(figure: Figure) -> Hardware | None:
    name = figure.arguments.get("hardware")
    return load(name) if name else None


def _evaluate(figure: Figure, programs: Mapping[str, Program], hardware: Hardware | None) -> float:
    arguments: dict[str, Any] = dict(figure.arguments)
    if hardware is not None:
        arguments["hardware"] = hardware
    if "model" in arguments:
        native = (hardware or load("sda")).spec.bits
        arguments["model"] = extract(programs[arguments["model"]], native)
    return MEASURES[figure.measure](**arguments)


def _image_latency_s(model: Workload, hardware: Hardware, steps: int) -> float:
    runs = model.runs(steps)
    made = rows(model, hardware)
    cycles = sum(runs[name] * row.cost.cycles for name, tasks in made.items() for row in tasks)
    return cycles / hardware.spec.clock_hz


def _speedup(model: Workload, hardware: Hardware, steps: int, rival_s: float) -> float:
    return rival_s / _image_latency_s(model, hardware, steps)


def _timed(
    hardware: Hardware,
    gemm: list[int] | None = None,
    convolution: list[int] | None = None,
    bits: list[int] | None = None,
) -> Timing:
    native = hardware.spec.bits
    bounds = Gemm(*gemm) if gemm else square(*(convolution or []))
    widths = bits or [native.activations, native.weights, native.activations]
    ((_, timing),) = core(hardware.spec).run([operation(bounds, widths)])
    return timing


def _array_cycles(hardware: Hardware, **shape: Any) -> float:
    machine = core(hardware.spec)
    assert isinstance(machine, TiledCore)
    return _timed(hardware, **shape).busy[ARRAY] - machine.fill_cycles


def _gmac(model: Workload) -> float:
    return sum(map(model.macs, model.variants)) / 1e9


def _parameters_m(model: Workload) -> float:
    """Weights that the program reads and did not make of other weights itself."""
    operations = [one for variant in model.variants.values() for one in variant]
    made = {one.result.value for one in operations}
    read = {operand.value: operand for one in operations for operand in one.read()}
    weights = (operand for operand in read.values() if operand.tensor_class is TensorClass.WEIGHTS)
    return sum(operand.elements for operand in weights if operand.value not in made) / 1e6


def _peak_macs_per_s(spec: BitSlice) -> float:
    array = spec.array
    return array.inputs * array.taps * array.held * array.streamed * spec.clock_hz


def _energy_at_peak_mj(model: Workload, hardware: Hardware) -> float:
    spec = hardware.spec
    assert isinstance(spec, BitSlice)
    return spec.power_w * _gmac(model) * 1e9 / _peak_macs_per_s(spec) * 1e3


def _core_energy_mj(model: Workload, hardware: Hardware) -> float:
    return sum(row.cost.energy.core for row in rows(model, hardware)["full"])


def _energy(hardware: Hardware, timing: Timing) -> Joules:
    seconds = timing.cycles / hardware.spec.clock_hz
    return Meter(hardware.spec.energy, cores=hardware.spec.cores).price(timing.actions, 0, seconds)


def _full_rate_w(hardware: Hardware, **shape: Any) -> float:
    timing = _timed(hardware, **shape)
    return _energy(hardware, timing).core * 1e-3 / (timing.cycles / hardware.spec.clock_hz)


def _score_share(model: Workload, hardware: Hardware) -> float:
    moved = moved_once(model.variants["full"])
    return moved[TensorClass.SELF_SCORES] / sum(moved.values())


def _total_reduction(model: Workload, hardware: Hardware, score_reduction: float) -> float:
    return score_reduction * _score_share(model, hardware)


def _low_precision_gain(
    hardware: Hardware, gemm: list[int], share: float, low_bits: int, of: Literal["compute", "core"]
) -> float:
    """Products a joule of the array, or of the whole core, with a share of the rows at ``low_bits``, over none."""
    native = hardware.spec.bits
    high, low = (
        getattr(
            _energy(hardware, _timed(hardware, gemm=gemm, bits=[bits, native.weights, native.activations])),
            of,
        )
        for bits in (native.activations, low_bits)
    )
    return high / (share * low + (1 - share) * high) - 1


def _last_cycle(gemm: list[int], dataflow: Dataflow) -> float:
    return folds(Gemm(*gemm), 32, 32, dataflow).last_cycle


def _measured(algorithm: str, threshold: float, of: str) -> float:
    """What benchmarks/dbsc.py found of a pass over emoji-sd at one of its thresholds."""
    text = files("fick.hwmodel").joinpath("tables", "measured.toml").read_text(encoding="utf-8")
    (row,) = (row for row in tomllib.loads(text)[algorithm] if row["threshold"] == threshold)
    return float(row[of])


def _resource(hardware: Hardware, of: str, part: str | None = None) -> float:
    found = resources(hardware.spec)[of]
    return found[part] if part else sum(found.values())


MEASURES: dict[str, Callable[..., float]] = {
    "array_cycles": _array_cycles,
    "core_energy_mj": _core_energy_mj,
    "energy_at_peak_mj": _energy_at_peak_mj,
    "full_rate_w": _full_rate_w,
    "gmac": _gmac,
    "image_latency_s": _image_latency_s,
    "last_cycle": _last_cycle,
    "low_precision_gain": _low_precision_gain,
    "measured": _measured,
    "parameters_m": _parameters_m,
    "resource": _resource,
    "score_share": _score_share,
    "speedup": _speedup,
    "total_reduction": _total_reduction,
}
