"""Deploying, to a device that a script on the PATH stands for: it runs here what it is told to run there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from fick.compiler.deploy import remote as deploying
from fick.compiler.deploy.remote import deploy, device
from fick.compiler.runner import program
from fick.ir.errors import UserError
from fick.runtime import load
from fick.runtime.loader import Checked

from . import tiny_pipeline

ASKS = ["--prompt", "a cat's dog", "--steps", "4", "--seed", "3"]
SSH = 'test "$1" = -p && test "$2" = 2200 && test "$3" = me@there && shift 3 && cd "$HOME" && exec sh -c "$*"'
SCP = 'test "$3" = 2200; a=${4#me@there:}; b=${5#me@there:}; cd "$HOME" && exec cp "$a" "$b"'
ADB = """
test "$1" = -s && test "$2" = phone-1 && shift 2
at() { echo "$1" | sed "s:^/data/local/tmp:$HOME/phone:"; }
case $1 in
  shell) shift; mkdir -p "$HOME/phone"; exec sh -c "$(echo "$*" | sed "s:/data/local/tmp:$HOME/phone:g")";;
  push | pull) exec cp "$(at "$2")" "$(at "$3")";;
esac
"""


@pytest.fixture
def home(tmp_path: Path, core_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in {"ssh": SSH, "scp": SCP, "adb": ADB}.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    # musl is not built for this: what is copied makes no difference here.
    monkeypatch.setattr(deploying, "program", lambda arch, cache: program(arch, core_cache, "gnu"))
    return tmp_path


@pytest.mark.parametrize("to", ["ssh://me@there:2200", "ssh://me@there:2200/HOME/my models", "adb:phone-1"])
def test_it_is_tested_and_timed_there(
    home: Path, core_cache: Path, tmp_path_factory: pytest.TempPathFactory, to: str
) -> None:
    folder = tmp_path_factory.mktemp("deployed")
    encoder = {"components": {"text_encoder": tiny_pipeline.golden(0)["components"]["text_encoder"]}}  # type: ignore[index]
    bundle = tiny_pipeline.write(folder / "tiny.fick", folder, core_cache, golden=encoder)
    place = to.replace("/HOME/my models", f"{home}/my-models")
    done = deploy(bundle, place, ASKS, home / "x.png")
    assert done.self_test == "1 kernel calls give what they should" and "6 x 6" in done.said
    assert done.bundle_bytes == bundle.stat().st_size
    assert {one["component"] for one in done.calls} == {"unet", "text_encoder", "vae_decoder"}
    with load(bundle) as opened, Image.open(home / "x.png") as image:
        wanted = opened.generate("a cat's dog", steps=4, seed=3).astype(int)  # type: ignore[union-attr]
        assert abs(wanted - image).max() <= 1


def test_what_goes_wrong_there_is_one_sentence(
    home: Path, core_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("wrong")
    bundle = tiny_pipeline.write(folder / "tiny.fick", folder, core_cache)
    with pytest.raises(UserError, match=r"steps are not possible.* \(exit code 2\)"):
        deploy(bundle, "ssh://me@there:2200", [*ASKS, "--steps", "5000"], home / "x.png")
    with pytest.raises(UserError, match=r"ssh://me@other: .*\(exit code 1\)"):
        deploy(bundle, "ssh://me@other", ASKS, home / "x.png")
    (home / "bin" / "adb").unlink()
    with pytest.raises(UserError, match="needs the program adb"):
        deploy(bundle, "adb:", ASKS, home / "x.png")
    assert not (home / "x.png").exists()


def test_a_device_is_reached_before_anything_is_built(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"pipeline": {"kind": "x"}, "target": {"arch": "aarch64"}, "entries": {}}
    monkeypatch.setattr(deploying, "check_bundle", lambda path: Checked(path, facts, {}))
    monkeypatch.setattr(deploying, "program", lambda *_: pytest.fail("built"))
    with pytest.raises(UserError, match=r"ssh://me@other: .*\(exit code 1\)"):
        deploy(home / "x.fick", "ssh://me@other", ASKS, home / "x.png")


@pytest.mark.parametrize(
    "to", ["pi@there", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "adb", "adb:a b"]
)
def test_a_device_that_is_none(to: str) -> None:
    with pytest.raises(UserError, match="is no device"):
        device(to)
