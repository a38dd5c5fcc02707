"""What the command line says of a mistake before it works: one sentence, exit code 2, and nothing written over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fick.compiler import cli
from fick.compiler.cli.output import show


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compile", "model.onnx", "-o", "model.onnx"], "cannot write model.onnx: it is what is read"),
        (["compile", "made.fick"], "made.fick is a bundle already; give the model"),
        (["compile", "model.onnx", "--recipe", "none.toml"], "none.toml cannot be read: No such file or directory; give"),
        (["compile"], "Missing argument 'MODEL'; see fick compile --help"),
        (["compile", "model.onnx", "--targte", "host"], "No such option: --targte"),
        (["conjure"], "No such command 'conjure'; see fick --help"),
        (["repack", "made.fick", "--weights", "w.safetensors", "-o", "w.safetensors"], "it is what is read"),
        (["repack", "made.fick", "--weights", "w.safetensors", "-o", "none/new.fick"], "in a folder that exists"),
        (["bench", "made.fick", "--model", "model.onnx"], "name them, as in --against onnxruntime"),
        (["bench", "made.fick", "--precision", "int8"], "--precision int8 is for peers to compute in; name them"),
        (["bench", "made.fick", "--model", "none.onnx", "--against", "onnxruntime"], "none.onnx is neither a file"),
        (["inspect", "made.fick", "--shape", "x=1,4"], "made.fick has its shapes already"),
        (["inspect", "model.onnx", "--json", "pipe"], "cannot write pipe"),
        (["evaluate", "made.fick", "--reference", "made.fick", "--prompts", "w.safetensors", "-o", "model.onnx"],
         "cannot write into model.onnx: a file is in its place"),
        (["evaluate", "made.fick", "--reference", "made.fick", "--prompts", "made.fick", "--clip", "none"],
         "none is not there; give your"),
        (["explore", "model.onnx", "--space", "none.toml", "-o", "made.fick/out"], "a file is in its place"),
        *((["explore", "model.onnx", "--space", "none.toml", "--explain", "7", option, value],
           f"--explain asks about one design and searches none; leave out {option}.")
          for option, value in (("--method", "grid"), ("--count", "2000"), ("--seed", "0"), ("--jobs", "0"),
                                ("--cluster", "tcp://127.0.0.1:8786"), ("--storage", "sqlite:///points.db"))),
        (["explore", "model.onnx", "--space", "none.toml", "-o", "out"], "give a TOML file as docs/explore.md has it"),
        (["runner", "-o", "-"], "standard output takes JSON alone; give the path of a file"),
        (["estimate", "none.csv", "--hardware", "sda"], "No such file or directory; give a .csv"),
        (["estimate", "model.onnx", "--hardware", "sda", "--sampler", "[1]"], "neither a sampler's name nor"),
        (["explore", "model.onnx", "--space", "none.toml", "-o", "out", "--sampler", "magic"], "'magic' is not known"),
        (["tune", "model.onnx", "-o", "out.json", "--sampler", "magic"], "'magic' is not known"),
        (["tune", "model.onnx", "-o", "out.json", "--json", "out.json"], "cannot write out.json twice; give --json"),
        (["inspect", "model.onnx", "--json", "./model.onnx"], "cannot write model.onnx: it is what is read"),
        (["bench", "made.fick", "--json", "made.fick"], "cannot write made.fick: it is what is read"),
        (["compile", "model.onnx", "--recipe", "made.fick", "-o", "made.fick"], "it is what is read"),
        (["compile", "model.onnx", "-o", "/proc/new.fick"], "cannot write /proc/new.fick: No such file or directory"),
        (["inspect", "model.onnx", "--json", "long" * 80], "File name too long; give another place"),
        (["inspect", "long" * 80], "File name too long; give a shorter one"),
        (["compile", "model.onnx", "--budget", "bytes=1x", "--within", ""], "--within '' is not a time"),
        (["run", "made.fick", "--memory-limit", "0", "-o", "a.png"], "--memory-limit '0' is not a size"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FICK_TRACE", "1")  # a fault of fick's own would come out as what it is
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["fick", *arguments])
    for name in ("model.onnx", "made.fick", "w.safetensors"):
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / "pipe").symlink_to("/dev/null")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capsys.readouterr().err
    assert left.value.code == 2 and said in shown and len(shown.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "made.fick").read_bytes() == b"precious"


def test_guidance_is_refused_where_nothing_is_guided(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    arguments = ["run", str(bundle), "--guidance", "3", "-o", str(tmp_path / "x.png")]
    monkeypatch.setattr(sys, "argv", ["fick", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2 and "takes no --guidance" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_brackets_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show("cat[red].fick", {"[/layers]": "[bold]0"}, None, None)
    shown = capsys.readouterr().out
    assert all(one in shown for one in ("cat[red].fick", "[/layers]", "[bold]0"))


COMMAND = [sys.executable, "-m", "fick", "targets", "--json", "-"]


def test_a_full_disk_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "No space left on device; make room" in done.stderr


def test_whoever_reads_may_stop() -> None:
    """As ``fick ... | head -1`` does."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(COMMAND, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""
