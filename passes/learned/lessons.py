"""How a student is taught, and how it goes on where it was interrupted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch as safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...ir.files import write_whole
from ..base import Arrays, Context
from ..guidance import Guidance
from .material import Material
from .torch_graph import TorchGraph

PARTS = 10
"""Of a lesson: after each the student is examined and what it has learned is kept."""

SIZED = 64
"""Calls by which it is told how large outputs and features are."""

WORTH = "worth"


class Pupil(Protocol):
    """A program as torch learns it. ``values`` are what is learned, by name, as functions of the ``variables``, whose
    groups have rates of their own.
    """

    @property
    def variables(self) -> Sequence[Sequence[Tensor]]: ...

    def graph(self, outputs: Sequence[str]) -> TorchGraph: ...

    def values(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Course:
    """How it is taught: ``rates`` are Adam's at first, of each group of variables, and fall as a cosine does.

    ``features`` are values inside that are to come out as the teacher's, each counting ``weight`` times as much as an
    output; squares are shares of the teacher's.
    """

    iterations: int
    batch: int
    device: str
    rates: Sequence[float]
    features: Sequence[str] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Lesson:
    """A student's errors on calls that it has not learned from, before and at its best, as which it is left."""

    before: float
    after: float


def teach(
    student: Pupil,
    given: Material,
    course: Course,
    place: Path | None,
    context: Context,
) -> Lesson:
    """Learn the student's variables from what the reference gives; go on from ``place``, if that is there."""
    graph = given.reference.variants["full"].graph
    names = [str(value.name) for value in graph.outputs]
    within = [*names, *course.features]
    teacher = TorchGraph(graph, within, device=course.device)
    questions = [_example(teacher, call, names, course.device) for call in given.unseen]
    region = student.graph(within)
    some = given.learning[:: math.ceil(len(given.learning) / SIZED)]
    answers = [_example(teacher, call, within, course.device)[1] for call in some]
    sizes = {
        name: sum(float(given.guidance.square(wanted[name])) for wanted in answers) / len(answers) or 1.0
        for name in within
    }
    counts = {name: sizes[name] / (course.weight if name in course.features else 1.0) for name in within}
    variables = [one for group in student.variables for one in group]
    optimiser = torch.optim.Adam([{"params": list(group)} for group in student.variables])

    def error() -> float:
        with torch.no_grad():
            return _error(region, student, questions, given.guidance)

    state = _State(place, variables, optimiser)
    done, before, best = state.restore() or (0, error(), math.inf)
    if not done:
        best = before
        state.keep_best()
    part = -(-course.iterations // PARTS)
    for iteration in range(done, course.iterations):
        for group, rate in zip(optimiser.param_groups, course.rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * iteration / course.iterations)) / 2
        optimiser.zero_grad()
        # By its number alone, so that a lesson that goes on draws what it would have drawn.
        draw = torch.Generator().manual_seed(context.seed * 1_000_003 + iteration)
        made = student.values()
        # Cut off, so that what makes the values runs once for all calls, forwards and backwards.
        values = {name: one.detach().requires_grad_(one.requires_grad) for name, one in made.items()}
        for index in torch.randint(len(given.learning), (course.batch,), generator=draw):
            # Asked again whenever it is drawn: answers to many calls, features and all, would fill the memory.
            inputs, wanted = _example(teacher, given.learning[int(index)], within, course.device)
            results = region({**inputs, **values})
            shares = [
                given.guidance.square(results[name] - one) / counts[name] for name, one in wanted.items()
            ]
            torch.autograd.backward(sum(shares, torch.zeros((), device=course.device)) / course.batch)
        slopes = {name: one.grad for name, one in values.items() if one.grad is not None}
        torch.autograd.backward([made[name] for name in slopes], list(slopes.values()))
        optimiser.step()  # pyright: ignore[reportUnknownMemberType]
        if context.progress is not None:
            context.progress(iteration + 1, course.iterations)
        if (iteration + 1) % part == 0 or iteration + 1 == course.iterations:
            if (now := error()) < best:
                best = now
                state.keep_best()
            state.save(iteration + 1, before, best)
    state.take_best()
    return Lesson(before, best)


Example = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Inputs of a call, and what is wanted."""


def _example(teacher: TorchGraph, call: Arrays, names: Sequence[str], device: str) -> Example:
    with torch.no_grad():
        inputs = {name: torch.tensor(value, device=device) for name, value in call.items()}
        answers = teacher(inputs)
        return inputs, {name: answers[name] for name in names}


def _error(region: TorchGraph, student: Pupil, questions: Sequence[Example], guidance: Guidance) -> float:
    noise = signal = 0.0
    values = student.values()
    for inputs, wanted in questions:
        given = region({**inputs, **values})
        for name, one in wanted.items():
            noise += float(guidance.taken(given[name] - one).square().sum())
            signal += float(guidance.taken(one).square().sum())
    return math.sqrt(noise / signal) if signal else 0.0


class _State:
    """What a lesson has to know to go on: variables, Adam's moments, and the variables at their best."""

    def __init__(self, place: Path | None, variables: Sequence[Tensor], optimiser: torch.optim.Adam) -> None:
        self._place = None if place is None else place.with_suffix(".safetensors")
        self._variables, self._optimiser = variables, optimiser
        self._best: list[Tensor] = []

    def keep_best(self) -> None:
        self._best = [one.detach().clone() for one in self._variables]

    def take_best(self) -> None:
        self._set(self._best)

    def save(self, iteration: int, before: float, best: float) -> None:
        if self._place is None:
            return
        tensors = {WORTH: torch.tensor([iteration, before, best], dtype=torch.float64)}
        tensors |= {f"variable {index}": one.detach() for index, one in enumerate(self._variables)}
        tensors |= {f"best {index}": one for index, one in enumerate(self._best)}
        moments: dict[int, dict[str, Tensor]] = self._optimiser.state_dict()["state"]
        for index, known in moments.items():
            tensors |= {f"adam {index} {key}": one for key, one in known.items()}
        self._place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._place, safetensors.save({key: one.contiguous() for key, one in tensors.items()}))

    def restore(self) -> tuple[int, float, float] | None:
        """Iterations done, the first error and the least; None if nothing was saved, or it is damaged."""
        if self._place is None:
            return None
        try:
            tensors = safetensors.load(self._place.read_bytes())
            iteration, before, best = (float(one) for one in tensors[WORTH])
            count = range(len(self._variables))
            found, at_best = (
                [tensors[f"{kind} {index}"] for index in count] for kind in ("variable", "best")
            )
            fits = all(
                mine.shape == one.shape == two.shape
                for mine, one, two in zip(self._variables, found, at_best, strict=True)
            )
            moments: dict[int, dict[str, Any]] = {index: {} for index in count}
            for key, one in tensors.items():
                if key.startswith("adam "):
                    _, index, what = key.split(" ")
                    moments[int(index)][what] = one
        except (OSError, KeyError, ValueError, SafetensorError):
            return None
        if not fits:
            return None
        self._set(found)
        self._best = [one.to(mine.device) for one, mine in zip(at_best, self._variables, strict=True)]
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        return int(iteration), before, best

    def _set(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for variable, value in zip(self._variables, values, strict=True):
                variable.copy_(value)
