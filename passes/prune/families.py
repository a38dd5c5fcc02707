"""Channels that may take each other's place, and in which numbers they may go.

A family is what one layer makes: of its channels a share goes, those that matter least. A group normalisation keeps its
number of groups, so that each group has to lose as many: a family is parted into *cells* of equal size, and every cell
loses the same number. Families whose groups do not come out even stay whole, such as those of two widths that one group
of a joined skip connection straddles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .channels import FIXED, Channels

Family = tuple[tuple[int, ...], ...]
"""Channels by cell."""


def families(channels: Channels) -> list[Family]:
    """Those that can lose a channel, in the order in which the graph makes them."""
    owner, free = layers(channels)
    cells = {family: cells_of(found, channels.norms) for family, found in free.items()}
    while torn := _torn(cells, owner, channels.norms):
        for family in torn:
            del cells[family]
    return [one for one in cells.values() if len(one[0]) > 1]


def layers(channels: Channels) -> tuple[dict[int, int], dict[int, list[int]]]:
    """What one layer makes is one family, and so is what several make that is added: the family of each channel, by its
    first layer's place among those that make some, and the channels of every family that may lose some.
    """
    summed = {int(one) for name, axis in channels.summed for one in channels.axes[name][axis]}
    owner: dict[int, int] = {}
    for index, (name, axis) in enumerate(channels.produced):
        ids = channels.axes[name][axis]
        known = {owner[one] for one in ids.tolist() if one in owner}
        family = min(known, default=index)
        for one, mine in owner.items():
            if mine in known:
                owner[one] = family
        owner.update(dict.fromkeys(ids.tolist(), family))
    members: dict[int, list[int]] = defaultdict(list)
    for one, family in owner.items():
        members[family].append(one)
    return owner, {
        family: sorted(found)
        for family, found in sorted(members.items())
        if FIXED not in found and summed.issuperset(found)
    }


def cells_of(found: Sequence[int], norms: Sequence[tuple[NDArray[np.int64], int]]) -> Family:
    """By the groups of all normalisations that read them."""
    groups: dict[int, list[int]] = {one: [] for one in found}
    for ids, count in norms:
        places = np.repeat(np.arange(count), len(ids) // count)
        for one, group in zip(ids.tolist(), places.tolist(), strict=True):
            if one in groups:
                groups[one].append(group)
    parted: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for one, told in groups.items():
        parted[tuple(told)].append(one)
    return tuple(tuple(one) for one in parted.values())


def _torn(
    cells: Mapping[int, Family],
    owner: Mapping[int, int],
    norms: Sequence[tuple[NDArray[np.int64], int]],
) -> set[int]:
    """Families of which equal numbers a cell are not equal numbers a group of some normalisation."""
    found = {family for family, parts in cells.items() if len({len(one) for one in parts}) > 1}
    for ids, count in norms:
        groups = ids.reshape(count, -1)
        owners = np.array([[owner.get(one, -1) for one in group] for group in groups.tolist()])
        for family in set(owners.ravel().tolist()) & cells.keys():
            # Every group has to hold as many of it, for all groups stay of one size.
            if len(set((owners == family).sum(1).tolist())) > 1:
                found.add(family)
    return found


def chosen(family: Family, importance: NDArray[np.float64], share: float) -> list[int]:
    """Of every cell as many of the least important: at most ``share`` of them, and never all."""
    size = len(family[0])
    return least(family, importance, min(int(share * size + 1e-9), size - 1))


def least(family: Family, importance: NDArray[np.float64], count: int) -> list[int]:
    """So many of every cell that matter least."""
    return [one for cell in family for one in sorted(cell, key=lambda one: (importance[one], one))[:count]]
