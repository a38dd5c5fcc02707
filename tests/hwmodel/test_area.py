"""Resources by hand, and what makes a design larger."""

from __future__ import annotations

import pytest

from fick.hwmodel.area import resources, tables
from fick.hwmodel.hardware import load
from fick.hwmodel.specs import HybridSystolic

from .cases import with_values


def test_sda_by_hand(sda: HybridSystolic) -> None:
    taken = resources(sda)
    # 4 x 2 sub-arrays of 5 x 5 PEs of two multiplies; 10 lanes of 8.
    assert taken["dsp"] == {"array": 4 * 2 * 5 * 5 * 2, "nonlinear": 80}
    # 3,276,800 bits are 88.9 block RAMs of 36,864; 160 bits take one.
    brams = {"matmul_activations": 89, "matmul_weights": 1, "convolution_weights": 200, "lines": 54}
    brams |= {"shortcut": 23, "vectors": 143, "nonlinear": 47}
    assert taken["bram36"] == brams
    # 200 PEs of 4 sums of 36 bits, doubled; five ports.
    assert taken["lut"] == {"array": 57_600, "nonlinear": 20_000, "ports": 12_500}


def test_buffers_and_lanes_are_the_published_20_4_mbit(sda: HybridSystolic) -> None:
    buffers = sda.buffers.model_dump(exclude={"vector_element_bits"})
    bits = sum(buffers.values()) + 10 * tables()[0].fpga.lane_bits
    assert bits / 1e6 == pytest.approx(20.4, abs=0.05)


def test_dbsc_by_hand() -> None:
    """7680 multipliers of 6 x 8 bits and as many adders of 24, from 45 to 28 nm; 27.3 Mbit of 0.16 um2 cells."""
    (area,) = resources(load("dbsc").spec).values()
    shrink = (28 / 45) ** 2
    assert area["multipliers"] == pytest.approx(2 * 7680 * 282 * 48 / 64 * shrink * 1e-6)
    assert area["adders"] == pytest.approx(2 * 7680 * (67 + 137) / 2 * shrink * 1e-6)
    assert area["sram"] == pytest.approx(27_262_976 * 0.16 / 0.5 * 1e-6)


def test_a_larger_design_takes_more(sda: HybridSystolic) -> None:
    def total(spec: HybridSystolic) -> dict[str, float]:
        return {name: sum(parts.values()) for name, parts in resources(spec).items()}

    small = total(sda)
    rows = total(with_values(sda, array__sub_array_rows=8))
    assert (
        rows["dsp"] == small["dsp"] + 400 and rows["lut"] > small["lut"] and rows["bram36"] == small["bram36"]
    )
    lines = total(with_values(sda, buffers__lines=2 * sda.buffers.lines))
    assert lines["bram36"] == small["bram36"] + 53 and lines["dsp"] == small["dsp"]


def test_an_older_node_is_larger() -> None:
    spec = load("dbsc").spec
    (new,), (old,) = (resources(one).values() for one in (spec, with_values(spec, energy__node_nm=56.0)))
    assert {name: old[name] / new[name] for name in new} == pytest.approx(dict.fromkeys(new, 4.0))


def test_every_size_says_where_it_comes_from() -> None:
    _, provenance = tables()
    assert all(one.source and one.label != "given" for one in provenance.values())
    assert resources(load("systolic-32x32").spec) == {}
