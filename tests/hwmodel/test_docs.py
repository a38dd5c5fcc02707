"""docs/hardware.md says what the model does: its cases worked by hand, its spec, its tables."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from fick.hwmodel.cores import core
from fick.hwmodel.hardware import load, parse
from fick.hwmodel.synthetic import operation, square
from fick.hwmodel.validation import figures, sensitivity, validate
from fick.hwmodel.workload import Gemm
from fick.ir.program import Program
from tools import hardware_docs

PAGE = hardware_docs.PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
CASES = [tomllib.loads(block) for block in BLOCKS if "cycles =" in block and "kind =" not in block]


def test_there_are_three_cases_and_a_spec() -> None:
    assert [case["hardware"] for case in CASES] == ["sda", "sda", "systolic-32x32"]
    (spec,) = (block for block in BLOCKS if "kind =" in block)
    assert parse(spec, "docs").spec.name == "mine"
    assert parse(spec, "docs").assumed() == ["energy.node_nm"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["cycles"]))
def test_cases_worked_by_hand(case: dict[str, Any]) -> None:
    spec = load(case["hardware"]).spec
    bounds = Gemm(*case["gemm"]) if "gemm" in case else square(*case["convolution"])
    bits = (spec.bits.activations, spec.bits.weights, spec.bits.activations)
    ((_, timing),) = core(spec).run([operation(bounds, bits)])
    assert timing.cycles == case["cycles"]
    assert {stage: cycles for stage, cycles in timing.busy.items() if cycles} == case["busy"]
    assert sum(timing.ema_bytes.values()) == case["ema_bytes"]
    assert timing.bound == case["bound"]


def test_the_page_has_the_validation_as_it_is(published: dict[str, Program]) -> None:
    assert hardware_docs.tables(PAGE).startswith(hardware_docs.figures(validate(published)) + "\n")


def test_the_page_has_what_headlines_rest_on(published: dict[str, Program]) -> None:
    """Recomputed for the constant that moves each headline most; all of them take half a minute."""
    found: dict[str, list[str]] = {}
    for line in hardware_docs.tables(PAGE).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1].startswith("`"):
            found.setdefault(cells[0], cells[1:])
    headlines = {figure.number: figure for figure in figures() if figure.headline}
    assert found.keys() == headlines.keys()
    for number, (path, *shown) in found.items():
        moves = sensitivity(headlines[number], published, [path.strip("`")])[path.strip("`")]
        assert list(map(hardware_docs.moved, moves)) == shown
