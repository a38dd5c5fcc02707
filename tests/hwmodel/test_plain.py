"""A plain systolic array under operations of every kind."""

from __future__ import annotations

import pytest

from fick.hwmodel.array import Dataflow, folds
from fick.hwmodel.hardware import load
from fick.hwmodel.plain import PlainArray
from fick.hwmodel.specs import Systolic
from fick.hwmodel.workload import Gemm, Kind, TensorClass, Vectors, Workload

from .cases import operation, with_values


@pytest.fixture(scope="module")
def plain() -> Systolic:
    spec = load("systolic-32x32").spec
    assert isinstance(spec, Systolic)
    return spec


def test_a_whole_unet_takes_what_its_products_take(plain: Systolic, workloads: dict[str, Workload]) -> None:
    full = workloads["sd-1.5"].variants["full"]
    made = list(PlainArray(plain).run(full))
    assert [task.operation for task, _ in made] == list(full)
    for task, timing in made:
        if task.operation.macs:
            assert timing.cycles == folds(task.operation.bounds.as_gemm(), 32, 32, "os").last_cycle + 1  # pyright: ignore
        else:
            assert (timing.cycles, timing.bound) == (0, "untimed")


def test_a_vector_unit_takes_the_rest(plain: Systolic) -> None:
    spec = with_values(plain, vector_elements_per_cycle=16)
    timing = PlainArray(spec).time(operation(Vectors(3, 11), Kind.SOFTMAX, (8, 8, 8)))
    assert (timing.cycles, timing.bound) == (3, "nonlinear")


@pytest.mark.parametrize(
    ("dataflow", "inputs", "weights", "sums"),
    [
        # 3 x 4 x 2 on 2 x 2: two folds of 4 products each; operands stream, sums leave once, four of them.
        ("os", 2 * (2 * 4), 2 * (4 * 2), 2 * 4),
        # Four of the weights stay; three rows pass two folds, and sums are read again to be added to.
        ("ws", 2 * (3 * 2), 2 * 4, 2 * (3 * 2) * 2),
        # Inputs stay, 2 x 2 folds of them: the columns of the weights pass.
        ("is", 4 * 4, 4 * (2 * 2), 4 * (2 * 2) * 2),
    ],
)
def test_accesses_by_hand(plain: Systolic, dataflow: Dataflow, inputs: int, weights: int, sums: int) -> None:
    spec = with_values(plain, rows=2, cols=2, dataflow=dataflow)
    actions = PlainArray(spec).time(operation(Gemm(1, 3, 4, 2), bits=(8, 4, 8))).actions
    assert actions.sram_bits == {"inputs": inputs * 8, "weights": weights * 4, "sums": sums * 32}
    assert actions.products == {(8, 4): 24}


def test_everything_crosses_the_pins_once(plain: Systolic) -> None:
    timing = PlainArray(plain).time(operation(Gemm(2, 3, 5, 7), bits=(8, 4, 12)))
    assert timing.ema_bytes == {TensorClass.ACTIVATIONS: 30 + 63, TensorClass.WEIGHTS: 35}


def test_short_streams_are_fill(plain: Systolic) -> None:
    bound = {k: PlainArray(plain).time(operation(Gemm(1, 32, k, 32))).bound for k in (4, 61, 63, 400)}
    assert bound == {4: "fill", 61: "fill", 63: "compute", 400: "compute"}
