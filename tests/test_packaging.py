"""What a user installs is what stands in the folders, and the import rules notice when they are broken."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tools.import_rules import REPOSITORY, build_wheel, check_imports, copy_sources, package_folders


def test_wheel_holds_every_file_of_the_folders(tmp_path: Path) -> None:
    expected = {
        "/".join((*package.split("."), file.relative_to(REPOSITORY / home).as_posix()))
        for package, home in package_folders().items()
        for file in (REPOSITORY / home).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licences = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert shipped == expected
    assert licences


def test_editable_install_resolves_the_folders(tmp_path: Path) -> None:
    sources = copy_sources(tmp_path / "sources")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # Lends the dependencies, but not this environment's own fick: its finder hangs on a .pth file, and those
    # count only in a site folder.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*arguments: str | Path) -> str:
        command = [environment / "bin" / "python", *arguments]
        return subprocess.run(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, check=True).stdout

    quietly = ("--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed")
    run("-m", "pip", "install", *quietly, "--editable", sources)
    script = "from fick import runtime; from fick.targets.cpu import build\n"
    script += "for part in runtime, build: print(part.__file__)"
    assert run("-c", script).split() == [
        str(sources / "runtime" / "__init__.py"),
        str(sources / "targets" / "cpu" / "build.py"),
    ]


def fake_package(root: Path, module: str, line: str) -> Path:
    """A package with fick's sub-packages, all empty but for one line in one module."""
    for package in package_folders():
        folder = root.joinpath(*package.split("."))
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "part.py").touch()
    root.joinpath(*module.split(".")).with_suffix(".py").write_text(line + "\n")
    return root


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("fick.runtime.part", "from ..ir import part", "The runtime imports nothing of ours BROKEN"),
        ("fick.ir.part", "from ..passes import part", "The program imports nothing of ours BROKEN"),
        ("fick.passes.part", "from ..targets import part", "Passes import only the program BROKEN"),
        ("fick.targets.part", "from ..compiler import part", "Targets import only the program BROKEN"),
        (
            "fick.hwmodel.part",
            "from ..targets import part",
            "The hardware model imports only the program BROKEN",
        ),
    ],
)
def test_a_forbidden_import_is_caught(tmp_path: Path, module: str, line: str, broken: str) -> None:
    outcome = check_imports(fake_package(tmp_path, module, line))
    assert outcome.returncode != 0
    assert broken in outcome.stdout
    assert "4 kept, 1 broken" in outcome.stdout


@pytest.mark.parametrize("importer", ["compiler", "passes", "targets", "hwmodel"])
def test_an_allowed_import_passes(tmp_path: Path, importer: str) -> None:
    outcome = check_imports(fake_package(tmp_path, f"fick.{importer}.part", "from ..ir import part"))
    assert outcome.returncode == 0, outcome.stdout
    assert "5 kept, 0 broken" in outcome.stdout
