"""Reused values carried on along their last change: by hand, and along a loop."""

from __future__ import annotations

import numpy as np
import pytest

from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.caching import DeepCache, DeepCacheConfig, PredictReuse, PredictReuseConfig
from fick.passes.caching.predict import _shares, predicted  # pyright: ignore[reportPrivateUsage]
from fick.passes.caching.reuse import reusing
from fick.passes.correct import CorrectReuse
from fick.passes.hoist import Hoist
from fick.passes.schedule.candidates import alone
from fick.runtime.schedule import order as ordered

from . import small_unet
from .test_caching_policies import plain
from .test_schedule_reuse import draw

ORDER = ["full", "cached", "full", "cached", "cached", "full"]
TIMES = [0.9, 0.75, 0.6, 0.45, 0.3, 0.15]


def cached() -> Program:
    return reusing(plain(), {"cached": ["up"]}, {len(ORDER): ORDER})


def test_shares_by_hand() -> None:
    found = _shares(cached(), {len(ORDER): TIMES})
    # Computed at 0, 2 and 5: by one step of an unknown gap, then by a half and two halves of two.
    assert found == {"up": dict(zip(TIMES[:0:-1], [1.5, 1.0, 0.5, 2.0, 1.0], strict=True))}


def test_a_state_is_carried_on_along_its_change() -> None:
    program = cached()
    shares = _shares(program, {len(ORDER): TIMES})
    carried = apply([Hoist()], predicted(program, shares, 0.8), Context())
    carried.validate()
    assert carried.alternatives == ["full", "cached", "again"]
    assert carried.schedule[6] == ["full", "cached", "again", "cached", "cached", "again"]
    # In loops of other lengths, too, what is left is left anew wherever a full step falls.
    assert carried.whole == ["full", "again"]
    assert ordered(carried.schedule, 3, whole=carried.whole) == ["full", "again", "again"]
    assert ordered(carried.schedule, 12, whole=carried.whole)[4:6] == ["again", "again"]
    run, whole = Interpreter(carried), Interpreter(program, ["up.next"])
    part = Interpreter(alone(program, "cached"))
    rng = np.random.default_rng(0)
    calls = [
        {
            **small_unet.calls()[0],
            "timestep": np.array([time], np.float32),
            "sample": sample.astype(np.float32),
        }
        for time, sample in zip(TIMES, rng.standard_normal((6, 2, 4, 4, 8)), strict=True)
    ]
    states = [whole(call)["up.next"] for call in calls]
    wanted = {
        1: states[0],
        3: states[2] + 0.4 * (states[2] - states[0]),
        4: states[2] + 0.8 * (states[2] - states[0]),
    }
    for step, (call, variant) in enumerate(zip(calls, carried.schedule[6], strict=True)):
        got = run(call, variant)["output"]
        given = {name: call[name] for name in part.inputs if name in call}
        exact = part({**given, "up": wanted[step]})["output"] if step in wanted else whole(call)["output"]
        np.testing.assert_allclose(got, exact, rtol=0, atol=2e-5)


def test_what_final_latents_gain_decides() -> None:
    context = Context(referee=Interpreter, draw=draw)
    program = apply([DeepCache(DeepCacheConfig(interval=2, steps=(8,)))], plain(), context)
    changed = apply([PredictReuse(PredictReuseConfig(pictures=2))], program, context)
    effect = changed.history[-1].effect
    losses = {float(strength): sum(one.values()) for strength, one in effect["latent_error"].items()}
    assert set(losses) == {0.0, 0.5, 1.0} and losses[effect["strength"]] == min(losses.values())
    assert ("again" in changed.variants) == (effect["strength"] > 0)
    with pytest.raises(UserError, match="predict-reuse stands once in a recipe, and not with correct-reuse"):
        apply([PredictReuse()], changed, context)
    with pytest.raises(
        UserError, match="correct-reuse corrects what is reused as it is; leave out predict-reuse"
    ):
        apply([CorrectReuse()], changed, context)
    with pytest.raises(
        UserError, match="pass predict-reuse predicts what steps reuse, and these reuse nothing"
    ):
        apply([PredictReuse()], plain(), context)
