"""Every published figure within its aim, and honest about what that is worth."""

from __future__ import annotations

import pytest

from fick.hwmodel import validation
from fick.hwmodel.hardware import load
from fick.hwmodel.validation import MEASURES, OFF, Row, figures, sensitivity, validate
from fick.ir.program import Program


@pytest.fixture(scope="module")
def table(published: dict[str, Program]) -> dict[str, Row]:
    return {row.figure.number: row for row in validate(published)}


@pytest.mark.parametrize("number", [figure.number for figure in figures()])
def test_within_its_aim(table: dict[str, Row], number: str) -> None:
    row = table[number]
    assert row.held, f"{row.figure.what}: {row.figure.reported} reported, {row.modelled} modelled"


def test_the_reference_table_is_all_there() -> None:
    numbers = {int(figure.number.rstrip("abcdef")) for figure in figures()}
    assert numbers == set(range(1, 13))
    assert {figure.measure for figure in figures()} == MEASURES.keys()
    roles = {figure.number: figure.role for figure in figures()}
    assert [roles[number] for number in ("4a", "5a", "7", "8b")] == ["prediction"] * 4
    assert [roles[number] for number in ("1", "2", "6a", "12a", "12b")] == ["input"] * 5
    assert roles["10a"] == roles["6c"] == "calibration"
    assert roles["8a"] == roles["9"] == "measured"
    # Only what the literature leaves open goes without an aim.
    assert {figure.number for figure in figures() if figure.aim is None} == {"6b", "10b"}


def test_errors_are_relative_but_for_shares(table: dict[str, Row]) -> None:
    row = table["1"]
    assert row.error == pytest.approx(row.modelled / 126 - 1)
    share = table["7"]
    assert share.error == pytest.approx(share.modelled - 0.627)


def test_headlines_say_what_they_rest_on(published: dict[str, Program]) -> None:
    by_number = {figure.number: figure for figure in figures()}
    moves = sensitivity(by_number["1"], published, ["clock_hz", "array.strided_use", "energy.technology"])
    slow, fast = moves["clock_hz"]
    # A faster clock against the same memory gains less than it would alone.
    assert slow is not None and fast is not None
    assert 0.2 < slow < 1 / (1 - OFF) - 1 + 1e-9 and 1 / (1 + OFF) - 1 - 1e-9 < fast < -0.15
    wasteful, _ = moves["array.strided_use"]
    assert wasteful is not None and 0 < wasteful < 0.02
    assert "energy.technology" not in moves
    # The gain in efficiency: every assumed number, those that cannot be a quarter larger with one side only.
    gain = sensitivity(by_number["10b"], published)
    assert gain.keys() <= set(load("dbsc").assumed())
    assert {"clock_hz", "array.inputs", "energy.bank_bytes", "energy.compute_w"} <= gain.keys()
    assert gain["array.strided_use"][1] is None and gain["array.strided_use"][0] == 0
    assert sensitivity(by_number["4a"], published) == {}


def test_progress_counts_constants(published: dict[str, Program], monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ["clock_hz", "energy.compute_w"]
    monkeypatch.setattr(validation, "_assumed", lambda figure: paths)
    told: list[tuple[int, int]] = []
    rows = validate(published, True, lambda done, total: told.append((done, total)))
    headlines = [row for row in rows if row.figure.headline]
    assert told == [(done, 2 * len(headlines)) for done in range(1, 2 * len(headlines) + 1)]
    assert all(set(row.sensitivity) == set(paths) for row in headlines)
    assert [path for path, _ in headlines[0].ranked()] == paths
