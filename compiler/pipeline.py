"""The pipeline: every pass that a compilation runs, in order."""

from __future__ import annotations

from typing import Any

from ..passes.base import Pass
from ..passes.fuse import Fuse
from ..passes.hoist import Hoist
from ..passes.store import Store, StoreConfig

PRECISIONS = ("float32", "bfloat16", "float16")


def pipeline(precision: str = "float32", half_run: int = 0) -> list[Pass[Any]]:
    """From the canonical program to one that targets lower, with values of ``precision`` between its kernels, which add
    up to ``half_run`` products in that precision.
    """
    stages: list[Pass[Any]] = [
        Hoist(),  # what the prompt or the timestep alone decides leaves the loop
        Fuse(),  # which nodes run as one kernel
    ]
    if precision != "float32":
        stages.append(Store(StoreConfig(format=precision, half_run=half_run)))  # type: ignore[arg-type]
    return stages
