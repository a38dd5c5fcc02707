"""The integer programme: a format for every product, with the least error within limits on what it costs.

Errors add up, as those of independent sources do in power, and so do costs. What a product multiplies is stored as
integers once for all that read it so, beside its numbers where something else reads those: conversions have costs of
their own, in each of the two cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..programme import Matrix, Row, limit, minimise


@dataclass(frozen=True)
class Conversion:
    """A value that ``readers``, by index, may want as integers.

    ``needed`` says whether something reads its numbers whatever they do. By quantity, ``instead`` is what integers cost
    in place of the numbers, and ``beside`` what they cost besides.
    """

    readers: tuple[int, ...]
    needed: bool
    instead: Mapping[str, float]
    beside: Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """``errors`` and, by quantity, ``costs`` are [products, formats]; ``integers`` says which formats read integers.

    ``fixed`` is what everything else costs.
    """

    errors: Matrix
    costs: Mapping[str, Matrix]
    fixed: Mapping[str, float]
    integers: tuple[bool, ...]
    conversions: Sequence[Conversion]

    def error(self, chosen: Sequence[int]) -> float:
        return float(sum(self.errors[product, one] for product, one in enumerate(chosen)))

    def cost(self, quantity: str, chosen: Sequence[int]) -> float:
        total = self.fixed[quantity]
        total += sum(self.costs[quantity][product, one] for product, one in enumerate(chosen))
        for conversion in self.conversions:
            integers, numbers = self._stored(conversion, chosen)
            if integers:
                total += (conversion.beside if numbers else conversion.instead)[quantity]
        return float(total)

    def stored_twice(self, chosen: Sequence[int]) -> int:
        """Values that are there as numbers and as integers."""
        return sum(self._stored(one, chosen) == (True, True) for one in self.conversions)

    def _stored(self, conversion: Conversion, chosen: Sequence[int]) -> tuple[bool, bool]:
        """Whether a value is there as integers, and as numbers."""
        kinds = {self.integers[chosen[reader]] for reader in conversion.readers}
        return True in kinds, conversion.needed or False in kinds

    def solve(self, limits: Mapping[str, float]) -> list[int] | None:
        """The format of each product, by index, with the least error whose costs are within ``limits``; None if there
        is none.
        """
        return self._solve(self._objective(self.errors), limits)

    def cheapest(self, quantity: str) -> list[int]:
        """The format of each product with the least cost."""
        found = self._solve(self._amounts(quantity), {})
        assert found is not None
        return found

    def _solve(self, objective: Matrix, limits: Mapping[str, float]) -> list[int] | None:
        rows = [*self._structure(), *(self._limit(*one) for one in limits.items())]
        found = minimise(objective, rows)
        if found is None:
            return None
        products, formats = self.errors.shape
        return [int(one) for one in found[: products * formats].reshape(products, formats).argmax(1)]

    @property
    def _size(self) -> int:
        """Variables: whether a product has a format; then whether a value is there as integers, as numbers, as both."""
        return self.errors.size + 3 * len(self.conversions)

    def _objective(self, table: Matrix) -> Matrix:
        whole = np.zeros(self._size)
        whole[: table.size] = table.ravel()
        return whole

    def _amounts(self, quantity: str) -> Matrix:
        whole = self._objective(self.costs[quantity])
        for index, conversion in enumerate(self.conversions):
            integers = self.errors.size + 3 * index
            instead, beside = conversion.instead[quantity], conversion.beside[quantity]
            whole[integers], whole[integers + 2] = instead, beside - instead
        return whole

    def _limit(self, quantity: str, amount: float) -> Row:
        return limit(self._amounts(quantity), amount - self.fixed[quantity])

    def _structure(self) -> Iterator[Row]:
        """One format a product, and what that means for the values that they read."""
        products, formats = self.errors.shape
        for product in range(products):
            yield Row(dict.fromkeys(range(product * formats, (product + 1) * formats), 1.0), 1, 1)
        for index, conversion in enumerate(self.conversions):
            integers = self.errors.size + 3 * index
            numbers, both = integers + 1, integers + 2
            for there, kind in ((integers, True), (numbers, False)):
                places = [place for place, one in enumerate(self.integers) if one is kind]
                readers = [
                    {reader * formats + place: 1.0 for place in places} for reader in conversion.readers
                ]
                yield from (Row({**one, there: -1.0}, -np.inf, 0) for one in readers)
                if conversion.needed and there == numbers:
                    yield Row({there: 1.0}, 1, 1)
                else:
                    everyone = {place: 1.0 for one in readers for place in one}
                    yield Row({**everyone, there: -1.0}, 0, np.inf)
            yield Row({integers: 1.0, numbers: 1.0, both: -1.0}, -np.inf, 1)
            yield Row({integers: 1.0, both: -1.0}, 0, np.inf)
            yield Row({numbers: 1.0, both: -1.0}, 0, np.inf)
