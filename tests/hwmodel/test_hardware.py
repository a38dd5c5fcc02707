"""Specs: what ships loads, and a mistake is one sentence with its dotted path and the unit expected."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from fick.hwmodel.hardware import load, names, parse
from fick.hwmodel.specs import HybridSystolic, Spec
from fick.ir.errors import UserError

SDA = files("fick.hwmodel").joinpath("specs", "sda.toml").read_text(encoding="utf-8")


def test_every_shipped_spec_loads_under_its_name() -> None:
    assert names() == ["dbsc", "sda", "systolic-32x32"]
    for name in names():
        assert load(name).spec.name == name


def test_a_file_is_the_same_as_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SDA)
    assert load(path) == load("sda")


@pytest.mark.parametrize("model", get_args(Spec))
def test_every_number_has_a_unit_and_every_field_a_description(model: type[BaseModel]) -> None:
    tables: list[type[BaseModel]] = [model]
    for table in tables:
        for name, field in table.model_fields.items():
            assert field.description, name
            kind: Any = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                tables.append(kind)
            elif "int" in str(kind) or "float" in str(kind).lower():
                assert isinstance(field.json_schema_extra, dict) and field.json_schema_extra["unit"], name


def test_every_constant_of_a_published_design_says_where_it_comes_from() -> None:
    for name in ("sda", "dbsc"):
        known = load(name).provenance
        plain = {path for path, origin in known.items() if origin.label == "given"}
        assert plain == {"kind", "name", "description"}
        assert all(origin.source for path, origin in known.items() if path not in plain)
    assert "clock_hz" in load("sda").assumed() and "array.fill_cycles" not in load("sda").assumed()


def test_derived_figures_of_sda() -> None:
    spec = load("sda").spec
    assert isinstance(spec, HybridSystolic)
    array = spec.array
    pes = array.sub_array_rows * array.sub_array_columns * array.pe_rows * array.pe_columns
    assert (pes, pes * array.multiplies_per_pe) == (200, 400)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value = 200e6", "value = -1.0", "clock_hz is -1.0 but should be greater than 0, in Hz"),
        ("value = 200e6", "value = nan", "clock_hz is nan but should be a finite number, in Hz"),
        ("value = 200e6", "value = inf", "clock_hz is inf but should be a finite number, in Hz"),
        ("value = 200e6", "value = true", "clock_hz is True but should be a valid number, in Hz"),
        ("value = 200e6", 'value = "fast"', "clock_hz is 'fast' but should be a valid number, in Hz"),
        ("value = 3_276_800", "value = 0", "buffers.matmul_activations is 0 but should be greater than 0, in bits"),
        ("value = 10,", "value = 10.5,", "nonlinear.elements_per_cycle is 10.5 but should be a valid integer, in elements per cycle"),
        ("lines =", "linez =", "buffers.linez is not a field; the fields there are matmul_activations"),
        ("[4, 8]", "[4, -8]", "array.operand_bits.1 is -8 but should be greater than 0, in bits"),
        ("[4, 8]", "[]", "array.operand_bits is \\[\\] but should have at least 1 item"),
        ("clock_hz", "# clock_hz", "clock_hz is missing \\(Clock of the array, in Hz\\)"),
        ('"hybrid-systolic"', '"abacus"', "kind should be one of bit-slice, hybrid-systolic, systolic"),
        ('kind = "hybrid-systolic"', "", "kind should be one of"),
        ('label = "published"', 'label = "sure"', "bits.weights should have a value, a label"),
        ("[nonlinear]", "[nonlinear", "is not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(old: str, new: str, message: str) -> None:
    assert old in SDA
    with pytest.raises(UserError, match=f"^hardware my.toml.* {message}") as caught:
        parse(SDA.replace(old, new, 1), "my.toml")
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'npu' is not known; give one of dbsc, sda"):
        load("npu")
    with pytest.raises(UserError, match="not a readable file"):
        load(tmp_path / "none.toml")
