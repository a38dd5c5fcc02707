"""What a design must keep to: budgets of a device (``tables/devices.toml``), and any measure at most or at least."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ...ir.errors import UserError
from ..labelled import unlabelled
from .measures import COLUMNS, MEASURES, Measure, meant


@dataclass(frozen=True)
class Limit:
    """``value`` is the most that a design may have of a measure, or the least if more is better."""

    measure: Measure
    value: float
    device: str = ""

    def excess(self, value: float) -> float:
        """By what share a design goes beyond it; not above 0 if it keeps to it."""
        cost, most = self.measure.cost(value), self.measure.cost(self.value)
        return (cost - most) / (abs(most) or 1.0)

    def __str__(self) -> str:
        unit = f" {self.measure.unit}" if self.measure.unit else ""
        whose = f", what a {self.device} has" if self.device else ""
        most = "least" if self.measure.maximised else "most"
        return f"{self.measure.column} of at {most} {self.value:,g}{unit}{whose}"


Limits = tuple[Limit, ...]


@cache
def devices() -> Mapping[str, Mapping[str, float]]:
    """What each FPGA has, by column."""
    text = files("fick.hwmodel").joinpath("tables", "devices.toml").read_text(encoding="utf-8")
    return unlabelled(tomllib.loads(text), "tables/devices.toml")[0]


def limits(given: Mapping[str, Any], where: str) -> Limits:
    """From a table of constraints. Raises UserError for a device or a measure that is not known, or no number."""
    found: list[Limit] = []
    for name, value in given.items():
        at = f"{where}: constraints.{name}"
        if name == "device":
            if not isinstance(value, str) or value not in devices():
                raise UserError(f"{at} is {value!r} but should be one of {', '.join(devices())}.")
            found += [Limit(COLUMNS[column], most, value) for column, most in devices()[value].items()]
            continue
        known = MEASURES | COLUMNS
        if name not in known:
            raise UserError(
                f"{at} is nothing that a design can be held to{meant(name, known)}; there are device, "
                f"{', '.join(COLUMNS)}."
            )
        if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
            raise UserError(
                f"{at} is {value!r} but should be a number, in {known[name].unit or 'its own unit'}."
            )
        found.append(Limit(known[name], value))
    return tuple(found)
