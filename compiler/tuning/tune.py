"""What runs fastest on this machine, measured: register tiles, minimal filtering, how work is divided.

Lowering chooses by prediction, and can say what else there was (`targets.lower.questions`). A model is compiled with
the second of every problem's choices, then with the third, and so on; each bundle runs in turns with that of the
predicted ones, so that every layer is timed where it stands, among the others and with weights that come from memory.
What beats the prediction goes to a file that `fick compile --tuned` takes, for this model and for others.
"""

from __future__ import annotations

import itertools
import json
import platform
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...ir.errors import UserError
from ...ir.files import check_place, write_whole
from ...runtime import Model
from ...targets.profile import load
from ..bench.compare import example_inputs
from ..compile import compile
from ..costs.joining import anchors, owned
from ..programs import structure
from ..progress import Silent
from .tuned import Tuned, read_tuned

if TYPE_CHECKING:  # slow to load: TVM
    from ...targets.lowering import Question


def tune(
    model: Any,
    output: Path,
    *,
    target: str = "host",
    choices: int = 6,
    rounds: int = 7,
    reporter: Silent | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure up to ``choices`` of every problem of ``model``'s step in ``rounds``; the file ``output`` gets them.

    ``settings`` are those of `compile`, such as ``recipe`` and ``precision``. What the file has already is not measured
    again, so an interrupted run goes on where it was. Returns ``problems``, ``changed`` (those that have a choice other
    than the predicted one) and ``ratio``: a step's time with these over that with the predicted ones, in turns.

    Raises UserError where the machine cannot run the target's code, and for whatever `compile` refuses.
    """
    from ...targets.lower import questions  # slow to load: TVM

    check_place(output)
    reporter = reporter or Silent()
    profile = load(target)
    if profile.arch != (machine := platform.machine()):
        raise UserError(
            f"--target {target} runs code for {profile.arch} and this machine is {machine}; tune on the device itself"
        )
    kept = read_tuned(output) if output.exists() else Tuned(target=profile.name, cores=profile.cores)
    kept.of(profile)
    with tempfile.TemporaryDirectory(prefix="fick-tune-") as scratch:

        def compiled(name: str, chosen: Mapping[str, str]) -> Path:
            reporter.stage(f"compile {name}")
            path = Path(scratch) / f"{name}.fick"
            tuned = profile.model_copy(update={"tuned": dict(chosen)})
            compile(model, tuned, path, **settings)
            return path

        predicted = compiled("predicted", {})
        asked = questions(structure(predicted), profile)
        shares = {problem: dict(found) for problem, found in kept.shares.items()}
        left = {
            problem: [name for name in question.choices[1:choices] if name not in shares.get(problem, {})]
            for problem, question in asked.items()
        }
        for number in itertools.count(1):
            trial = _trial(left, asked)
            if not trial:
                break
            other = compiled(f"trial {number} of {number + max(map(len, left.values()))} or so", trial)
            nodes = {node: problem for problem in trial for node in asked[problem].nodes}
            for problem, ratios in in_turns(predicted, other, rounds, nodes.get, reporter).items():
                if problem is not None:
                    shares.setdefault(problem, {})[trial[problem]] = round(statistics.median(ratios), 4)
            other.unlink()
            kept = kept.model_copy(update={"shares": shares})
            _write(kept, output)
        chosen = kept.choices()
        ratio = 1.0
        if any(problem in chosen for problem in asked):
            best = compiled("best", chosen)
            ratio = statistics.median(in_turns(predicted, best, rounds, lambda _: None, reporter)[None])
    _write(kept, output)
    reporter.finish()
    return {
        "problems": len(asked),
        "changed": sum(problem in chosen for problem in asked),
        "ratio": ratio,
        "output": str(output),
    }


def _trial(left: dict[str, list[str]], asked: Mapping[str, Question]) -> dict[str, str]:
    """A choice for every problem that has one left, taken from ``left``; but of a node's problems one alone, for its
    time would tell nothing of two.
    """
    trial: dict[str, str] = {}
    taken: set[str] = set()
    for problem, names in left.items():
        if names and taken.isdisjoint(asked[problem].nodes):
            trial[problem] = names.pop(0)
            taken |= asked[problem].nodes.keys()
    return trial


def in_turns(
    before: Path,
    after: Path,
    rounds: int,
    problem: Callable[[str], str | None],
    reporter: Silent,
) -> dict[str | None, list[float]]:
    """Seconds of ``after`` over those of ``before`` in every round, by the problem of a call's node.

    None stands for the whole step.
    """
    reporter.stage("measure")
    ratios: dict[str | None, list[float]] = defaultdict(list)
    with Model(before) as one, Model(after) as other:
        feeds = example_inputs(one, 0)
        owners = anchors(structure(before).variants["full"])
        for number in range(rounds + 1):
            seconds: list[dict[str | None, float]] = []
            for model in (one, other) if number % 2 else (other, one):
                model.run(**feeds)
                calls = [call for call in model.profile() if call.variant == "full"]
                spent: dict[str | None, float] = defaultdict(float)
                for node, call in owned(calls, owners):
                    spent[None] += call.seconds
                    if (name := problem(node)) is not None:
                        spent[name] += call.seconds
                seconds.append(spent)
            ours, theirs = seconds[::-1] if number % 2 else seconds
            if number:  # the first round warms up
                for name, its in theirs.items():
                    if its > 0:
                        ratios[name].append(ours[name] / its)
            reporter.update(number, rounds)
    return ratios


def _write(tuned: Tuned, output: Path) -> None:
    facts = tuned.model_dump()
    facts["shares"] = {problem: tuned.shares[problem] for problem in sorted(tuned.shares)}
    write_whole(output, (json.dumps(facts, indent=1) + "\n").encode())
