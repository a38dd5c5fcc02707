"""Joules: counts of actions times tables of costs. Bytes come first, since the tables for DRAM differ 18-fold.

The costs of ``tables/technology.toml`` hold at the node and supply where they were measured. Interpolated between
their points, the cost of

    a multiplication    grows with the product of both widths, straight through the origin
    an addition         grows with the width of the sum, straight through the origin
    an SRAM access      grows with the size of the bank by a power, as its points do on logarithmic axes

To another node and supply they scale as C V^2: the capacitance C of like structures with the feature length
(Dennard et al., JSSC 1974), so E' = E (node' / node) (supply' / supply)^2. Power that is drawn all the time, leakage
above all, comes in watts from the spec and counts by time.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from pydantic import Field, FiniteFloat

from ..ir.errors import UserError
from .actions import Actions
from .labelled import Provenance, unlabelled
from .specs import Energy, Table, quantity


class Technology(Table):
    """Costs of actions on the chip. Sources: tables/technology.toml."""

    node_nm: FiniteFloat = quantity("nm", "Process node where they were measured.")
    supply_v: FiniteFloat = quantity("volts", "Supply at which they were measured.")
    multiply_8_pj: FiniteFloat = quantity("pJ", "8 x 8-bit multiplication.", ge=0)
    multiply_32_pj: FiniteFloat = quantity("pJ", "32 x 32-bit multiplication.", ge=0)
    add_8_pj: FiniteFloat = quantity("pJ", "8-bit addition.", ge=0)
    add_16_pj: FiniteFloat = quantity("pJ", "16-bit addition.", ge=0)
    add_32_pj: FiniteFloat = quantity("pJ", "32-bit addition.", ge=0)
    sram_access_bits: int = quantity("bits", "Width of the SRAM accesses below.")
    sram_8k_pj: FiniteFloat = quantity("pJ", "Access to a bank of 8 KB.", ge=0)
    sram_32k_pj: FiniteFloat = quantity("pJ", "Access to a bank of 32 KB.", ge=0)
    sram_1m_pj: FiniteFloat = quantity("pJ", "Access to a bank of 1 MB.", ge=0)
    wire_pj_per_bit_mm: FiniteFloat = quantity("pJ per bit and mm", "A bit carried over a wire.", ge=0)
    element_multiplies: FiniteFloat = quantity(
        "16-bit multiply-accumulates", "An element through a stage of the nonlinear unit.", ge=0
    )

    def multiply_pj(self, first_bits: int, second_bits: int) -> float:
        return through_origin(
            first_bits * second_bits, {8 * 8: self.multiply_8_pj, 32 * 32: self.multiply_32_pj}
        )

    def add_pj(self, bits: int) -> float:
        return through_origin(bits, {8: self.add_8_pj, 16: self.add_16_pj, 32: self.add_32_pj})

    def sram_pj_per_bit(self, bank_bytes: int) -> float:
        points = {2**13: self.sram_8k_pj, 2**15: self.sram_32k_pj, 2**20: self.sram_1m_pj}
        if not all(points.values()):
            return 0.0
        (x0, y0), (x1, y1), (x2, y2) = ((math.log(size), math.log(cost)) for size, cost in points.items())
        slope = (y1 - y0) / (x1 - x0) if math.log(bank_bytes) <= x1 else (y2 - y1) / (x2 - x1)
        return math.exp(y1 + slope * (math.log(bank_bytes) - x1)) / self.sram_access_bits

    def scaled(self, pj: float, node_nm: float, supply_v: float) -> float:
        """A cost at another node and supply."""
        return pj * node_nm / self.node_nm * (supply_v / self.supply_v) ** 2


class Dram(Table):
    """Cost of an external access. Sources: tables/dram.toml."""

    pj_per_bit: FiniteFloat = quantity("pJ per bit", "A bit read or written, interface included.")


class _Tables(Table):
    technology: dict[str, Technology] = Field(description="tables/technology.toml")
    dram: dict[str, Dram] = Field(description="tables/dram.toml")


@cache
def tables() -> tuple[_Tables, Mapping[str, Provenance]]:
    """The tables that come with fick, and by dotted path where each constant comes from."""
    folder = files("fick.hwmodel").joinpath("tables")
    tree: dict[str, Any] = {
        name: tomllib.loads(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
        for name in _Tables.model_fields
    }
    plain, provenance = unlabelled(tree, "tables")
    return _Tables.model_validate(plain), provenance


def dram(name: str) -> Dram:
    """A DRAM table by name. Raises UserError for an unknown one."""
    known = tables()[0].dram
    if name not in known:
        raise UserError(f"DRAM table {name!r} is not known; give one of {', '.join(sorted(known))}.")
    return known[name]


@dataclass(frozen=True)
class Joules:
    """Energy by where it goes, in mJ. ``sram`` has the wires between buffers and array, too."""

    compute: float = 0.0
    sram: float = 0.0
    dram: float = 0.0

    def __add__(self, other: Joules) -> Joules:
        return Joules(self.compute + other.compute, self.sram + other.sram, self.dram + other.dram)

    def __mul__(self, times: float) -> Joules:
        return Joules(self.compute * times, self.sram * times, self.dram * times)

    @property
    def core(self) -> float:
        """On the chip."""
        return self.compute + self.sram

    @property
    def total(self) -> float:
        return self.core + self.dram


class Meter:
    """Prices actions for one accelerator of so many cores. Raises UserError for a table that is not known."""

    def __init__(self, spec: Energy, dram_table: str | None = None, cores: int = 1) -> None:
        known = tables()[0].technology
        if spec.technology not in known:
            raise UserError(
                f"energy.technology {spec.technology!r} is not known; give one of {', '.join(sorted(known))}."
            )
        self._spec, self._costs, self._cores = spec, known[spec.technology], cores
        self._dram_pj_per_bit = dram(dram_table or spec.dram).pj_per_bit
        self._scale = self._costs.scaled(1.0, spec.node_nm, spec.supply_v)
        self._sram_pj_per_bit = self._scale * self._costs.sram_pj_per_bit(spec.bank_bytes)
        self._wire_pj_per_bit = self._scale * self._costs.wire_pj_per_bit_mm * spec.wire_mm
        element = self._costs.multiply_pj(16, 16) + self._costs.add_pj(32)
        self.product_pj = cache(self._product_pj)
        self._element_pj = self._scale * self._costs.element_multiplies * element

    def _product_pj(self, widths: tuple[int, int], sum_bits: int) -> float:
        """A product and its addition to a sum."""
        return self._scale * (self._costs.multiply_pj(*widths) + self._costs.add_pj(sum_bits))

    def combine_pj(self, widths: tuple[int, int], sum_bits: int) -> float:
        """The products of two slices joined."""
        return self._spec.combine_products * self.product_pj(widths, sum_bits)

    def price(self, actions: Actions, ema_bytes: int, seconds: float) -> Joules:
        """What actions cost that move so many bytes off the chip and take so long."""
        compute_pj = actions.elements * self._element_pj
        for widths, count in actions.products.items():
            compute_pj += count * self.product_pj(widths, actions.sum_bits)
            compute_pj += actions.combines * self.combine_pj(widths, actions.sum_bits)
        sram_pj = sum(actions.sram_bits.values()) * self._sram_pj_per_bit
        sram_pj += actions.wire_bits * self._wire_pj_per_bit
        drawn_mj = self._cores * seconds * 1e3
        return Joules(
            compute_pj * 1e-9 + self._spec.compute_w * drawn_mj,
            sram_pj * 1e-9 + self._spec.sram_w * drawn_mj,
            8 * ema_bytes * self._dram_pj_per_bit * 1e-9,
        )


def through_origin(at: float, points: Mapping[int, float]) -> float:
    """Linear between points and the origin, and beyond the last point in proportion to it."""
    last = max(points)
    if at > last:
        return points[last] * at / last
    return float(np.interp(at, [0, *points], [0.0, *points.values()]))
