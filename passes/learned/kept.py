"""What was learned of a unit, and the file that keeps it for a run that was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy as safetensors
from numpy.typing import NDArray
from safetensors import SafetensorError

from ...ir.arrays import arrays_file
from ...ir.files import write_whole

WORTH = "worth"


@dataclass(frozen=True)
class Integers:
    """A weight: ``values`` of any integer type, with the scale and zero point that they go with."""

    values: NDArray[Any]
    scale: NDArray[Any]
    zero: NDArray[Any] | None = None


@dataclass(frozen=True)
class Learned:
    """Integers by the name of the value that products read, and what they are worth.

    ``before``   |given - wanted| / |wanted| of the unit's outputs with the nearest integers, on calls not learned from
    ``after``    the same with these
    ``changed``  how many are not the nearest
    """

    integers: Mapping[str, Integers]
    before: float
    after: float
    changed: int


def save(learned: Learned, path: Path) -> None:
    worth = np.array([learned.before, learned.after, learned.changed], np.float64)
    tensors: dict[str, NDArray[Any]] = {WORTH: worth}
    for name, one in learned.integers.items():
        parts = {"values": one.values, "scale": one.scale, "zero": one.zero}
        tensors |= {f"{part} {name}": array for part, array in parts.items() if array is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, arrays_file(tensors))


def load(path: Path) -> Learned | None:
    """What ``save`` wrote; None where nothing did, or where it is damaged."""
    try:
        tensors = safetensors.load(path.read_bytes())
        before, after, changed = tensors.pop(WORTH)
        integers = {
            name: Integers(tensors[f"values {name}"], tensors[f"scale {name}"], tensors.get(f"zero {name}"))
            for name in dict.fromkeys(key.partition(" ")[2] for key in tensors)
        }
        return Learned(integers, float(before), float(after), int(changed))
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
