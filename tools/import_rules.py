"""Holds the rules of who may import whom, which stand in pyproject.toml, over the package as it installs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = REPOSITORY / "pyproject.toml"


def package_folders() -> dict[str, str]:
    """Folder, relative to the repository, of each package that pyproject.toml maps."""
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    return settings["tool"]["setuptools"]["package-dir"]


def copy_sources(target: Path) -> Path:
    """The folders and files that an installation reads, copied.

    A copy, because setuptools leaves ``build/`` beside its sources and packs into the next wheel whatever
    still lies there.
    """
    for home in package_folders().values():
        shutil.copytree(REPOSITORY / home, target / home, ignore=shutil.ignore_patterns("__pycache__"))
    for file in REPOSITORY.iterdir():
        if file.is_file():
            shutil.copy(file, target)
    return target


def build_wheel(folder: Path) -> Path:
    """Path of the wheel, built in ``folder``."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, copy_sources(folder / "sources")], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Outcome of import-linter on the package ``fick`` that lies in ``root``: not 0 if a rule is broken."""
    linter = Path(sysconfig.get_path("scripts")) / "lint-imports"
    command = [linter, "--config", SETTINGS, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "unpacked"
        with zipfile.ZipFile(build_wheel(Path(scratch))) as wheel:
            wheel.extractall(root)
        outcome = check_imports(root)
    print(outcome.stdout, outcome.stderr, sep="", end="")
    return outcome.returncode


if __name__ == "__main__":
    sys.exit(main())
