"""Lists the package's sub-packages: setuptools does not look for them through ``package-dir`` by itself."""

import tomllib
from pathlib import Path

from setuptools import find_packages, setup

SETTINGS = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))
HOMES: dict[str, str] = SETTINGS["tool"]["setuptools"]["package-dir"]

setup(
    packages=[
        name
        for package, folder in HOMES.items()
        for name in (package, *sorted(f"{package}.{inner}" for inner in find_packages(folder)))
    ]
)
