"""Seconds that `fick compile` takes the first time and again, as whole processes, with an empty cache, and memory.

    python benchmarks/compile_time.py [MODEL] [--recipe FILE] [--keep FILE]

MODEL is the terrain UNet unless another is named. The bundle can be kept, for `fick bench`.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1] / "examples"))

from terrain_model import fetch


def main(
    model: Annotated[str, typer.Argument(help="What fick compile takes.")] = "",
    recipe: Annotated[Path | None, typer.Option(help="Optional passes.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Where the bundle stays.")] = None,
) -> None:
    """Compile twice and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "FICK_CACHE": os.path.join(scratch, "cache")}
        output = keep or Path(scratch) / "model.fick"
        command = [
            sys.executable,
            "-m",
            "fick",
            "compile",
            model or os.fspath(fetch()),
            "-o",
            os.fspath(output),
        ]
        command += ["--recipe", os.fspath(recipe)] if recipe else []
        seconds, bundles = [], []
        for _ in range(2):
            started = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
            with output.open("rb") as file:
                bundles.append(hashlib.file_digest(file, "sha256").digest())
        size = output.stat().st_size
    same = "the same bytes" if bundles[0] == bundles[1] else "OTHER BYTES"
    first, second = seconds
    # Of the largest process among those that compiled, in kilobytes on Linux.
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"first {first:.1f} s, second {second:.1f} s: {first / second:.1f} times as fast, {same}; {peak_gb:.1f} GB of "
        f"memory, a bundle of {size / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    typer.run(main)
