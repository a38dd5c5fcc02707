"""The plain array against SCALE-Sim 3.0.0, row by row: benchmarks/scalesim_reference.py wrote the data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import get_args

import pytest

from fick.hwmodel import topology
from fick.hwmodel.array import PLACEMENTS, Dataflow, folds
from fick.hwmodel.specs import Bits
from fick.hwmodel.workload import Gemm
from fick.ir.errors import UserError

DATA = Path(__file__).parent / "data"
EIGHT = Bits(weights=8, activations=8, scores=8)
CONV_HEADING = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
)


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def cycles(gemm: Gemm, row: dict[str, str]) -> int:
    flow = next(flow for flow in get_args(Dataflow) if flow == row["dataflow"])
    return folds(gemm, int(row["rows"]), int(row["columns"]), flow).last_cycle


def test_every_gemm_takes_what_scale_sim_says() -> None:
    table = rows("scalesim_gemms.csv")
    assert len(table) == 209 and {row["dataflow"] for row in table} == PLACEMENTS.keys()
    for row in table:
        gemm = Gemm(1, int(row["M"]), int(row["K"]), int(row["N"]))
        assert cycles(gemm, row) == int(row["cycles"]), row


def test_every_convolution_takes_what_scale_sim_says(tmp_path: Path) -> None:
    table = rows("scalesim_convs.csv")
    sizes = ("ifmap_h", "ifmap_w", "filter_h", "filter_w", "channels", "filters", "stride")
    lines = "".join(
        f"layer{number}, {','.join(row[name] for name in sizes)},\n" for number, row in enumerate(table)
    )
    path = tmp_path / "net.csv"
    path.write_text(CONV_HEADING + lines)
    operations = topology.load(path, EIGHT).variants["full"]
    for row, operation in zip(table, operations, strict=True):
        assert cycles(operation.bounds.as_gemm(), row) == int(row["cycles"]), row


@pytest.mark.parametrize(
    ("shape", "output_stationary", "weight_stationary"),
    [((256, 256, 40), 6527, 5599), ((256, 40, 256), 5087, 5599), ((256, 640, 320), 61119, 69999)],
)
def test_attention_shapes_on_32x32(
    shape: tuple[int, int, int], output_stationary: int, weight_stationary: int
) -> None:
    gemm = Gemm(1, shape[0], shape[2], shape[1])
    assert folds(gemm, 32, 32, "os").last_cycle == output_stationary
    assert folds(gemm, 32, 32, "ws").last_cycle == weight_stationary


def test_a_fold_by_hand() -> None:
    # 3x2 results of 4 products each on a 2x2 array: 2 folds down, 1 across, 4 + 2 + 2 - 2 cycles each; cycle 11 is last.
    made = folds(Gemm(1, 3, 4, 2), 2, 2, "os")
    assert (made.count, made.cycles, made.last_cycle) == (2, 6, 11)
    assert made.utilisation == 24 / (2 * 6 * 4)


def test_a_gemm_table(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text("Layer, M, N, K,\nqk, 256, 256, 40,\n\nff, 10, 20, 30, 1:1,\n")
    workload = topology.load(path, EIGHT)
    assert [(one.name, one.bounds) for one in workload.variants["full"]] == [
        ("qk", Gemm(1, 256, 40, 256)),
        ("ff", Gemm(1, 10, 30, 20)),
    ]
    assert workload.macs() == 256 * 256 * 40 + 6000
    assert [operand.elements for operand in workload.variants["full"][1].operands] == [300, 600]


def test_a_depthwise_layer_runs_channel_by_channel(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text(CONV_HEADING + "DP1, 6, 6, 3, 3, 8, 1, 1,\n")
    bounds = topology.load(path, EIGHT).variants["full"][0].bounds
    assert bounds.as_gemm() == Gemm(8, 16, 9, 1) and bounds.macs == 8 * 16 * 9


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a, 1, 2,", "has 2 sizes"),
        ("a, 1, 2, x,", "not a whole number"),
        ("a, 1, 0, 3,", "has the size 0"),
        ("a, 2, 2, 3, 3, 1, 1, 1,", "larger than its input"),
        ("a, 1, 2, 3, 2:4,", "is sparse"),
        ("", "has no layers"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "net.csv"
    path.write_text(f"Layer, M, N, K,\n{line}\n")
    with pytest.raises(UserError, match=message):
        topology.load(path, EIGHT)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a readable topology table"):
        topology.load(tmp_path / "none.csv", EIGHT)
