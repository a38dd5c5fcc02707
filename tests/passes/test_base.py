"""The pass protocol: history, configuration, and what a pass may ask of its surroundings."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
from pydantic import Field, ValidationError

from fick.compiler.pipeline import pipeline
from fick.ir.errors import UserError
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, Pass, PassConfig, apply


class ScaleConfig(PassConfig):
    factor: int = Field(default=2, ge=1, description="What the count is multiplied by [1].")


class Scale(Pass[ScaleConfig]):
    name = "scale"
    Config = ScaleConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        samples = context.require("calibration", self.name)
        return program, {"count": self.config.factor * len(samples)}


class Break(Pass[ScaleConfig]):
    name = "break"
    Config = ScaleConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        return Program(program.name, program.variants, rates={}), {}


def program() -> Program:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 23]> g (float[2] x) => (float[2] y) { y = Sqrt(x) }'
    )
    return Program("root", {"full": model}, {"x": Rate.SAMPLE})


def test_history_tells_what_each_pass_did() -> None:
    before = program()
    after = apply([Scale(), Scale(ScaleConfig(factor=5))], before, Context(calibration=[{}, {}, {}]))
    assert [(entry.pass_name, entry.config, entry.effect) for entry in after.history] == [
        ("scale", {"factor": 2}, {"count": 6}),
        ("scale", {"factor": 5}, {"count": 15}),
    ]
    assert all(entry.seconds >= 0 for entry in after.history)
    assert before.history == []


def test_a_missing_need_names_itself_and_the_pass() -> None:
    with pytest.raises(UserError, match="pass scale needs calibration"):
        apply([Scale()], program(), Context())


def test_a_pass_cannot_return_an_invalid_program() -> None:
    with pytest.raises(UserError, match="variant full reads x, which nothing gives"):
        apply([Break()], program(), Context())


@pytest.mark.parametrize("one", pipeline(), ids=lambda one: one.name)
def test_configurations_are_frozen_closed_and_documented(one: Pass[Any]) -> None:
    with pytest.raises(ValidationError):
        one.Config.model_validate({"no_such_key": 1})
    assert one.Config.model_config.get("frozen")
    for name, field in one.Config.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name
