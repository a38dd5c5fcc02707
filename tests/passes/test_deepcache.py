"""DeepCache on a UNet written out: what a cached step runs, what it reads, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.macs import macs
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.caching import DeepCache, DeepCacheConfig
from fick.passes.caching.schedules import centred, uniform
from fick.passes.correct import CorrectBias
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseConfig

from . import small_unet
from .small_unet import BATCH, CHANNELS, HEIGHT, PIXELS, WIDTH


def plain() -> Program:
    """In canonical form: a skip is no node of its own."""
    program = small_unet.program()
    return replace(program, variants={"full": canonicalise(program.variants["full"])})


def cached(steps: Sequence[int] = (4,), **settings: object) -> Program:
    config = DeepCacheConfig.model_validate({"steps": steps, **settings})
    return apply([DeepCache(config)], plain(), Context())


def test_a_cached_step_leaves_out_what_lies_below_the_skip() -> None:
    program = cached()
    assert program.alternatives == ["full", "cached"]
    assert program.schedule == {4: ["full", "cached", "cached", "full"]}
    assert program.state == {"up": (BATCH, CHANNELS, HEIGHT, WIDTH)}
    left_out = {"conv_down", "conv_mid", "conv_up", "scales"}
    weights = [set(program.variants[name].graph.initializers) for name in ("full", "cached")]
    assert weights[0] - weights[1] == left_out and weights[1] < weights[0]
    effect = program.history[-1].effect
    # Two convolutions of 3 x 3 at a quarter of the pixels, one at all of them.
    saved = BATCH * (2 * PIXELS // 4 + PIXELS) * CHANNELS**2 * 9
    assert effect["macs"]["full"] == macs(plain().variants["full"])
    assert effect["macs"]["full"] - effect["macs"]["cached"] == saved
    assert effect["state_bytes"] == 4 * BATCH * CHANNELS * HEIGHT * WIDTH
    assert effect["runs"] == {"4": {"full": 2, "cached": 2}}


def test_a_cached_step_after_a_full_one_of_the_same_inputs_is_that_one() -> None:
    """Nothing is lost but what changed below: there is none where the inputs are the same."""
    program = apply([Hoist()], cached(), Context())
    call, later, _ = small_unet.calls()
    run, whole = Interpreter(program), Interpreter(plain())
    wanted = whole(call)["output"]
    np.testing.assert_allclose(run(call)["output"], wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run(call, "cached")["output"], wanted, rtol=0, atol=1e-5)
    # Of other inputs it is not: the deep part is the step's before.
    assert np.abs(run(later, "cached")["output"] - whole(later)["output"]).max() > 0.01
    run.begin()
    with pytest.raises(ValueError, match="variant cached reads up, which no step has left"):
        run(later, "cached")


def test_work_of_prompts_and_steps_is_done_once_for_both() -> None:
    program = apply([Hoist()], cached(), Context())
    alone = apply([Hoist()], plain(), Context())
    assert list(program.variants) == ["prompt", "step", "full", "cached"]
    for name in ("prompt", "step"):
        assert [node.op_type for node in program.variants[name].graph] == [
            node.op_type for node in alone.variants[name].graph
        ]
    assert not {"prompt", "step"} & {value.name for value in program.variants["cached"].graph.inputs}


def test_integers_are_quantised_before_and_run_in_every_step() -> None:
    quantised = apply([Quantise(QuantiseConfig(least_depth=1))], plain(), small_unet.context())
    program = apply([DeepCache(DeepCacheConfig(steps=(2,))), Hoist()], quantised, small_unet.context())
    kept = program.variants["cached"].graph
    assert sum(node.op_type == "QuantizeLinear" for node in kept) > 4
    # The same integers: none is derived for one of them alone.
    constants = {str(value.name) for value in program.variants["constant"].graph.outputs}
    assert {str(value.name) for value in kept.inputs} & constants < constants
    run, whole = Interpreter(program), Interpreter(quantised)
    call = small_unet.calls()[0]
    wanted = whole(call)["output"]
    # ONNX Runtime may fuse otherwise; no sum of these is so near to a half that it rounds to another integer.
    np.testing.assert_allclose(run(call)["output"], wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run(call, "cached")["output"], wanted, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=r"pass quantise finds no product .* that is not quantised"):
        apply([Quantise(QuantiseConfig(least_depth=1))], program, small_unet.context())
    with pytest.raises(UserError, match="pass correct-bias knows of no schedule"):
        apply([CorrectBias()], program, small_unet.context())


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UserError, match="depth 2: the model has 1 skip connections; give fewer"):
        cached(depth=2)
    with pytest.raises(
        UserError, match="pass deep-cache knows of no schedule; put it before the pass that makes one"
    ):
        apply([DeepCache()], cached(), Context())
    for wrong in ({"interval": 1}, {"depth": 0}, {"steps": ()}, {"spacing": "even"}):
        with pytest.raises(ValidationError):
            DeepCacheConfig.model_validate(wrong)


def test_spacings() -> None:
    assert sorted(uniform(10, 3)) == [0, 3, 6, 9]
    for calls in (1, 2, 7, 20, 50):
        for interval in (2, 3, 5):
            found = sorted(centred(calls, interval, 0.3, 1.4))
            assert found[0] == 0 and found[-1] < calls and len(found) <= len(uniform(calls, interval))
    found = sorted(centred(50, 5, 0.3, 1.4))
    gaps = np.diff(found)
    # Closest about call 15, where 0.3 of the loop has passed.
    assert len(found) == 10 and abs(found[int(np.argmin(gaps))] - 15) <= 3
    assert gaps[0] > gaps.min() < gaps[-1]
    assert program_order(spacing="centred", steps=(50,))[0] == "full"


def program_order(**settings: object) -> list[str]:
    (order,) = cached(**settings).schedule.values()  # type: ignore[arg-type]
    return order
