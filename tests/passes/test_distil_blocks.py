"""A pruned program learns back what it lost: on calls it has not seen, inside as well, and from where it stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.learned.blocks import DistilBlocks, DistilBlocksConfig, shared_results
from fick.passes.learned.float_student import FloatStudent
from fick.passes.prune import Prune, PruneConfig
from fick.passes.prune.channels import find
from fick.passes.prune.families import families
from fick.passes.prune.slices import sliced
from fick.passes.quantise import Quantise

from . import distilling, small_unet
from .distilling import interrupted
from .serialised import serialised

CALLS = 12

context = partial(distilling.context, CALLS)


@pytest.fixture(scope="module")
def pruned() -> Program:
    return apply([Prune(PruneConfig(blocks=("feed_forward.0",)))], small_unet.program(), context())


def taught(program: Program, given: Context, **config: Any) -> Program:
    wanted = DistilBlocksConfig.model_validate({"iterations": 40, "learning_rate": 8e-3, **config})
    return apply([DistilBlocks(wanted)], program, given)


def test_what_was_lost_is_learned_back(pruned: Program) -> None:
    program = taught(pruned, context())
    effect = program.history[-1].effect
    held_out = effect["held_out_error"]
    assert held_out["learned"] < 0.9 * held_out["before"]
    # By the referee, with the weights as they stand in the graph.
    assert effect["output_error"] == pytest.approx(held_out["learned"], rel=1e-3)
    assert effect["blocks"] == ["r1", "r2"]
    graph = program.variants["full"].graph
    assert not program.weights & set(graph.initializers)
    assert {"conv_in.distilled", "wq1.distilled"} <= set(graph.initializers)


def test_a_student_that_has_learned_nothing_is_the_program() -> None:
    """What was fitted is learned on, and what is no weight is not."""
    linear = PruneConfig(blocks=("feed_forward.0",), by="linear")
    pruned = apply([Prune(linear)], small_unet.program(), context())
    student = FloatStudent(pruned, "cpu")
    assert "scales" not in student.names and {"conv_in", "wo2"} <= student.names
    assert any(name.startswith("r3/") for name in student.names)
    call = small_unet.calls(CALLS)[3]
    with torch.no_grad():
        inputs = {name: torch.tensor(one) for name, one in call.items()}
        given = student.graph(["output", "r3"])({**inputs, **student.values()})
    wanted = Interpreter(pruned, ["r3"])(call)
    for name in ("output", "r3"):
        np.testing.assert_allclose(given[name].numpy(), wanted[name], atol=2e-5)
    assert shared_results(small_unet.program(), pruned) == ["r1", "r2", "r3"]


def test_narrower_streams_are_learned_from_the_output_alone() -> None:
    whole = small_unet.program()
    channels = find(whole.variants["full"].graph)
    gone = [cell[0] for family in families(channels) for cell in family]
    narrow = sliced(whole, channels, gone)
    learned = taught(narrow, context(), iterations=20)
    effect = learned.history[-1].effect
    assert effect["blocks"] == [] and effect["held_out_error"]["learned"] < effect["held_out_error"]["before"]


def test_what_was_interrupted_goes_on_to_the_same_end(pruned: Program, tmp_path: Path) -> None:
    whole = taught(pruned, context(), iterations=20)
    with interrupted():
        taught(pruned, context(tmp_path), iterations=20)
    resumed = taught(pruned, context(tmp_path), iterations=20)
    assert "conv_in.distilled" in resumed.variants["full"].graph.initializers
    assert serialised(resumed) == serialised(whole)


def test_what_cannot_be(pruned: Program) -> None:
    with pytest.raises(UserError, match="pass distil-blocks learns weights before they are rounded"):
        taught(apply([Quantise()], pruned, context()), context())
    untouched = taught(pruned, context(), iterations=1, learning_rate=1e-30)
    assert serialised(untouched) == serialised(pruned)
    assert untouched.weights == pruned.weights
