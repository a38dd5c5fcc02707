"""Budgets as they are written: ``latency=0.5x`` of the float program's, ``bytes=250MB``, or several with commas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..costs import UNITS, Cost

PREFIXES = {"": 1.0, "u": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}

FORM = re.compile(r"(?P<quantity>\w+)=(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)(?P<unit>[A-Za-z]+)")


@dataclass(frozen=True)
class Limit:
    """At most ``amount`` of a quantity, in its unit, or in the float program's where ``relative``."""

    quantity: str
    amount: float
    relative: bool

    def of(self, cost: Cost) -> float:
        """In the quantity's unit, ``cost`` being the float program's."""
        return self.amount * cost.total(self.quantity) if self.relative else self.amount


def read(text: str) -> tuple[Limit, ...]:
    """Raises ValueError saying what would be right."""
    return tuple(_limit(part.strip()) for part in text.split(","))


def _limit(text: str) -> Limit:
    found = FORM.fullmatch(text)
    if found is None or found["quantity"] not in UNITS:
        raise ValueError(
            f"{text!r} should be latency=, bytes= or energy= and a number with its unit, such as latency=0.5x or "
            "bytes=250MB"
        )
    quantity, number, unit = found["quantity"], float(found["number"]), found["unit"]
    if unit == "x":
        return Limit(quantity, number, relative=True)
    prefix = unit.removesuffix(UNITS[quantity])
    if prefix == unit or prefix not in PREFIXES:
        raise ValueError(
            f"{text!r} should end with x or with a unit of {quantity}, such as M{UNITS[quantity]}"
        )
    return Limit(quantity, number * PREFIXES[prefix], relative=False)


def written(amount: float, quantity: str) -> str:
    """For people: three digits and a unit."""
    for prefix, factor in sorted(PREFIXES.items(), key=lambda item: -item[1]):
        if amount >= factor and prefix != "K":
            return f"{amount / factor:.3g} {prefix}{UNITS[quantity]}"
    return f"{amount:.3g} {UNITS[quantity]}"


def described(limits: Mapping[str, float]) -> str:
    return ", ".join(f"{quantity} {written(amount, quantity)}" for quantity, amount in limits.items())
