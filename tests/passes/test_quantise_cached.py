"""Steps that reuse, in few bits: ranges and corrections are those of the loops that the program's schedules run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fick.ir.annotations import residual
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Arrays, Context, apply
from fick.passes.caching import DeepCache, DeepCacheConfig
from fick.passes.correct import CorrectNoise, CorrectNoiseConfig
from fick.passes.correct.judging import judges
from fick.passes.hoist import Hoist
from fick.passes.measuring import own_calls
from fick.passes.per_step import table_of
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.products import products
from fick.passes.quantise.ranges import RangeConfig, measure
from fick.passes.split_joins import SplitJoins, SplitJoinsConfig

from .test_caching_policies import plain
from .test_schedule_reuse import draw

STEPS, PICTURES = 6, 4
CACHE = DeepCache(DeepCacheConfig(interval=3, steps=(STEPS,)))
SPLIT = SplitJoins(SplitJoinsConfig(least_depth=1))
INT8 = QuantiseConfig(least_depth=1, pictures=2)


def context() -> Context:
    uncached = [call for one in draw(plain(), STEPS, 2) for call in one.calls]
    return Context(referee=Interpreter, reference=plain(), draw=draw, calibration=uncached)


def cached() -> Program:
    return apply([SPLIT, CACHE], plain(), context())


def names(program: Program) -> list[str]:
    return [
        str(one.left.name)
        for variant in program.alternatives
        for one in products(program.variants[variant].graph, program.rates)
    ]


def peaks(program: Program, wanted: Sequence[str]) -> dict[str, list[float]]:
    """Along the pictures that it draws, each value's largest of every call that has it."""
    run = Interpreter(apply([Hoist()], program, Context()), wanted)
    found: dict[str, list[float]] = {name: [] for name in wanted}
    for picture in draw(apply([Hoist()], program, Context()), STEPS, 2):
        for call, variant in zip(picture.calls, program.schedule[STEPS], strict=True):
            results = {**call, **run(call, variant)}
            for name in wanted:
                if name in results:
                    found[name].append(float(np.abs(results[name]).max()))
    return found


def test_ranges_are_those_of_the_loop_that_reuses() -> None:
    program, given = cached(), context()
    wanted = names(program)
    # A product of the split join reads what was left: state under one name, what leaves it under the other.
    assert "up" in wanted and "up" in program.state
    run = own_calls(given, program, 2, "quantise")
    ranges = measure(given, program, wanted, RangeConfig(), run=run)
    known = peaks(program, wanted)
    for name in wanted:
        assert float(ranges.ends[name]) == pytest.approx(max(known[name]), rel=1e-5)
    # Beside those of the loop without a cache; the prompt is the same, and so is what is largest in a first step.
    shared = [name for name in dict.fromkeys(wanted) if not name.startswith("up")]
    uncached = measure(given, apply([SPLIT], plain(), given), shared, RangeConfig())
    changed = [
        name
        for name in shared
        if float(ranges.ends[name]) != pytest.approx(float(uncached.ends[name]), rel=1e-3)
    ]
    assert len(changed) >= len(shared) - 3 and "encoder_hidden_states" not in changed


def test_every_alternative_runs_in_integers_of_the_same_weights() -> None:
    program = apply([Quantise(INT8)], cached(), context())
    effect = program.history[-1].effect
    hoisted = apply([Hoist()], program, Context())
    kinds = {
        name: [node.op_type for node in hoisted.variants[name].graph]
        for name in ("constant", "full", "cached")
    }
    # Weights become integers once, for both.
    assert kinds["constant"].count("QuantizeLinear") == effect["weights"]
    assert 0 < kinds["cached"].count("QuantizeLinear") < kinds["full"].count("QuantizeLinear")
    whole, exact = Interpreter(hoisted), Interpreter(apply([Hoist()], cached(), Context()))
    noise = signal = 0.0
    calls, order = own_calls(context(), cached(), 2, "quantise")
    for call, variant in zip(calls, order, strict=True):
        got, wanted = (run(call, variant)["output"].astype(np.float64) for run in (whole, exact))
        noise, signal = noise + np.square(got - wanted).sum(), signal + np.square(wanted).sum()
    assert effect["output_error"] == pytest.approx(np.sqrt(noise / signal), rel=1e-3)
    assert 0 < effect["output_error"] < 0.1


def test_a_timestep_has_the_range_of_what_is_read_there() -> None:
    program = apply([Quantise(INT8.model_copy(update={"per_step": True}))], cached(), context())
    known = peaks(cached(), ["up", "up.next"])
    tables: dict[str, NDArray[np.float32]] = {}
    for variant, name in (("full", "up.next"), ("cached", "up")):
        graph = program.variants[variant].graph
        node = next(one for one in graph if one.op_type == "QuantizeLinear" and one.inputs[0].name == name)  # type: ignore[union-attr]
        assert node.inputs[1] is not None
        table = table_of(node.inputs[1])
        assert table is not None and table.const_value is not None
        tables[variant] = 127 * table.const_value.numpy().ravel()[::-1]
    by_step = {name: np.reshape(found, (2, -1)).max(0) for name, found in known.items()}
    np.testing.assert_allclose(tables["full"][[0, 3]], by_step["up.next"], rtol=1e-5)
    np.testing.assert_allclose(tables["cached"][[1, 2, 4, 5]], by_step["up"], rtol=1e-5)
    # Where no loop computes it, the nearest that does, of two the earlier in time.
    np.testing.assert_allclose(tables["full"][[1, 2]], by_step["up.next"], rtol=1e-5)


def errors(program: Program, calls: Sequence[Arrays], order: Sequence[str]) -> NDArray[np.float64]:
    """Of the output beside the float program's, call by call."""
    run, exact = Interpreter(program), Interpreter(plain())
    return np.stack(
        [
            run(call, variant)["output"] - exact(call)["output"].astype(np.float64)
            for call, variant in zip(calls, order, strict=True)
        ]
    )


def test_each_alternative_is_corrected_by_what_it_is_off_by() -> None:
    given = context()
    before = apply([Quantise(INT8)], cached(), given)
    after = apply([CorrectNoise(CorrectNoiseConfig(pictures=PICTURES))], before, given)
    effect = after.history[-1].effect
    calls, order = own_calls(given, before, PICTURES, "test")
    assert order == ["full", "cached", "cached", "full", "cached", "cached"] * PICTURES
    judging = np.array(judges([(name, step % STEPS) for step, name in enumerate(order)]))
    assert judging.sum() == STEPS
    size = np.linalg.norm([Interpreter(plain())(call)["output"] for call in np.array(calls)[judging]])
    for program, key in ((before, "output_error_before"), (after, "output_error")):
        found = np.linalg.norm(errors(program, calls, order)[judging]) / size
        assert effect[key] == pytest.approx(found, rel=1e-4)
    assert effect["corrected"] >= 1 and effect["output_error"] < effect["output_error_before"]
    labels = effect["by_timestep"]
    assert len(labels) == STEPS and sum("cached" in label for label in labels) == 4
    # What reuse loses is in what is said to be left, which a loop without it would not show.
    said = residual(after.variants["full"].graph.outputs[0])
    left = errors(after, calls, order)
    for index, covariance in enumerate(said["covariance"]):
        ours = left[index::STEPS].transpose(1, 0, 2, 3, 4).reshape(2, -1)
        np.testing.assert_allclose(covariance, ours @ ours.T / ours.shape[1], rtol=1e-3)
    alone = apply([Quantise(INT8), CorrectNoise()], plain(), replace(given, calibration=calls))
    quiet = residual(alone.variants["full"].graph.outputs[0])["covariance"]
    assert said["covariance"][1][0][0] > 4 * quiet[1][0][0]


def test_what_cannot_be_drawn_is_said() -> None:
    given = replace(context(), draw=None)
    for one in (Quantise(INT8), CorrectNoise()):
        with pytest.raises(UserError, match=f"pass {one.name} draws pictures: calibrate with prompts"):
            apply([one], cached(), given)
