"""The pipeline: every pass that a compilation runs, in order."""

from __future__ import annotations

from typing import Any

from ..passes.base import Pass
from ..passes.fuse import Fuse
from ..passes.hoist import Hoist


def pipeline() -> list[Pass[Any]]:
    """From the canonical program to one that targets lower."""
    return [
        Hoist(),  # what the prompt or the timestep alone decides leaves the loop
        Fuse(),  # which nodes run as one kernel
    ]
