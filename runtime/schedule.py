"""Which alternative of a model runs at which call of a loop."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .errors import FickError

FULL = "full"

Schedules = Mapping[int, Sequence[str]]
"""By the calls of a loop, the alternative that each of them runs."""


def read(manifest: Mapping[str, Any], component: str, alternatives: Collection[str]) -> Schedules:
    """A component's schedules. Raises FickError for what its code does not have, or what is no schedule."""
    found: dict[int, list[str]] = {}
    try:
        given: Any = manifest.get("components", {}).get(component, {}).get("schedules", {})
        found = {int(calls): list(run) for calls, run in given.items()}
        sound = all(
            calls > 0 and len(run) == calls and {*run} <= {*alternatives} for calls, run in found.items()
        )
    except (AttributeError, TypeError, ValueError):
        sound = False
    if not sound:
        raise FickError(f"the bundle's schedules of {component} do not fit its code; copy or compile it anew")
    return found


def nearest(schedules: Schedules, calls: int) -> int | None:
    """The loop length, of those that have a schedule, of the least ratio to ``calls``; of two, the longer one."""
    return min(schedules, key=lambda known: (abs(math.log(known / calls)), -known), default=None)


def whole(manifest: Mapping[str, Any], component: str, alternatives: Sequence[str]) -> list[str]:
    """Those of a component's alternatives that leave all of its state, as "full" does, which comes first.

    Raises FickError for a damaged manifest. One of before that was said knows "full" alone.
    """
    try:
        state: Any = manifest.get("components", {}).get(component, {}).get("state", {})
        left = [set(one.get("left_by", [FULL])) for one in state.values()]
    except (AttributeError, TypeError):
        raise FickError(
            f"what the bundle says of the state of {component} is damaged; copy or compile it anew"
        ) from None
    return [
        FULL,
        *(name for name in alternatives if name != FULL and left and all(name in one for one in left)),
    ]


def order(schedules: Schedules, calls: int, first: int = 0, whole: Collection[str] = (FULL,)) -> list[str]:
    """What each of ``calls`` calls runs, if call ``first`` is the first to run.

    Without a schedule for so many, the nearest one is followed by relative position: of the steps of that schedule
    into which a call falls, it runs the first one's alternative, or "full" if any of them does, or else one of those
    that leave as much (``whole``). So what is read is never left longer ago, as a share of the loop, than where the
    schedule was made. The first call is "full" anyway, and leaves what the others read.
    """
    known = nearest(schedules, calls)
    if known is None:
        return [FULL] * calls
    run = schedules[known]
    # Call i takes the part [i, i + 1) / calls of the loop, in whole numbers.
    parts = (run[i * known // calls : -(-(i + 1) * known // calls)] for i in range(calls))
    made = [
        FULL if FULL in part else next((name for name in part if name in whole), part[0]) for part in parts
    ]
    return [*made[:first], FULL, *made[first + 1 :]]
