"""Fused programs of published UNets without their weights: `python -m tests.hwmodel.programs` makes them anew.

A saved program is its graphs, a few hundred kilobytes that compress to a few tens, and a file of weights, of which
the hardware model reads nothing. So the weights become a hole of the same size.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

from fick.ir.program import Program
from fick.ir.saved import SUMMARY, WEIGHTS, load, save

DATA = Path(__file__).parent / "data"
NAMES = ("sd-1.5", "bk-sdm-tiny")


def imported(name: str) -> Program:
    """The program as the compiler makes it from the configuration alone: random weights, tens of seconds."""
    from fick.compiler.frontends import import_model
    from fick.compiler.pipeline import pipeline
    from fick.ir.rates import Rate
    from fick.passes.base import Context, apply

    source = import_model(name)
    rates = {value: Rate(rate) for value, rate in source.inputs.items()}
    program = Program(source.name, {"full": source.model}, rates, weights=source.weights)
    return apply(pipeline(), program, Context())


def kept(name: str, folder: Path) -> Program:
    """The program from the repository, unpacked in ``folder``."""
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with (folder / WEIGHTS).open("wb") as weights:
        weights.truncate(json.loads((folder / SUMMARY).read_text())["weights_bytes"])
    return load(folder)


def keep(name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "program"
        program = imported(name)
        program.history.clear()  # Seconds differ from run to run.
        save(program, folder)
        with tarfile.open(DATA / f"{name}.tar.xz", "w:xz", preset=9) as archive:
            for path in sorted(folder.iterdir()):
                if path.name != WEIGHTS:
                    entry = tarfile.TarInfo(path.name)
                    entry.size = path.stat().st_size
                    archive.addfile(entry, io.BytesIO(path.read_bytes()))


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        keep(each)
