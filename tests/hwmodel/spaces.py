"""Small problems to search: a few layers, a few dozen designs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fick.hwmodel import topology
from fick.hwmodel.explore.measures import objectives
from fick.hwmodel.explore.problem import Problem
from fick.hwmodel.explore.search import Found, Method, search
from fick.hwmodel.explore.space import parse_space
from fick.hwmodel.explore.storage import Storage
from fick.hwmodel.explore.workers import Walk, here

LAYERS = "Layer,M,N,K\na,4096,320,320,\nb,1024,1280,320,\nc,4096,77,40,\n"

SPACE = """
[parameters]
clock_hz = [250e6, 200e6]
array.sub_array_rows = [2, 4, 8]
nonlinear.elements_per_cycle = [10, 20]
buffers.matmul_weights = [160, 10240, 327_680]
buffers.matmul_activations = [40_000, 204_800]
"""
"""72 designs, some of which the layers do not fit."""


def problem(folder: Path, space: str = SPACE, wanted: str = "latency,dsp,bram") -> Problem:
    (folder / "layers.csv").write_text(LAYERS)
    read = parse_space(space, "space.toml", folder)
    return Problem(
        read,
        {("plain", bits): topology.load(folder / "layers.csv", bits) for bits in read.widths()},
        4,
        objectives(wanted),
    )


def found(
    one: Problem,
    walk: Walk | None = None,
    *,
    method: Method = "grid",
    count: int = 30,
    seed: int = 0,
    storage: Storage | None = None,
    progress: Callable[[Found, int, int], None] = lambda found, done, total: None,
) -> Found:
    def run(walk: Walk) -> Found:
        return search(one, walk, storage, method=method, count=count, seed=seed, progress=progress)

    if walk is not None:
        return run(walk)
    with here(one) as own:
        return run(own)
