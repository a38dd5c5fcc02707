"""Commands in README.md and docs/: what they name, there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from fick.compiler.bundle.link import native_folder
from fick.compiler.cli import app
from fick.targets import profile

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUP: Any = typer.main.get_command(app)
USAGE = (native_folder() / "program" / "main.c").read_text()
"""fick-run's."""

OPTION = re.compile(r"--[a-z][a-z-]+")


def lines(page: Path, program: str) -> list[list[str]]:
    """Arguments of a program in lines of code, which begin with it or have it within quotes."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    code = [*"".join(fenced).splitlines(), *re.findall(r"^    (.*)$", text, re.MULTILINE)]
    parts = [part for line in code for part in line.split(" && ") if part.startswith(f"{program} ")]
    return [
        shlex.split(part.rstrip('"') if part.count('"') % 2 else part, comments=True)[1:] for part in parts
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_line_takes_them(page: Path) -> None:
    for verb, *arguments in lines(page, "fick"):
        GROUP.commands[verb].make_context(verb, arguments)
    for text in re.findall(r"`fick ([a-z-]+)([^`]*)`", page.read_text(encoding="utf-8")):
        known = {option for one in GROUP.commands[text[0]].params for option in one.opts}
        assert set(OPTION.findall(text[1])) <= known, text


def test_the_pages_have_some() -> None:
    assert len(lines(ROOT / "README.md", "fick")) > 20
    assert len(lines(ROOT / "docs" / "deploy.md", "fick")) == 7
    assert len(lines(ROOT / "docs" / "deploy.md", "./fick-run")) == 3


def test_boards_and_phones() -> None:
    """Of docs/deploy.md every option is one of fick or of fick-run, and every target is one."""
    page = ROOT / "docs" / "deploy.md"
    text = page.read_text(encoding="utf-8")
    for arguments in lines(page, "./fick-run"):
        assert {one for one in arguments if one.startswith("-")} <= {"-o", *OPTION.findall(USAGE)}
    verbs = {option for one in GROUP.commands.values() for each in one.params for option in each.opts}
    scripts = set(re.findall(r"python (benchmarks/\w+\.py)", text))
    assert scripts and all((ROOT / path).is_file() for path in scripts)
    described = {
        *verbs,
        *OPTION.findall(USAGE),
        *OPTION.findall("".join((ROOT / one).read_text() for one in scripts)),
    }
    assert set(OPTION.findall(text)) <= described
    needs = text.index("| needs of the processor |")
    named = re.findall(r"^\| `([\w-]+)` \| .* \| (.*) \|$", text[needs:], re.MULTILINE)
    assert [name for name, _ in named] == ["rpi3-32", "rpi4", "rpi5", "android-arm64", "android-arm32"]
    features = {
        "asimd": "asimd", "half precision": "asimdhp", "dot products": "asimddp", "NEON": "neon",
        "fused multiply-adds": "vfpv4",
    }  # fmt: skip
    for name, listed in named:
        wanted = {features[one] for one in listed.split(", ")}
        assert wanted == {*profile.load(name).requires} - {"fphp"}, name
