"""What every pass is: a configuration that documents itself, and a program -> program."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ..ir.errors import UserError
from ..ir.program import HistoryEntry, Program
from .costs import CostModel
from .guidance import UNGUIDED, Guidance


class PassConfig(BaseModel):
    """What a pass may be told: each parameter with its type, default, unit and a line of documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigT = TypeVar("ConfigT", bound=PassConfig)

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Trajectory:
    """One picture: inputs of its calls, in order, and the latents [channels, height, width] that came of them."""

    calls: Sequence[Arrays]
    latents: NDArray[Any]


Draw = Callable[[Program, int, int], Sequence[Trajectory]]
"""The first pictures of a calibration, drawn with a program in so many steps: how many is said last."""

Referee = Callable[[Program, Sequence[str]], Callable[[Arrays], Arrays]]
"""Of a program and names of values inside: a call of it, inputs to outputs and those values."""


@dataclass(frozen=True)
class Context:
    """What a pass may ask for. A pass imports none of it; a field that is None was not given.

    ``calibration``  inputs of calls along denoising trajectories
    ``drawn``        draws inputs of calls, which no trajectory meets: they show how large values become, and no more
    ``reference``    the program before the recipe's passes: what the float model computes, by the same names of values
    ``quality``      what a program's pictures are worth against the float model's
    ``draw``         whole pictures along a program's own trajectories
    ``guidance``     how the sampler joins the rows of these calls
    ``forward_snr``  signal over noise of the diffusion at a timestep, in power: alpha^2 / sigma^2
    ``cost_model``   what a program costs on its target, node by node
    ``work_folder``  where a pass keeps, by content, what took it long
    """

    seed: int = 0
    referee: Referee | None = None
    calibration: Sequence[Arrays] | None = None
    drawn: Callable[[], Sequence[Arrays]] | None = None
    reference: Program | None = None
    quality: Callable[[Program], Mapping[str, float]] | None = None
    draw: Draw | None = None
    guidance: Guidance = UNGUIDED
    forward_snr: Callable[[float], float] | None = None
    cost_model: CostModel | None = None
    progress: Callable[[int, int], None] | None = None
    work_folder: Path | None = None

    def require(self, field: str, wanted_by: str) -> Any:
        """The field's value. Raises UserError, before any work is done, if it was not given."""
        value: Any = getattr(self, field)
        if value is None or value == []:
            raise UserError(f"pass {wanted_by} needs {field.replace('_', ' ')}; give it when compiling")
        return value

    def require_draw(self, wanted_by: str) -> Draw:
        """Raises UserError, before any work is done, where no pictures can be drawn."""
        if self.draw is None:
            raise UserError(
                f"pass {wanted_by} draws pictures: calibrate with prompts, and compile the folder of a whole pipeline."
            )
        return self.draw


class Pass(ABC, Generic[ConfigT]):
    """One transformation."""

    name: ClassVar[str]
    Config: ClassVar[type[PassConfig]] = PassConfig
    needs: ClassVar[str] = ""
    """The kind of hardware without which the pass makes no sense; empty if any will do."""
    every_variant: ClassVar[bool] = False
    """Whether it changes all that a step may run, not "full" alone."""

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config: ConfigT = config if config is not None else self.Config()  # type: ignore[assignment]

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats (``ir.formats``) that kernels have to read to run what it writes."""
        return ()

    @abstractmethod
    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        """The transformed program, and what changed, as measured: numbers for the history."""


def apply(passes: Sequence[Pass[Any]], program: Program, context: Context) -> Program:
    """Run the passes in order; each one's configuration, effect and seconds are added to the history.

    Raises UserError for a pass that would change "full" alone of a program with other alternatives.
    """
    for one in passes:
        if program.schedule and not one.every_variant:
            raise UserError(f"pass {one.name} knows of no schedule; put it before the pass that makes one.")
        started = time.perf_counter()
        program, effect = one.run(program, context)
        program.validate()
        seconds = time.perf_counter() - started
        entry = HistoryEntry(one.name, one.config.model_dump(mode="json"), effect, seconds)
        program = replace(program, history=[*program.history, entry])
    return program
