"""Integers at the steps that bear them, the same weights at all steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.passes.base import Context, apply
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseByStep, QuantiseByStepConfig, QuantiseConfig

from . import small_unet

CONFIG = QuantiseByStepConfig(least_depth=1)


def context(forward_snr: dict[float, float]) -> Context:
    """Of three timesteps, 0, 1/3 and 2/3, the last of which comes first in a loop."""
    return replace(
        small_unet.context(),
        reference=small_unet.program(),
        forward_snr=lambda time: forward_snr[round(3 * time)],
    )


def test_steps_whose_noise_drowns_in_the_diffusion_s_run_in_integers() -> None:
    """Rounding to 8 bits leaves a signal of some 10^3 times the noise: far more than 1, far less than 10^9."""
    program = apply([QuantiseByStep(CONFIG)], small_unet.program(), context({2: 1e9, 1: 1.0, 0: 1e9}))
    assert program.schedule == {3: ["full", "integers", "full"]}
    effect = program.history[-1].effect
    assert effect["steps_in_integers"] == pytest.approx(1 / 3)
    assert list(effect["signal_over_noise"]) == ["0.666667", "0.333333", "0"]
    call = small_unet.calls()[1]
    run = Interpreter(program)
    for variant, activations in (("full", "float32"), ("integers", "int8")):
        config = QuantiseConfig.model_validate({"least_depth": 1, "activations": activations})
        alone = apply([Quantise(config)], small_unet.program(), small_unet.context())
        assert effect["weight_bits"] == alone.history[-1].effect["weight_bits"] < 32
        # Graphs alike in all but names: ONNX Runtime does the same.
        np.testing.assert_array_equal(run(call, variant)["output"], Interpreter(alone)(call)["output"])
    wanted, got = Interpreter(small_unet.program())(call)["output"], run(call, "integers")["output"]
    noise = np.square(got - wanted).sum() / np.square(wanted).sum()
    assert effect["signal_over_noise"]["0.333333"] == pytest.approx(1 / noise, rel=1e-3)


def test_weights_are_stored_once() -> None:
    given = context({2: 1.0, 1: 1.0, 0: 1.0})
    program = apply([QuantiseByStep(CONFIG), Hoist()], small_unet.program(), given)
    assert program.schedule == {3: ["full", "integers", "integers"]}
    integers = {
        str(value.name) for value in program.variants["constant"].graph.outputs if value.dtype is not None
        and value.dtype.name == "INT8"
    }  # fmt: skip
    read = {
        name: {str(value.name) for value in program.variants[name].graph.inputs} & integers
        for name in program.alternatives
    }
    assert read["full"] == read["integers"] and len(read["full"]) > 5


def test_none_bears_integers_or_nothing_is_known_of_the_noise() -> None:
    program = apply([QuantiseByStep(CONFIG)], small_unet.program(), context(dict.fromkeys(range(3), 1e9)))
    assert not program.schedule and program.alternatives == ["full"]
    assert program.history[-1].effect["steps_in_integers"] == 0
    with pytest.raises(UserError, match="goes by the noise of a pipeline's scheduler, and there is none"):
        apply([QuantiseByStep(CONFIG)], small_unet.program(), small_unet.context())
    with pytest.raises(UserError, match="finds no product with weights of at least 100000 products"):
        apply(
            [QuantiseByStep(QuantiseByStepConfig(least_depth=100000))],
            small_unet.program(),
            context({2: 1.0, 1: 1.0, 0: 1.0}),
        )
