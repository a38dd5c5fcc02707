"""How much faster an estimate is than SCALE-Sim 3.0.0 on the same GEMMs: `python benchmarks/scalesim_speed.py`.

Both take products of SD-1.5's attention and feed-forward layers on a 32 x 32 output-stationary array, one after the
other on one core, and must agree on every cycle. SCALE-Sim needs an old numpy, so it gets an environment of its own
in --venv, made if it is not there. A minute or two. Below stands what all of SD-1.5 takes on the published cores: from
its kept program to the report, nothing timed before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fick.compiler.programs import structure
from fick.hwmodel import topology
from fick.hwmodel.estimate import estimate
from fick.hwmodel.hardware import load

GEMMS = {
    "mid, queries x keys": (64, 64, 160),
    "down 2, queries x keys of a head": (256, 256, 160),
    "down 1, queries x keys of a head": (1024, 1024, 80),
    "down 1, scores x values of a head": (1024, 80, 1024),
    "down 0, cross-attention of a head": (4096, 77, 40),
    "down 0, queries": (4096, 320, 320),
}
"""M, N and K."""

RUN = """
import json, sys, time
from scalesim_reference import cycles
shapes = json.loads(sys.argv[1])
start = time.process_time()
found = [cycles(shape, 32, 32, "os") for shape in shapes]
print(json.dumps([found, time.process_time() - start]))
"""


def environment(folder: Path) -> Path:
    """The interpreter of an environment with SCALE-Sim in ``folder``."""
    python = folder.resolve() / "bin" / "python"  # it runs elsewhere
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "scalesim==3.0.0", "numpy<2"],
        check=True,
        stdout=sys.stderr,
    )
    return python


def theirs(python: Path) -> tuple[list[int], float]:
    """Cycles and CPU seconds."""
    done = subprocess.run(
        [python, "-c", RUN, json.dumps(list(GEMMS.values()))],
        cwd=Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    found, seconds = json.loads(done.stdout.splitlines()[-1])
    return found, seconds


def ours() -> tuple[list[int], float]:
    """Cycles and CPU seconds of the best of five estimates: SCALE-Sim counts cycles from zero."""
    hardware = load("systolic-32x32")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "gemms.csv"
        lines = (f"{name.replace(',', '')}, {', '.join(map(str, shape))},\n" for name, shape in GEMMS.items())
        path.write_text("Layer, M, N, K,\n" + "".join(lines))
        best, made = float("inf"), {}
        for _ in range(5):
            start = time.process_time()
            made = estimate(topology.load(path, hardware.spec.bits), hardware, 1)
            best = min(best, time.process_time() - start)
    return [one["cycles"] - 1 for one in made["operators"]], best


def whole_model() -> str:
    """CPU seconds of the best of five estimates of SD-1.5, on each published core."""
    program = structure("sd-1.5")
    found: list[str] = []
    for name in ("sda", "dbsc"):
        hardware, best = load(name), float("inf")
        for _ in range(5):
            start = time.process_time()
            estimate(program, hardware, 50)
            best = min(best, time.process_time() - start)
        found.append(f"{best:.3f} s on {name}")
    return "SD-1.5, CPU time of an estimate: " + ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--venv", type=Path, help="folder of SCALE-Sim's environment (default: a throw-away one)"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        expected, slow = theirs(environment(given.venv or Path(scratch) / "venv"))
    found, fast = ours()
    for name, shape, one, other in zip(GEMMS, GEMMS.values(), expected, found, strict=True):
        print(f"{name:36} {'x'.join(map(str, shape)):>14}  {one:>8} {other:>8}")
    macs = sum(m * n * k for m, n, k in GEMMS.values())
    times = f"SCALE-Sim {slow:.1f} s, fick {fast * 1e3:.2f} ms of CPU time: {slow / fast:.0f} x"
    print(f"{macs / 1e6:.0f} M products: {times}")
    print(whole_model())
    return 0 if found == expected else 1


if __name__ == "__main__":
    sys.exit(main())
