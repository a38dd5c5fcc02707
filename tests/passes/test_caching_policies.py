"""Policies of reuse on a UNet written out: which layers an alternative runs, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, Pass, Trajectory, apply
from fick.passes.caching import (
    BlockCaching,
    BlockCachingConfig,
    DeepCache,
    FasterDiffusion,
    FasterDiffusionConfig,
    Fora,
    ForaConfig,
    TGate,
    TGateConfig,
)
from fick.passes.caching.block_caching import chosen, greedy
from fick.passes.caching.reuse import reusing
from fick.passes.hoist import Hoist

from . import small_unet

EVERYTHING = {
    "faster-diffusion": FasterDiffusion(FasterDiffusionConfig(keys=(0, 1, 3), length=6, steps=(6,))),
    "t-gate": TGate(TGateConfig(gate=0.5, steps=(6,))),
    "fora": Fora(ForaConfig(interval=4, steps=(6,))),
}


def plain() -> Program:
    program = small_unet.program()
    return replace(program, variants={"full": canonicalise(program.variants["full"])})


def weights(program: Program, variant: str) -> set[str]:
    return {name for name in program.variants[variant].graph.initializers if name in program.weights}


@pytest.mark.parametrize(
    ("policy", "order", "state", "left_out"),
    [
        ("faster-diffusion", "ffdfdd", {"up", "skip"}, {"conv_in", "conv_down", "conv_mid", "conv_up"}),
        ("t-gate", "fffggg", {"o2"}, {"wq2", "wk2", "wv2", "wo2"}),
        (
            "fora",
            "fkkkfk",
            {"o1", "o2", "f"},
            {"wq1", "wk1", "wv1", "wo1", "wq2", "wk2", "wv2", "wo2", "w1", "w2"},
        ),
    ],
)
def test_what_an_alternative_leaves_out_and_when_it_runs(
    policy: str, order: str, state: set[str], left_out: set[str]
) -> None:
    program = apply([EVERYTHING[policy]], plain(), Context())
    assert "".join(name[0] for name in program.schedule[6]) == order
    # The canonical graph calls what a skip carries by what computes it.
    assert {"skip" if name == "timed" else name for name in program.state} == state
    alternative = program.alternatives[1]
    assert left_out <= weights(program, "full") - weights(program, alternative)
    unread = {value.name for value in program.variants[alternative].graph.inputs if not value.uses()}
    assert not unread


@pytest.mark.parametrize("policy", EVERYTHING)
def test_after_a_full_step_of_the_same_inputs_nothing_is_lost(policy: str) -> None:
    program = apply([EVERYTHING[policy], Hoist()], plain(), Context())
    call, later, _ = small_unet.calls()
    run, whole = Interpreter(program), Interpreter(plain())
    wanted = whole(call)["output"]
    np.testing.assert_allclose(run(call)["output"], wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run(call, program.alternatives[1])["output"], wanted, rtol=0, atol=1e-5)
    assert np.abs(run(later, program.alternatives[1])["output"] - whole(later)["output"]).max() > 1e-3


def test_an_alternative_leaves_what_it_computes_anew_and_others_read() -> None:
    cuts = {"shallow": ["up"], "gated": ["o2"]}
    program = reusing(plain(), cuts, {3: ["full", "shallow", "gated"]})
    program.validate()
    assert set(program.state_left("full")) == {"up", "o2"}
    assert set(program.state_left("shallow")) == {"o2"} and program.state_read("shallow") == ["up"]
    assert set(program.state_left("gated")) == {"up"} and program.state_read("gated") == ["o2"]
    # After a shallow step the gated one adds that step's attention, not the full step's.
    run, whole = Interpreter(program), Interpreter(plain(), ["o2"])
    first, second, _ = small_unet.calls()
    run(first)
    run(second, "shallow")
    same = run(second, "gated")["output"]
    assert np.abs(same - whole(second)["output"]).max() < np.abs(whole(first)["output"] - same).max()


def test_a_schedule_that_recomputes_everything_is_the_program_itself() -> None:
    program = reusing(plain(), {"shallow": ["up"]}, {3: ["full"] * 3})
    assert program.alternatives == ["full"] and not program.state
    run, whole = Interpreter(program), Interpreter(plain())
    for call in small_unet.calls():
        np.testing.assert_array_equal(run(call)["output"], whole(call)["output"])


def test_a_policy_without_its_layers_is_refused_in_one_sentence() -> None:
    for policy, said in (
        (DeepCache(), "pass deep-cache: depth 1: the model has 0 skip connections"),
        (FasterDiffusion(), "pass faster-diffusion: the model has no skip connections"),
        (TGate(), "pass t-gate: the model attends to no prompt"),
        (Fora(), "pass fora: the model has no attention and no feed-forward layer"),
    ):
        with pytest.raises(UserError, match=said):
            apply([policy], convolution(), Context())


def convolution() -> Program:
    model = ir.from_onnx_text("""<ir_version: 11, opset_import: ["" : 24]>
plain (float[1,4,8,8] sample, float[4,4,1,1] w) => (float[1,4,8,8] output) { output = Conv(sample, w) }""")
    weight = model.graph.inputs.pop()
    weight.const_value = ir.tensor(np.ones((4, 4, 1, 1), np.float32), name="w")
    model.graph.register_initializer(weight)
    return Program("plain", {"full": model}, {})


def test_greedy_reuse_by_hand() -> None:
    changes = np.array([[np.inf, np.inf], [0.1, 0.4], [0.15, 0.1], [0.1, 0.1], [0.1, 0.1]])
    reused = greedy(changes, 0.32)
    # 0.1, 0.25, 0.35: computed, 0.1. And 0.4: computed, 0.1, 0.2, 0.3.
    np.testing.assert_array_equal(reused.T, [[0, 1, 1, 0, 1], [0, 0, 1, 1, 1]])


def test_few_variants_of_many_sets() -> None:
    a, b, ab, bc = (frozenset(names) for names in ("a", "b", "ab", "bc"))
    sizes: Mapping[str, float] = {"a": 1, "b": 5, "c": 1}
    # Alone b spares 15, and bc 12, which the first step may not reuse.
    assert chosen([ab, bc, bc, a], sizes, 1) == [b]
    assert chosen([ab, ab, bc, bc], {**sizes, "a": 9}, 1) == [ab]
    # Then bc spares 2 more, and a as much as ab.
    assert chosen([ab, bc, bc, a], sizes, 3) == [b, bc, a]
    assert chosen([frozenset(), frozenset()], sizes, 3) == []


def test_blocks_are_reused_as_long_as_they_change_little() -> None:
    """Calls that barely differ, but for one in the middle."""
    first, other, _ = small_unet.calls()
    near = {name: value + np.float32(1e-3) * (name == "sample") for name, value in first.items()}
    calls = [first, near, first, other, other]
    latents = np.zeros((4, 8, 8), np.float32)
    context = replace(
        small_unet.context(), draw=lambda program, steps, pictures: [Trajectory(calls, latents)]
    )
    config = BlockCachingConfig(steps=(5,), threshold=0.1, blocks=("attention", "feed_forward"), pictures=1)
    program = apply([BlockCaching(config)], plain(), context)
    assert program.schedule == {5: ["full", "reuse_1", "reuse_1", "full", "reuse_1"]}
    assert set(program.state) == {"o1", "o2", "f"}


def test_settings_that_cannot_be() -> None:
    made: list[tuple[type[Pass[Any]], dict[str, Any]]] = [
        (TGate, {"gate": 0}),
        (Fora, {"interval": 1}),
        (FasterDiffusion, {"keys": ()}),
        (BlockCaching, {"variants": 1}),
    ]
    for kind, wrong in made:
        with pytest.raises(ValueError):
            kind.Config.model_validate(wrong)
