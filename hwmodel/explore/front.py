"""Which designs no other one beats, and how much of the space of objectives they cover. Less is better throughout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Costs = tuple[float, ...]


class Front:
    """Designs that no other one dominates, by number. Of several with equal costs the lowest number stays."""

    def __init__(self, found: Iterable[tuple[int, Costs]] = ()) -> None:
        self.costs: dict[int, Costs] = {}
        self._matrix: NDArray[np.float64] = np.empty((0, 0))
        for number, costs in found:
            self.add(number, costs)

    def __len__(self) -> int:
        return len(self.costs)

    def beats(self, costs: Costs) -> bool:
        """Whether a design here is no worse in anything and better in something: so is it than all that cost more."""
        if not self.costs:
            return False
        matrix, row = self._matrix, np.asarray(costs)
        return bool(((matrix <= row).all(axis=1) & (matrix < row).any(axis=1)).any())

    def add(self, number: int, costs: Costs) -> None:
        """A design, unless one here beats it; those that it beats go."""
        if self.beats(costs):
            return
        equal = [other for other, known in self.costs.items() if known == costs]
        if equal and min(equal) <= number:
            return
        row = np.asarray(costs)
        kept = {other: known for other, known in self.costs.items() if not (np.asarray(known) >= row).all()}
        self.costs = dict(sorted({**kept, number: costs}.items()))
        self._matrix = np.asarray(list(self.costs.values()), dtype=np.float64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Front) and self.costs == other.costs

    __hash__ = None  # type: ignore[assignment]


def hypervolume(costs: Iterable[Costs], reference: Sequence[float], ideal: Sequence[float]) -> float:
    """Share of the box between ``ideal`` and ``reference`` that is no better than some of ``costs``, exactly
    (Guerreiro, Fonseca and Paquete, ACM Computing Surveys 54, 2021).
    """
    import moocore

    low, high = np.asarray(ideal, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    span = np.where(high > low, high - low, 1.0)
    scaled = (np.asarray(list(costs), dtype=np.float64).reshape(-1, len(low)) - low) / span
    inside = scaled[(scaled < 1).all(axis=1)]
    return (
        float(moocore.hypervolume(np.clip(inside, 0.0, None), ref=np.ones(len(low)))) if len(inside) else 0.0
    )
