"""What may be said of the pass schedule-reuse."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ..base import PassConfig
from ..budget import Limit, read

Steps = Annotated[int, Field(ge=2)]


class ScheduleReuseConfig(PassConfig):
    budget: str = Field(
        default="latency=0.5x",
        description="Most that a step may cost in the mean: latency=0.5x of a full one, latency=20ms, energy=0.5x.",
    )
    floor: float | None = Field(
        default=None, gt=0,
        description="In place of the budget, most that final latents may be off: |ours - theirs| / |theirs| [1].",
    )  # fmt: skip
    variants: int = Field(
        default=4, ge=2, le=5, description='Graphs that are compiled, "full" among them [variants].'
    )
    steps: tuple[Steps, ...] = Field(
        default=(20, 50), min_length=1,
        description="Loops to measure and make schedules for; others follow the nearest [steps].",
    )  # fmt: skip
    longest: int = Field(default=8, ge=1, le=20, description="That a state may be kept for [steps].")
    pictures: int = Field(
        default=4, ge=1, description="By which errors and schedules are measured [pictures]."
    )
    probes: int = Field(
        default=10, ge=2, description="Steps at which the influence of an error is measured [steps]."
    )
    evaluations: int = Field(
        default=24, ge=1,
        description="Schedules that pictures are drawn with, for each number of steps [schedules].",
    )  # fmt: skip

    @field_validator("budget")
    @classmethod
    def _single(cls, text: str) -> str:
        limits = read(text)
        if len(limits) != 1 or limits[0].quantity == "bytes":
            raise ValueError(f"{text!r} should be one budget of latency or energy, such as latency=0.4x")
        return text

    @property
    def limit(self) -> Limit:
        return read(self.budget)[0]
