"""fick validate-hardware: the table, its sensitivity, and an exit code for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from fick.compiler import programs
from fick.compiler.cli import validate_hardware
from fick.hwmodel import validation
from fick.hwmodel.validation import figures, models
from fick.ir.program import Program

from ..hwmodel import programs as kept


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Program]:
    return {name: kept.kept(name, tmp_path_factory.mktemp("program")) for name in models()}


def test_every_figure_on_the_terminal_and_as_json(
    published: dict[str, Program],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(programs, "structure", published.__getitem__)
    # Of the assumed constants one, as each costs an estimate of a UNet.
    monkeypatch.setattr(validation, "_assumed", lambda figure: ["clock_hz"])
    validate_hardware.command(sensitivity=True, json_file=tmp_path / "v.json")
    shown = capsys.readouterr().out
    facts = json.loads((tmp_path / "v.json").read_text())["figures"]
    assert [one["number"] for one in facts] == [figure.number for figure in figures()]
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    for one in facts:
        assert f"{one['modelled']:,.5g}" in lines[one["number"]] and one["role"] in lines[one["number"]]
    assert lines["3a"].split()[-2:] == ["yes", "prediction"]
    assert {one["number"] for one in facts if one["sensitivity"]} == {
        figure.number for figure in figures() if figure.headline
    }
    slow, fast = next(one for one in facts if one["number"] == "1")["sensitivity"]["clock_hz"]
    assert f"{slow:+.1%}  {fast:+.1%}" in shown
    assert "NO" not in shown


def test_a_figure_that_is_missed_ends_in_exit_code_1(
    published: dict[str, Program], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "structure", lambda name: published["bk-sdm-tiny"])
    with pytest.raises(typer.Exit) as caught:
        validate_hardware.command()
    assert caught.value.exit_code == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["4a"].split()[-2:] == ["NO", "prediction"] and lines["5a"].split()[-2] == "yes"
