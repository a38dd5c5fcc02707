"""Budgets as they are written: ``latency=0.5x`` of the float program's, ``bytes=250MB``, or several with commas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from ..ir.errors import UserError
from .costs import UNITS, Cost

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


def _readable(text: str) -> str:
    read(text)
    return text


Budget = Annotated[str, AfterValidator(_readable)]
"""As a pass is told it: text that ``read`` takes."""


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


def amounts(limits: Iterable[Limit], plain: Cost, wanted_by: str) -> dict[str, float]:
    """Most of each quantity, ``plain`` being the float program's cost. Raises UserError for what that does not know."""
    found: dict[str, float] = {}
    for one in limits:
        if one.quantity not in plain.by_node:
            raise UserError(
                f"{wanted_by} has a budget of {one.quantity}, and what programs cost on this target is known in "
                f"{', '.join(plain.by_node)}."
            )
        found[one.quantity] = one.of(plain)
    return found


def described_beside(amounts: Mapping[str, float], plain: Cost) -> str:
    """For people: as ``described``, and of the float program's."""
    return ", ".join(
        f"{quantity} {written(amount, quantity)} ({amount / plain.total(quantity):.3g}x)"
        for quantity, amount in amounts.items()
    )


def compared(before: Cost, predicted: Mapping[str, float], after: Cost) -> dict[str, Any]:
    """For the history: what a program cost, was to cost and costs, by quantity."""
    return {
        name: {"before": before.total(name), "predicted": predicted[name], "after": after.total(name)}
        for name in after.by_node
    }
