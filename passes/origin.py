"""What kept work follows from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.program import Program
from ..ir.saved import pack

VERSION = 2
"""Of what is found from the same programs, calls and settings."""


def origin(programs: Sequence[Program], calls: Iterable[Mapping[str, NDArray[Any]]], settings: Any) -> str:
    """A digest of programs with their weights, of calls, and of settings."""
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
