"""What designs are compared by: each measure with its unit, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ...ir.errors import UserError


@dataclass(frozen=True)
class Measure:
    """``name`` on the command line, ``column`` in tables; more is better if ``maximised``.

    Of an ``exact`` one nothing has to be timed.
    """

    name: str
    column: str
    unit: str
    description: str
    exact: bool = False
    maximised: bool = False

    def cost(self, value: float) -> float:
        """The same so that less is better."""
        return -value if self.maximised else value


MEASURES = {
    one.name: one
    for one in (
        Measure("latency", "step_latency_s", "s", "Of the mean step."),
        Measure("image_latency", "image_latency_s", "s", "Of an image, its prompt's prologue included."),
        Measure("energy", "step_energy_mj", "mJ", "Of the mean step, external accesses included."),
        Measure("core_energy", "core_energy_mj", "mJ", "Of the mean step, on the chip."),
        Measure("ema", "ema_bytes", "bytes", "Moved off the chip in the mean step."),
        Measure("power", "power_w", "W", "Energy on the chip by time, in the mean step."),
        Measure("dsp", "dsp", "DSPs", "Of an FPGA.", exact=True),
        Measure("bram", "bram36", "BRAM36", "Block RAMs of 36 Kbit of an FPGA.", exact=True),
        Measure("lut", "lut", "LUTs", "Of an FPGA.", exact=True),
        Measure("area", "area_mm2", "mm2", "Of silicon.", exact=True),
        Measure("quality", "quality", "", "Measured of the model's pictures.", exact=True, maximised=True),
    )
}
COLUMNS = {one.column: one for one in MEASURES.values()}


def measure(name: str) -> Measure:
    """By name or column. Raises UserError for one that is not known."""
    known = MEASURES | COLUMNS
    if name not in known:
        raise UserError(
            f"{name!r} is nothing that designs are compared by{meant(name, known)}; "
            f"there are {', '.join(MEASURES)}."
        )
    return known[name]


def objectives(text: str) -> tuple[Measure, ...]:
    """From names with commas between them. Raises UserError for an unknown, a repeated or no name."""
    found = [measure(part.strip()) for part in text.split(",") if part.strip()]
    if not found or len(set(found)) < len(found):
        raise UserError(
            f"--objectives {text!r} should name each of some of {', '.join(MEASURES)} once, with commas between them."
        )
    return tuple(found)


def meant(name: str, known: Iterable[str]) -> str:
    """Half a sentence with the nearest known name, if one is near."""
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
