"""Seconds that `fick compile` takes the first time and again, as whole processes, with an empty cache, and memory.

    python benchmarks/compile_time.py [MODEL]

MODEL is the terrain UNet unless another is named.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1] / "examples"))

from terrain_model import fetch


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else os.fspath(fetch())
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "FICK_CACHE": os.path.join(scratch, "cache")}
        seconds, bundles = [], []
        for turn in ("first", "second"):
            output = os.path.join(scratch, f"{turn}.fick")
            started = time.perf_counter()
            command = [sys.executable, "-m", "fick", "compile", model, "-o", output]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
            bundles.append(Path(output).read_bytes())
    same = "the same bytes" if bundles[0] == bundles[1] else "OTHER BYTES"
    first, second = seconds
    # Of the largest process among those that compiled, in kilobytes on Linux.
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"first {first:.1f} s, second {second:.1f} s: {first / second:.1f} times as fast, {same}; {peak_gb:.1f} GB"
    )


if __name__ == "__main__":
    main()
