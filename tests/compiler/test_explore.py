"""fick explore as a user calls it, and the table that quality comes from."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from benchmarks import quality_table
from fick.compiler.cli import app
from fick.compiler.estimate import estimate
from fick.compiler.explore import explain, explore, state
from fick.compiler.quality.table import read_table
from fick.ir.errors import UserError
from tests.hwmodel.spaces import LAYERS, SPACE


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "space.toml").write_text(SPACE)
    path = tmp_path / "layers.csv"
    path.write_text(LAYERS)
    return path


def test_a_front_is_what_estimate_says_of_its_specs(model: Path) -> None:
    out, space = model.parent / "out", model.parent / "space.toml"
    asked = ("explore", str(model), "--space", str(space), "--jobs", "1", "--steps", "4")
    written = ("-o", str(out), "--json", str(out.with_suffix(".json")))
    said = CliRunner().invoke(app, [*asked, *written])
    assert said.exit_code == 0, said.output
    facts = json.loads(out.with_suffix(".json").read_text())
    specs = sorted((out / "front").glob("*.toml"))
    assert len(specs) == len(facts["front"]) > 1
    for path, one in zip(specs, sorted(facts["front"], key=lambda one: f"{one['design']}.toml"), strict=True):
        found = estimate(model, path, steps=4)
        assert found["step_latency_s"] == pytest.approx(one["measures"]["step_latency_s"], rel=1e-9)
        assert path.read_text().startswith(f"# fick estimate {model} --hardware {path} --steps 4\n")
    table = parquet.read_table(out / "points.parquet")
    assert (
        table.num_rows
        == facts["counts"]["evaluated"]
        == len((out / "points.csv").read_text().splitlines()) - 1
    )
    assert facts["published"]["sda"]["dsp"] == 480
    page = (out / "report.html").read_text()
    assert "src=" not in page.split("<body>")[1] and "</html>" in page


def test_the_same_search_writes_the_same_bytes(model: Path) -> None:
    stated = state(model, model.parent / "space.toml", steps=4)
    folders = [model.parent / name for name in ("one", "two")]
    front = folders[0] / "front"
    front.mkdir(parents=True)
    for name in ("sda-999999", "mine"):
        (front / f"{name}.toml").touch()
    for folder in folders:
        explore(stated, folder, method="nsga2", count=80, seed=3)
    # Another search's designs go; what somebody made of one stays.
    assert not (front / "sda-999999.toml").exists() and (front / "mine.toml").exists()
    for name in ("points.csv", "points.parquet", "report.html"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "x", "--objectives", "latencies"], "did you mean latency?"),
        (["-o", "x", "--objectives", "latency,quality"], "has no table of measured qualities"),
        (["-o", "x", "--dram", "sram"], "DRAM table 'sram' is not known"),
        (["-o", "x", "--method", "hill"], "--method 'hill' should be one of grid"),
        (["-o", "x", "--storage", "sqlite:////nowhere/x.db"], "cannot be reached"),
        (["--explain", "72"], "numbered 0 to 71"),
        (["--explain", "1", "--jobs", "1"], "leave out --jobs"),
        ([], "either -o FOLDER"),
    ],
)
def test_mistakes_are_one_sentence(model: Path, arguments: list[str], said: str) -> None:
    call = [str(model), "--space", str(model.parent / "space.toml"), *arguments]
    with pytest.raises(UserError) as raised:
        CliRunner().invoke(app, ["explore", *call], catch_exceptions=False)
    assert said in str(raised.value)


def test_killed_and_called_again(model: Path) -> None:
    """kill -9 as soon as the storage has something; then the front of a run that nobody killed."""
    out, space = model.parent / "out", model.parent / "space.toml"
    space.write_text(SPACE + "".join(f"buffers.{name} = [{', '.join(map(str, sizes))}]\n" for name, sizes in {
        "lines": range(1_966_080, 2_000_000, 2000), "shortcut": range(819_200, 840_000, 2000),
    }.items()))  # fmt: skip
    command = [sys.executable, "-c", "from fick.compiler.cli import main; main()", "explore", str(model)]
    command += ["--space", str(space), "--jobs", "1", "--steps", "4", "--method", "random", "--count", "700"]
    process = subprocess.Popen([*command, "-o", str(out)])
    stated = state(model, space, steps=4)
    database = out / "points.db"
    while process.poll() is None and not _trials(database):
        time.sleep(0.02)
    process.kill()
    assert process.wait() != 0
    before = _trials(database)
    assert before
    resumed = explore(stated, out, method="random", count=700)
    whole = explore(stated, model.parent / "whole", method="random", count=700)
    assert resumed["front"] == whole["front"]
    assert _trials(database) == _trials(model.parent / "whole" / "points.db") > before


def _trials(database: Path) -> int:
    import sqlite3

    if not database.is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_explain_says_what_to_change(model: Path) -> None:
    facts = explain(state(model, model.parent / "space.toml", steps=4), 13)
    assert set(facts["bound"]) <= {"compute", "nonlinear", "bandwidth", "fill", "untimed"}
    assert facts["bind"] == max(facts["bound"], key=lambda name: facts["bound"][name])


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 1, "high": value + 1}


PRECISION = {
    "W8A8": {
        "weight_bits": 8.0,
        "fidelity": {"psnr_db": figure(39.0), "ssim": figure(0.99)},
        "judged": {"candidate": {"category_accuracy": figure(0.7), "retrieval_accuracy": figure(0.88)}},
    },
    "float32": {
        "weight_bits": 32.0,
        "fidelity": {"psnr_db": figure(float("inf")), "ssim": figure(1.0)},
        "judged": {"candidate": {"category_accuracy": figure(0.7), "retrieval_accuracy": figure(0.89)}},
    },
}
CACHING = {
    f"scheduled {share}x, 20 steps": {
        "policy": "scheduled",
        "steps": 20,
        "image_s": {"speed_up": 1 / share},
        "psnr_db": figure(psnr),
        "category_accuracy": figure(0.6),
        "retrieval_accuracy": figure(0.8),
    }
    for share, psnr in ((0.5, 30.0), (0.25, 20.0))
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"weights")
    for name, figures in (("precision", PRECISION), ("caching", CACHING)):
        (tmp_path / f"{name}.json").write_text(json.dumps(figures))
    path = tmp_path / "quality.toml"
    quality_table.main([tmp_path / "precision.json", tmp_path / "caching.json"], tmp_path, "psnr_db", path)
    return path


def test_quality_is_looked_up_and_interpolated(table: Path) -> None:
    from fick.hwmodel.explore.space import QualityAt

    read = read_table(table)
    assert read.quality("W8A8", 20, None, "here") == 39.0
    assert read.quality("W8A8", 20, "retrieval_accuracy", "here") == 0.88
    between = QualityAt(policy="scheduled", at=0.4)
    assert read.quality(between, 20, None, "here") == pytest.approx(26.0)
    for wanted, steps, measure, said in (
        ("W8A9", 20, None, "did you mean W8A8?"),
        ("float32", 20, None, "nobody measured the psnr_db of 'float32'"),
        ("W8A8", 50, None, "was measured with 20 steps"),
        (QualityAt(policy="scheduled", at=0.2), 20, None, "from 0.25 to 0.5 and 0.2 lies beyond"),
        (QualityAt(policy="scheduled", at=0.4), 50, None, "with 50 steps"),
        ("W8A8", 20, "beauty", "should be one of psnr_db"),
    ):
        with pytest.raises(UserError) as raised:
            read.quality(wanted, steps, measure, "here")
        assert said in str(raised.value)


def test_rows_measured_anew_take_the_place_of_old_ones_of_the_same_checkpoint(table: Path) -> None:
    folder = table.parent
    anew = folder / "anew.json"
    anew.write_text(json.dumps({"W8A8": PRECISION["W8A8"] | {"fidelity": {"psnr_db": figure(41.0)}}}))
    before = [one.name for one in read_table(table).row]
    quality_table.main([anew], folder, "psnr_db", table)
    after = read_table(table)
    assert [one.name for one in after.row] == before
    assert after.quality("W8A8", 20, None, "here") == 41.0
    (folder / "unet" / "model.safetensors").write_bytes(b"other weights")
    quality_table.main([anew], folder, "psnr_db", table)
    assert [one.name for one in read_table(table).row] == ["W8A8"]


def test_quality_as_an_objective_and_of_another_checkpoint(table: Path, model: Path) -> None:
    folder = table.parent
    (folder / "space.toml").write_text(
        "[parameters]\nclock_hz = [1e8, 2e8]\n[software]\nfine = { quality = 'W8A8' }\n"
        "coarse = { quality = { policy = 'scheduled', at = 0.5 } }\n"
    )
    stated = state(model, folder / "space.toml", objectives="latency,quality", steps=20, quality=table)
    assert stated.problem.quality == {"fine": 39.0, "coarse": 30.0}
    facts = explore(stated, folder / "out")
    # The two programs are one table of layers here: the finer one is as fast.
    assert [one["labels"]["software"] for one in facts["front"]] == ["fine"]
    (folder / "unet" / "model.safetensors").write_bytes(b"others")
    with pytest.raises(UserError, match="another checkpoint"):
        state(folder, folder / "space.toml", objectives="latency,quality", steps=20)
