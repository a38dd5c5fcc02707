"""What benchmarks keep between runs, and what they refuse before the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import emoji_rows
from benchmarks.json_file import JsonFile, write_json
from fick.compiler.quality.evaluate import Prompt


def test_a_row_is_made_again_where_anything_changed_that_it_follows_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji_rows, "MODEL", tmp_path)
    path, reference, judge = (tmp_path / name for name in ("a.fick", "b.fick", "judge/judge.json"))
    judge.parent.mkdir()
    for file in (path, reference, judge):
        file.write_text("first")
    made: list[int] = []

    def row(prompts: list[Prompt], *settings: int) -> dict[str, Any]:
        told = emoji_rows.made_of(path, reference, prompts, *settings)
        return emoji_rows.kept(tmp_path / "rows" / "a.json", told, lambda: {"row": made.append(len(made))})

    prompts = [Prompt("cat", "animals"), Prompt("dog")]
    first = row(prompts, 20)
    assert row(list(prompts), 20) == first and len(made) == 1
    for changed in ([prompts, 50], [[prompts[0], Prompt("fox")], 50], [[Prompt("cat"), Prompt("fox")], 50]):
        before = len(made)
        row(*changed)
        row(*changed)
        assert len(made) == before + 1
    for file in (path, reference, judge):
        before = len(made)
        file.write_text("second")
        row(*changed)
        row(*changed)
        assert len(made) == before + 1


def test_the_place_of_figures_is_looked_at_first(tmp_path: Path) -> None:
    app, worked = typer.Typer(), list[Path | None]()

    @app.command()
    def main(json_file: JsonFile = None) -> None:
        worked.append(json_file)
        write_json(json_file, {"a": 1})

    result = CliRunner().invoke(app, ["--json", str(tmp_path)])
    assert result.exit_code == 2 and not worked
    assert CliRunner().invoke(app, ["--json", str(tmp_path / "new" / "x.json")]).exit_code == 0
    assert json.loads((tmp_path / "new" / "x.json").read_text()) == {"a": 1}
    assert CliRunner().invoke(app, []).exit_code == 0
