"""What a design takes of an FPGA or of silicon: sums of parts, each of a size in ``tables/area.toml``.

    FPGA    dsp     PEs x packed multiplies of each, and so many for a lane of the nonlinear unit
            bram36  each buffer in whole block RAMs of 36 Kbit, and the memory of the nonlinear unit's lanes
            lut     PEs x sums of each x their width as adders, twice for what surrounds them; lanes; ports
    ASIC    area_mm2  multipliers and adders by width, lanes of the nonlinear unit, SRAM cells over their share of a
            memory; a structure of one node takes (node' / node)^2 at another

They say which design is larger and what of, not what a synthesis tool will report: only the DSPs of the array
and the block RAMs of the buffers follow from the design alone.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from pydantic import Field, FiniteFloat

from .energy import through_origin
from .labelled import Provenance, unlabelled
from .specs import BitSlice, Buffers, HybridSystolic, Spec, Table, quantity

Resources = dict[str, dict[str, float]]
"""Amount of each resource by part of the design."""


class Fpga(Table):
    """Sizes on an FPGA. Sources: tables/area.toml."""

    bram_bits: int = quantity("bits", "Capacity of a block RAM.")
    adder_bit_luts: FiniteFloat = quantity("LUTs", "A bit of an adder.")
    adder_overhead: FiniteFloat = quantity("1", "Logic around an adder, the adder included, over the adder.")
    lane_dsps: int = quantity("DSPs", "A lane of the nonlinear unit.", ge=0)
    lane_bits: int = quantity("bits", "Memory of a lane of the nonlinear unit.", ge=0)
    lane_luts: int = quantity("LUTs", "A lane of the nonlinear unit.", ge=0)
    port_luts: int = quantity("LUTs", "A port to the memory.", ge=0)


class Asic(Table):
    """Sizes on silicon. Sources: tables/area.toml."""

    node_nm: FiniteFloat = quantity("nm", "Process node of the logic.")
    multiply_8_um2: FiniteFloat = quantity("um2", "8 x 8-bit multiplier.")
    multiply_32_um2: FiniteFloat = quantity("um2", "32 x 32-bit multiplier.")
    add_8_um2: FiniteFloat = quantity("um2", "8-bit adder.")
    add_16_um2: FiniteFloat = quantity("um2", "16-bit adder.")
    add_32_um2: FiniteFloat = quantity("um2", "32-bit adder.")
    logic_overhead: FiniteFloat = quantity(
        "1", "Logic around arithmetic, arithmetic included, over arithmetic."
    )
    lane_multiplies: int = quantity("16-bit multiply-adds", "A lane of the nonlinear unit.", ge=0)
    cell_node_nm: FiniteFloat = quantity("nm", "Process node of the memory cell.")
    cell_um2: FiniteFloat = quantity("um2", "SRAM cell of one bit.")
    cell_share: FiniteFloat = quantity("1", "Share of a memory that is cells.", le=1)

    def multiplier_um2(self, first_bits: int, second_bits: int) -> float:
        points = {8 * 8: self.multiply_8_um2, 32 * 32: self.multiply_32_um2}
        return through_origin(first_bits * second_bits, points)

    def adder_um2(self, bits: int) -> float:
        return through_origin(bits, {8: self.add_8_um2, 16: self.add_16_um2, 32: self.add_32_um2})


class _Tables(Table):
    fpga: Fpga = Field(description="Sizes on an FPGA.")
    asic: Asic = Field(description="Sizes on silicon.")


@cache
def tables() -> tuple[_Tables, Mapping[str, Provenance]]:
    """The sizes that come with fick, and by dotted path where each comes from."""
    text = files("fick.hwmodel").joinpath("tables", "area.toml").read_text(encoding="utf-8")
    plain, provenance = unlabelled(tomllib.loads(text), "tables/area.toml")
    return _Tables.model_validate(plain), provenance


def resources(spec: Spec) -> Resources:
    """What a design takes, by resource and part; nothing for a plain array, whose memories have no size."""
    match spec:
        case HybridSystolic():
            one = _on_fpga(spec, tables()[0].fpga)
        case BitSlice():
            one = {"area_mm2": _on_silicon(spec, tables()[0].asic)}
        case _:
            return {}
    return {name: {part: spec.cores * size for part, size in parts.items()} for name, parts in one.items()}


def _on_fpga(spec: HybridSystolic, sizes: Fpga) -> Resources:
    """Of one core."""
    array, lanes = spec.array, spec.nonlinear.elements_per_cycle
    pes = array.sub_array_rows * array.sub_array_columns * array.pe_rows * array.pe_columns
    sums = max(array.convolution_pixels, array.matmul_rows * array.matmul_columns)
    adders = pes * sums * array.accumulator_bits * sizes.adder_bit_luts * sizes.adder_overhead
    ports = {stream["port"] for stream in spec.memory.streams.model_dump().values()}
    memories = {**_capacities(spec.buffers), "nonlinear": lanes * sizes.lane_bits}
    return {
        "dsp": {"array": pes * array.multiplies_per_pe, "nonlinear": lanes * sizes.lane_dsps},
        "bram36": {name: math.ceil(bits / sizes.bram_bits) for name, bits in memories.items()},
        "lut": {
            "array": math.ceil(adders),
            "nonlinear": lanes * sizes.lane_luts,
            "ports": len(ports) * sizes.port_luts,
        },
    }


def _on_silicon(spec: BitSlice, sizes: Asic) -> dict[str, float]:
    """Of one core."""
    array, node_nm = spec.array, spec.energy.node_nm
    multipliers = array.inputs * array.taps * array.held * array.streamed
    logic_mm2 = sizes.logic_overhead * (node_nm / sizes.node_nm) ** 2 * 1e-6
    lane_um2 = sizes.lane_multiplies * (sizes.multiplier_um2(16, 16) + sizes.adder_um2(32))
    multiplier_um2 = sizes.multiplier_um2(array.activation_slice_bits, array.weight_slice_bits)
    bit_mm2 = sizes.cell_um2 / sizes.cell_share * (node_nm / sizes.cell_node_nm) ** 2 * 1e-6
    return {
        "multipliers": multipliers * multiplier_um2 * logic_mm2,
        "adders": multipliers * sizes.adder_um2(array.accumulator_bits) * logic_mm2,
        "nonlinear": spec.nonlinear.elements_per_cycle * lane_um2 * logic_mm2,
        "sram": sum(_capacities(spec.buffers).values()) * bit_mm2,
    }


def _capacities(buffers: Buffers) -> dict[str, int]:
    """Bits of every buffer."""
    return buffers.model_dump(exclude={"vector_element_bits"})
