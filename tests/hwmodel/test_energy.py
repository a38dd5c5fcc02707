"""Costs against the published points, counts against counting, and joules by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fick.hwmodel.actions import Actions
from fick.hwmodel.energy import Joules, Meter, dram, tables
from fick.hwmodel.hardware import load
from fick.hwmodel.labelled import Label
from fick.hwmodel.specs import Energy
from fick.ir.errors import UserError

HOROWITZ = tables()[0].technology["horowitz-45nm"]


def meter(**changes: object) -> Meter:
    spec = load("systolic-32x32").spec.energy.model_dump()
    return Meter(Energy.model_validate(spec | changes))


def test_published_points() -> None:
    assert HOROWITZ.multiply_pj(8, 8) == pytest.approx(0.2)
    assert HOROWITZ.multiply_pj(32, 32) == pytest.approx(3.1)
    assert [HOROWITZ.add_pj(bits) for bits in (8, 16, 32)] == pytest.approx([0.03, 0.05, 0.1])
    accesses = [64 * HOROWITZ.sram_pj_per_bit(size) for size in (8 << 10, 32 << 10, 1 << 20)]
    assert accesses == pytest.approx([10, 20, 100])
    assert [dram(name).pj_per_bit for name in ("lpddr4", "hbm2", "gddr5")] == [8, 3.9, 14]


def test_between_the_points_costs_grow() -> None:
    products = [HOROWITZ.multiply_pj(bits, 8) for bits in range(1, 65)]
    banks = [HOROWITZ.sram_pj_per_bit(1 << power) for power in range(8, 24)]
    for costs in (products, banks):
        assert all(0 < small < large for small, large in pairwise(costs))
    # Both published multipliers cost the same for each pair of bits, to the digit that they are given in.
    assert HOROWITZ.multiply_pj(16, 16) / 256 == pytest.approx(3.1 / 1024, rel=0.05)


def test_node_and_supply() -> None:
    """Half the length and four fifths of the supply: 0.5 x 0.64."""
    assert HOROWITZ.scaled(1.0, 22.5, 0.72) == pytest.approx(0.32)
    assert meter(node_nm=22.5, supply_v=0.72).product_pj((8, 8), 32) == pytest.approx(0.32 * 0.3)


def test_joules_by_hand() -> None:
    """A million 8 x 8 products into 32 bits, 64 Mbit of a 32 KB bank, 1000 bytes off the chip, a millisecond."""
    actions = Actions({(8, 8): 10**6}, 32, 10**5, 0, {"a": 32 * 10**6, "b": 32 * 10**6}, wire_bits=10**6)
    joules = meter(compute_w=0.5, sram_w=0.25, combine_products=0.5, wire_mm=2.0).price(actions, 1000, 1e-3)
    assert joules.compute == pytest.approx((0.3e6 + 0.5 * 0.3e5) * 1e-9 + 0.5)
    assert joules.sram == pytest.approx((20e6 + 0.1 * 2 * 1e6) * 1e-9 + 0.25)
    assert joules.dram == pytest.approx(8000 * 8 * 1e-9)
    assert joules.total == joules.core + joules.dram
    assert joules + joules == joules * 2
    assert Joules() + joules == joules


def test_what_an_fpga_takes_is_its_power() -> None:
    spec = load("sda").spec.energy
    actions = Actions({(8, 4): 10**9}, 36, 0, 10**6, {"lines": 10**9}, 10**9)
    joules = Meter(spec).price(actions, 0, 2.0)
    assert (joules.compute, joules.sram) == (spec.compute_w * 2e3, spec.sram_w * 2e3)


def test_tables_of_dram_are_chosen_by_name() -> None:
    spec = load("dbsc").spec.energy
    nothing = Actions()
    costs = [Meter(spec, name).price(nothing, 10**6, 0.0).dram for name in ("hbm2", "lpddr4", "ddr3")]
    assert costs == pytest.approx([8e6 * pj * 1e-9 for pj in (3.9, 8, 70)])
    with pytest.raises(UserError, match=r"DRAM table 'ddr9' is not known; give one of .*hbm2"):
        Meter(spec, "ddr9")
    with pytest.raises(UserError, match=r"energy.technology 'tsmc' is not known; give one of horowitz-45nm"):
        meter(technology="tsmc")


def test_every_constant_has_a_source() -> None:
    found, provenance = tables()
    paths = {
        f"{kind}.{name}.{field}"
        for kind in ("technology", "dram")
        for name, table in getattr(found, kind).items()
        for field in type(table).model_fields
    }
    assert provenance.keys() == paths
    given: Label = "given"
    assert all(one.source for one in provenance.values())
    assert {path.split(".")[1] for path, one in provenance.items() if one.label == given} == {"power-given"}
