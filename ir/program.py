"""The program: the graphs of a diffusion model and how the denoising loop runs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .rates import Rate


@dataclass(frozen=True)
class HistoryEntry:
    """What a pass did: its configuration, its measured effect, its time."""

    pass_name: str
    config: dict[str, Any]
    effect: dict[str, Any]
    seconds: float


@dataclass
class Program:
    """See DESIGN: variants share weights and values by name."""

    name: str
    variants: dict[str, ir.Model]
    rates: dict[str, Rate]
    weights: frozenset[str] = frozenset()
    schedule: dict[int, str] = field(default_factory=dict)
    state: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tables: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
