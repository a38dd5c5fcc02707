"""What passes learned, through the whole compiler: it runs as the referee runs it, and goes with one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import safetensors.numpy as safetensors
from numpy.typing import NDArray

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.bundle.repack import repack
from fick.compiler.bundle.skeleton import Skeleton, kept
from fick.compiler.cache import cache_folder
from fick.compiler.programs import fused
from fick.compiler.recipes import Recipe
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context
from fick.passes.learned.low_rank import LowRank, LowRankConfig
from fick.passes.learned.rounding import LearnRounding, LearnRoundingConfig
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.targets import profile

from .test_bfloat16 import imported


class Learning(Recipe):
    """A branch beside the matrices, all products in int8, and their roundings learned."""

    call: dict[str, Any]

    def context(self, program: Program, model: Any, seed: int, reporter: Any, sampler: Any = None) -> Context:
        return Context(referee=Interpreter, calibration=[self.call], reference=program)


def check_kept(skeleton: Skeleton, sources: Mapping[str, NDArray[Any]], folder: Path) -> Path:
    """The bundle, to the byte the one that comes of what was kept of its compilation."""
    skeleton.keep(folder / "kept")
    again = kept(folder / "kept")
    assert again is not None
    written = folder / "first.fick", folder / "second.fick"
    for path, one in zip(written, (skeleton, again), strict=True):
        one.write(path, {"graph": sources})
    assert written[0].read_bytes() == written[1].read_bytes()
    return written[0]


def test_a_kept_compilation_is_the_first_to_the_byte(tmp_path: Path) -> None:
    """Constants that a pass made lie in memory by columns or by rows, as numpy left them."""
    given, feeds = imported("a transformer")
    sources = tensors(given.model)
    recipe = Learning(
        passes=(LowRank(LowRankConfig(bits=2)), Quantise(QuantiseConfig(least_depth=1))), call=feeds
    )
    skeleton = build(
        {"graph": imported("a transformer")[0]},
        profile.load("host"),
        cache_folder(),
        name="graph",
        recipe=recipe,
    )
    literals = [one for part in skeleton.parts.values() for one in part.literals.values()]
    assert any(one.ndim > 1 and not one.flags.c_contiguous for one in literals)
    check_kept(skeleton, sources, tmp_path)


def test_learned_integers_are_the_bundles_own(tmp_path: Path) -> None:
    given, feeds = imported("a resnet")
    sources = tensors(given.model)
    recipe = Learning(
        passes=(
            LowRank(LowRankConfig(bits=2)),
            Quantise(QuantiseConfig(least_depth=1)),
            LearnRounding(LearnRoundingConfig(bits=8, iterations=20, learning_rate=0.1)),
        ),
        call=feeds,
    )
    program = fused(given, recipe=recipe)
    assert [entry.pass_name for entry in program.history[:3]] == ["low-rank", "quantise", "learn-rounding"]
    assert program.history[2].effect["changed_share"] > 0.01
    integers = [
        value
        for value in program.variants["full"].graph.initializers.values()
        if value.dtype is ir.DataType.INT8
    ]
    assert len(integers) == 3
    assert program.weights == {"s1", "b1", "c1", "s2", "b2", "c2"}
    wanted = Interpreter(program)(feeds)["y"]
    path = tmp_path / "learned.fick"
    skeleton = build(
        {"graph": imported("a resnet")[0]}, profile.load("host"), cache_folder(), name="graph", recipe=recipe
    )
    skeleton.write(path, {"graph": sources})
    with fick.load(path) as loaded:
        got = loaded.run(**feeds)["y"]
    exact = Interpreter(fused(imported("a resnet")[0]))(feeds)["y"]
    # Half of a percent of the integers may be their neighbours, where the referee rounds sums that here are exact.
    assert np.std(got - wanted) < 0.07 * np.std(wanted - exact)
    safetensors.save_file(sources, tmp_path / "new.safetensors")
    with pytest.raises(
        UserError, match="learned for its own checkpoint in place of 3 of its tensors, w1 among them"
    ):
        repack(path, tmp_path / "new.safetensors", tmp_path / "none.fick")
    assert not (tmp_path / "none.fick").exists()


@pytest.mark.parametrize("weights", ["int4", "int2"])
def test_learned_codes_are_kept_and_packed(weights: str, tmp_path: Path) -> None:
    """Where nothing is rounded but weights; compiling again packs what was learned the first time."""
    given, feeds = imported("a resnet")
    sources = tensors(given.model)
    recipe = Learning(
        passes=(
            Quantise(QuantiseConfig.model_validate({"weights": weights, "activations": "float32"})),
            LearnRounding(LearnRoundingConfig(iterations=20)),
        ),
        call=feeds,
    )
    wanted = Interpreter(fused(given, recipe=recipe))(feeds)["y"]
    skeleton = build(
        {"graph": imported("a resnet")[0]}, profile.load("host"), cache_folder(), name="graph", recipe=recipe
    )
    with fick.load(check_kept(skeleton, sources, tmp_path)) as loaded:
        got = loaded.run(**feeds)["y"]
    assert np.abs(got - wanted).max() < 1e-4 * np.std(wanted)
