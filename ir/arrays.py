"""Arrays by name as the bytes of a .safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy as safetensors
from numpy.typing import NDArray


def arrays_file(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Row by row, whatever order they have in memory: safetensors writes that as it lies, and says nothing of it."""
    return safetensors.save({name: np.asarray(one, order="C") for name, one in arrays.items()})
