"""Cycles that SCALE-Sim 3.0.0 counts, as data for tests: `python benchmarks/scalesim_reference.py FOLDER`.

Run it in an environment of its own, since SCALE-Sim needs an old numpy: `pip install scalesim==3.0.0 'numpy<2'`.
Writes FOLDER/scalesim_gemms.csv (the shapes of a published comparison, then 200 drawn ones) and
FOLDER/scalesim_convs.csv in about two minutes on one core. Bandwidth is estimated, not given (CALC), so that
the cycles are those of the array alone.
"""

from __future__ import annotations

import contextlib
import csv
import io
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DATAFLOWS = ("os", "ws", "is")
KNOWN = [
    (m, n, k, 32, 32, flow)
    for m, n, k in ((256, 256, 40), (256, 40, 256), (256, 640, 320))
    for flow in DATAFLOWS
]
DRAWN_GEMMS, DRAWN_CONVS, SEED = 200, 36, 20240901

CONFIG = """
[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = 1024
FilterSramSzkB = 1024
OfmapSramSzkB = 1024
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = 10
Dataflow = {dataflow}
MemoryBanks = 1
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""
GEMM_HEADER = ("M", "N", "K")
CONV_HEADER = ("ifmap_h", "ifmap_w", "filter_h", "filter_w", "channels", "filters", "stride")


def cycles(shape: Sequence[int], rows: int, columns: int, dataflow: str) -> int:
    """What SCALE-Sim reports for one layer: a GEMM if ``shape`` has three sizes, else a convolution."""
    from scalesim.scale_sim import scalesim  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(scratch)
        config, topology, layout = folder / "config.cfg", folder / "layers.csv", folder / "layout.csv"
        config.write_text(CONFIG.format(rows=rows, columns=columns, dataflow=dataflow))
        topology.write_text("header,\nlayer," + ",".join(map(str, shape)) + ",\n")
        layout.write_text("header,\nlayer," + "1," * 20 + "\n")
        simulator = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(config),
            topology=str(topology),
            layout=str(layout),
            input_type_gemm=len(shape) == len(GEMM_HEADER),
        )
        simulator.run_scale(top_path=scratch)
        report = list(csv.reader((folder / "run" / "COMPUTE_REPORT.csv").open()))
    return int(float(report[1][2]))


def gemms(draw: random.Random) -> Iterable[tuple[Any, ...]]:
    yield from KNOWN
    for _ in range(DRAWN_GEMMS):
        m, n, k = (draw.randint(1, 80) for _ in range(3))
        yield m, n, k, draw.randint(2, 24), draw.randint(2, 24), draw.choice(DATAFLOWS)


def convs(draw: random.Random) -> Iterable[tuple[Any, ...]]:
    for _ in range(DRAWN_CONVS):
        kernel = draw.choice((1, 3, 3, 5))
        height, width = (kernel + draw.randint(0, 8) for _ in range(2))
        channels, filters = draw.randint(1, 12), draw.randint(1, 24)
        shape = (height, width, kernel, kernel, channels, filters, draw.choice((1, 1, 2)))
        yield *shape, draw.randint(2, 16), draw.randint(2, 16), draw.choice(DATAFLOWS)


def write(path: Path, header: Sequence[str], cases: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*header, "rows", "columns", "dataflow", "cycles"])
        for number, case in enumerate(cases):
            *shape, rows, columns, dataflow = case
            writer.writerow([*case, cycles(shape, rows, columns, dataflow)])
            file.flush()
            print(f"{path.name}: {number + 1}", end="\r", flush=True)
    print()


def main(folder: str) -> int:
    """Write both files, in the same bytes at every run."""
    write(Path(folder) / "scalesim_gemms.csv", GEMM_HEADER, gemms(random.Random(SEED)))
    write(Path(folder) / "scalesim_convs.csv", CONV_HEADER, convs(random.Random(SEED)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
