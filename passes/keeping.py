"""What took long, kept as soon as it is known, so that work that was interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy as safetensors
from numpy.typing import NDArray
from safetensors import SafetensorError

from ..ir.arrays import arrays_file
from ..ir.files import write_whole

Tensors = Mapping[str, NDArray[Any]]


def kept_tensors(place: Path | None, make: Callable[[], Tensors]) -> Tensors:
    """What lies at ``place``, or what is made now, which then lies there. What is damaged is made anew."""
    if place is None:
        return make()
    try:
        return safetensors.load(place.read_bytes())
    except (OSError, ValueError, SafetensorError):
        found = make()
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, arrays_file(found))
    return found


def kept_figure(
    folder: Path | None, told: Mapping[str, Any], measure: str, compute: Callable[[], float]
) -> float:
    """The figure in the folder for what is ``told``, or what is computed now, which then is there."""
    if folder is None:
        return compute()
    facts = kept_facts(folder, [told, measure], lambda: {**told, measure: compute()})
    return float(facts[measure])


def kept_facts(folder: Path, told: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the folder has for what is ``told``, or what is made now, which then is there. What is damaged is made
    anew.
    """
    name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
    place = folder / f"{name}.json"
    try:
        return dict(json.loads(place.read_bytes()))
    except (OSError, ValueError):
        found = make()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(place, json.dumps(found).encode())
    return found
