"""A short run of benchmarks/fuzz_bundle.py, which is told apart from the rest by taking crashes for findings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import fuzz_bundle


def test_two_thousand_mutants_crash_nothing() -> None:
    command = [sys.executable, fuzz_bundle.__file__, "--count", "2000", "--seed", "1", "--sanitize"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "2000 mutants, 0 crashes" in done.stdout
    # Mutations must get past the checksums, or the code behind them is not tried.
    statuses = {line.split()[1] for line in done.stdout.splitlines() if len(line.split()) == 3}
    assert {"0", "3", "4", "5"} <= statuses


def test_a_read_past_the_end_is_a_crash(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from benchmarks.fuzz_bundle import Guarded; import ctypes\n"
        "guarded = Guarded(100); at = guarded.place(b'x' * 100, 1)\n"
        "ctypes.string_at(at, 100); print('read', flush=True); ctypes.string_at(at, 101)\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "read"
    assert done.returncode < 0
