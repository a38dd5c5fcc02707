"""Errors of products by gradients: those that are measured, as far as few bits disturb little."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fick.compiler.costs.predicted import Predicted
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.assign import Assign, AssignConfig, gradients, sensitivity
from fick.passes.assign.formats import FormatName
from fick.passes.assign.study import Study
from fick.passes.base import Context, apply
from fick.passes.guidance import Guidance
from fick.passes.learned import torch_operators
from fick.passes.learned.torch_graph import TorchGraph
from fick.passes.programme import Matrix
from fick.targets import profile

from . import small_unet

PROBES = 512
TOLERANCE = 6 * (2 / (2 * PROBES)) ** 0.5
"""Six deviations of a mean of squares of normal numbers: of two calls."""


SETTINGS: dict[str, Any] = {"formats": ("float32", "w8", "w8a8"), "calls": 2, "least_depth": 1}


def context(folder: Path | None = None, scale: float | None = None) -> Context:
    found = small_unet.context()
    return replace(
        found,
        cost_model=Predicted(profile.load("x86-64-v3-vnni")),
        work_folder=folder,
        guidance=Guidance(scale),
    )


def noise(given: Context, **config: str) -> Matrix:
    whole = AssignConfig.model_validate(
        {"formats": ("float32", "w8", "w8a8"), "calls": 2, "least_depth": 1} | config
    )
    return Study(small_unet.program(), given, whole).problem.errors


@pytest.mark.parametrize("scale", [None, 5.0])
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 30])
def test_they_are_the_slopes_of_what_products_change(
    scale: float | None, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside differences of the graph that follows a product; a chunk is a node, or all of them."""
    monkeypatch.setattr(sensitivity, "PROBES", PROBES)
    monkeypatch.setattr(gradients, "CHUNK_BYTES", chunk_bytes)
    given = context(scale=scale)
    study = Study(small_unet.program(), given, AssignConfig(**SETTINGS))
    errors = study.problem.errors
    assert (errors[:, 0] == 0).all()
    wanted = np.stack([
        [sloped(study, row, name, given.guidance) for name in ("w8", "w8a8")] for row in range(len(study.products))
    ])  # fmt: skip
    np.testing.assert_allclose(errors[:, 1:], wanted, rtol=TOLERANCE)


def sloped(study: Study, row: int, name: FormatName, guidance: Guidance) -> float:
    """Noise over signal, in power, of a hundredth of what the product changes, a hundred times that."""
    one = study.products[row]
    changed = study.build({**study.uniform("float32"), one.name: name})
    noise = signal = 0.0
    for call in (small_unet.calls()[0], small_unet.calls()[-1]):
        plain, other = (Interpreter(program, [one.name])(call) for program in (small_unet.program(), changed))
        graph = small_unet.program().variants["full"].graph
        after = TorchGraph(graph, ["output"], given={one.name})
        feeds = {name: torch.tensor(value) for name, value in call.items()}
        moved = [
            after(
                {
                    **feeds,
                    one.name: torch.tensor(plain[one.name] + step * (other[one.name] - plain[one.name])),
                }
            )
            for step in (0.01, -0.01)
        ]
        slope = (moved[0]["output"] - moved[1]["output"]).double() / 0.02
        noise += float(guidance.taken(slope).square().sum())
        signal += float(np.square(guidance.taken(plain["output"].astype(float))).sum())
    return noise / signal


def test_few_bits_disturb_by_their_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As measured, to a factor of two."""
    monkeypatch.setattr(sensitivity, "PROBES", PROBES)
    measured, found = (noise(context(), errors=how) for how in ("measured", "gradients"))
    np.testing.assert_allclose(np.log2(found[:, 1:]), np.log2(measured[:, 1:]), atol=1)


def test_calls_that_are_done_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "TOGETHER", 1)
    done, squares = list[int](), gradients.Gradients.squares

    def counted(one: gradients.Gradients, calls: Sequence[object], seed: int) -> object:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(seed)
        return squares(one, calls, seed)  # pyright: ignore[reportArgumentType]

    whole = noise(context(tmp_path / "whole"))
    monkeypatch.setattr(gradients.Gradients, "squares", counted)
    with pytest.raises(KeyboardInterrupt):
        noise(context(tmp_path))
    done[:] = [-1, -1]
    np.testing.assert_array_equal(noise(context(tmp_path)), whole)
    assert done == [-1, -1, 1]


def assigned(program: Program) -> str:
    config = AssignConfig(budget="bytes=0.5x", least_depth=1, calls=1)
    return apply([Assign(config)], program, context()).history[-1].effect["errors"]


def test_where_torch_cannot_tell_products_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assigned(small_unet.program()) == "gradients"
    with monkeypatch.context() as patch:
        patch.delitem(torch_operators.OPERATORS, "Swish")
        assert assigned(small_unet.program()) == "measured"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert assigned(small_unet.program()) == "measured"
