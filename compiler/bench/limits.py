"""What a machine can do at most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Peaks:
    """``flops_per_s`` by number format, of all threads together; a multiplication and an addition are two.

    ``bytes_per_s`` is the rate at which a buffer of so many bytes is read over and over.
    """

    threads: int
    flops_per_s: Mapping[str, float]
    bytes_per_s: Mapping[int, float]

    def read_bytes_per_s(self, size_bytes: float) -> float:
        """The rate for a buffer of any size: linear in the logarithm of the size between those measured."""
        sizes = sorted(self.bytes_per_s)
        rates = [self.bytes_per_s[size] for size in sizes]
        return float(np.interp(math.log(max(size_bytes, 1)), np.log(sizes), rates))

    def summary(self) -> dict[str, Any]:
        rates = [{"buffer_bytes": size, "bytes_per_s": rate} for size, rate in self.bytes_per_s.items()]
        return {"threads": self.threads, "flops_per_s": dict(self.flops_per_s), "read": rates}
