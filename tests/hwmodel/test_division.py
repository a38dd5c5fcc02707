"""Work divided over cores: parts against the whole, times against closed forms and counts by hand."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.hwmodel.area import resources
from fick.hwmodel.cores import chip, core
from fick.hwmodel.division import dimensions, part_of, shares
from fick.hwmodel.hardware import load, parse
from fick.hwmodel.memory import Timing
from fick.hwmodel.nonlinear import Task
from fick.hwmodel.roofs import Roofs
from fick.hwmodel.specs import HybridSystolic, Tiled
from fick.hwmodel.tiled import TiledCore
from fick.hwmodel.workload import Convolution, Gemm, Kind, Operation, TensorClass, Vectors
from fick.ir.errors import UserError

from .cases import operation, specs, tasks, with_values


def sda(**values: object) -> Tiled:
    spec = load("sda").spec
    assert isinstance(spec, HybridSystolic)
    return with_values(spec, **values)


def timed(spec: Tiled, one: Operation) -> Timing:
    ((_, timing),) = chip(spec).run([one])
    return timing


@pytest.mark.parametrize("kind", ["product", "convolution", "vectors"])
def test_parts_are_the_whole_and_vectors_stay_whole(kind: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(tasks(kind), st.integers(1, 4))
    def check(task: Task, cores: int) -> None:
        for dimension in dimensions(task):
            parts = [
                part_of(task, dimension, size)
                for size, count in shares(dimension.size, cores)
                for _ in range(count)
            ]
            assert len(parts) == min(cores, dimension.size)
            assert sum(one.operation.macs for one in parts) == task.operation.macs
            assert sum(one.results for one in parts) == task.results
            if task.behind is not None:
                vectors = [one.behind.bounds for one in parts if one.behind]
                whole = task.behind.bounds
                assert isinstance(whole, Vectors)
                assert all(isinstance(one, Vectors) and one.length == whole.length for one in vectors)
                assert sum(one.count for one in vectors if isinstance(one, Vectors)) == whole.count

    check()


@pytest.mark.parametrize("name", ["sda", "dbsc"])
def test_cores_do_no_less_than_one_and_wait_for_the_largest_part(name: str) -> None:
    shipped, compared = load(name).spec, 0
    assert isinstance(shipped, Tiled)

    @settings(max_examples=80, deadline=None)
    @given(specs(shipped), st.sampled_from(("product", "convolution")).flatmap(tasks), st.integers(2, 4))
    def check(spec: Tiled, task: Task, cores: int) -> None:
        nonlocal compared
        several = spec.model_copy(update={"cores": cores})
        one, machine = core(spec), core(several)
        assert isinstance(one, TiledCore) and isinstance(machine, TiledCore)
        try:
            whole, divided = timed(spec, task.operation), timed(several, task.operation)
        except UserError:
            return
        assert divided.actions.products == whole.actions.products
        assert divided.actions.combines == whole.actions.combines
        parts = [
            machine.time(part_of(task.alone(), dimension, shares(dimension.size, cores)[0][0])).cycles
            for dimension in dimensions(task.alone())
        ]
        assert divided.cycles in parts
        compared += 1

    check()
    assert compared >= 30


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_equal_parts_with_enough_memory_take_as_long_as_one_part_alone(cores: int) -> None:
    rows, plenty = 40 * 6, 1e15
    spec = sda(memory__dram_bytes_per_s=plenty, cores=cores)
    whole = operation(Gemm(1, cores * rows, 320, 320))
    part = timed(sda(memory__dram_bytes_per_s=plenty), operation(Gemm(1, rows, 320, 320)))
    # A part of the rows is one of the columns or smaller; the array takes R N M / 800 for it and 8 to fill.
    assert timed(spec, whole).cycles <= part.cycles
    assert timed(spec, whole).busy["array"] == rows * 320 * 320 / 800 + 8


def test_uneven_parts_by_hand() -> None:
    """7 rows of a product on 3 cores: 3, 2 and 2, if the second operand is small; it crosses the pins thrice."""
    spec = sda(cores=3, buffers__matmul_weights=1 << 20, memory__streams=streams())
    timing = timed(spec, operation(Gemm(1, 7, 800, 1)))
    largest = timed(sda(memory__streams=streams()), operation(Gemm(1, 3, 800, 1)))
    assert timing.busy["array"] == largest.busy["array"]
    assert timing.ema_bytes[TensorClass.WEIGHTS] == 3 * 800 * 4 // 8
    # Rows of 8 bits in, results out; each core's results take a word of 16 bytes.
    assert timing.ema_bytes[TensorClass.ACTIVATIONS] == 7 * 800 + 3 * 16


def streams() -> dict[str, dict[str, object]]:
    ports = ("activations", "matmul_weights", "convolution_weights", "shortcut", "output")
    return {name: {"port": name, "useful_bits": 128, "carried_bits": 128} for name in ports}


def test_an_image_a_core() -> None:
    """Two pictures on two cores: each fetches all filters, and no line of the other's picture."""
    bounds = Convolution(2, 320, 320, 64, 64, (64, 64), (3, 3), (1, 1))
    spec = sda(memory__dram_bytes_per_s=1e15)
    behind = operation(Vectors(64, 10 * 4096), Kind.NORMALISATION)
    task = Task(replace(operation(bounds), kind=Kind.CONVOLUTION), behind)
    parts = [part_of(task, one, shares(one.size, 2)[0][0]) for one in dimensions(task)]
    assert [one.operation.bounds for one in parts] == [
        replace(bounds, batch=1), replace(bounds, outputs=160)
    ]  # fmt: skip
    assert [one.behind and one.behind.bounds for one in parts] == 2 * [Vectors(32, 40960)]
    one = timed(spec, parts[0].operation)
    assert timed(with_values(spec, cores=2), task.operation).cycles <= one.cycles


def test_everything_but_memory_is_there_as_often() -> None:
    one, four = sda(), sda(cores=4)
    for name, parts in resources(one).items():
        assert resources(four)[name] == {part: 4 * size for part, size in parts.items()}
    product = operation(Gemm(1, 64, 64, 64))
    (mode, peak), (same, larger) = (Roofs(spec).of(product) or ("", 0.0) for spec in (one, four))
    assert (same, larger) == (mode, 4 * peak)


def test_no_cores_are_a_users_mistake() -> None:
    spec = files("fick.hwmodel").joinpath("specs", "sda.toml").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="cores is 0 but should be greater than 0, in cores"):
        parse("cores = 0\n" + spec, "mine.toml")
