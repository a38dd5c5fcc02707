"""What was learned of a unit, and the file that keeps it for a run that was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy as safetensors
from numpy.typing import NDArray
from safetensors import SafetensorError

from ...ir.files import write_whole
from ...ir.program import Program
from ...ir.saved import pack

VERSION = 1
"""Of what is learned from the same program, calls and settings."""

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
    write_whole(path, safetensors.save(tensors))


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


def origin(programs: Sequence[Program], calls: Iterable[Mapping[str, NDArray[Any]]], settings: Any) -> str:
    """A digest of all that is learned from: programs with their weights, calls, settings."""
    digest = hashlib.sha256(json.dumps([VERSION, settings], sort_keys=True).encode())
    for program in programs:
        digest.update(pack(program))
        for variant in program.variants.values():
            for name, value in sorted(variant.graph.initializers.items()):
                if value.const_value is not None:
                    digest.update(name.encode())
                    digest.update(value.const_value.tobytes())
    for call in calls:
        for name, array in sorted(call.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
