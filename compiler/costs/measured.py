"""What a program costs on this machine, measured: it is compiled, run, and every call timed."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...ir.files import write_whole
from ...ir.program import Program
from ...ir.saved import pack
from ...passes.costs import Cost
from ...runtime import Model
from ...targets.profile import Target
from ..bench.compare import example_inputs
from ..bench.rounds import SETTLE_S
from ..cache import digest
from .joining import anchors, named, owned
from .predicted import Predicted, planned

Seconds = Mapping[str, float]
"""By anchor."""


@dataclass
class Measured:
    """Program -> seconds of its nodes in ``rounds`` runs on noise, by the profile's kernels, which this machine must be
    able to run.

    The first program that is asked for takes the lower quartile of its runs. What else a machine does adds to times,
    and mostly for longer than a run takes, so that all later ones run in turns with it, and take the median share of
    its time. Nodes have their part of that as their medians have. Bytes are those of the prediction, which are exact.
    What was measured is kept in ``folder`` by content.
    """

    profile: Target
    folder: Path
    precision: str = "float32"
    rounds: int = 24
    _first: Program | None = field(default=None, init=False, repr=False, compare=False)
    _beside: Timed | None = field(default=None, init=False, repr=False, compare=False)

    def __call__(self, program: Program) -> Cost:
        program = replace(program, history=[])
        if self._first is None:
            self._first = program.copy()
        plan = planned(program, self.profile, self.precision)
        contents = [hashlib.sha256(pack(one)).hexdigest() for one in (program, self._first)]
        settings = [self.profile.model_dump_json(), self.precision, self.rounds]
        place = self.folder / "costs" / f"{digest({}, [*settings, *contents])}.json"
        if not place.is_file():
            found = self._alone(program) if contents[0] == contents[1] else self._in_turns(program)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, json.dumps(found).encode())
        kernels: dict[str, tuple[Hashable, ...]] = defaultdict(tuple)
        for node, call in plan.calls["full"]:
            kernels[node] += (call.kernel,)
        sizes = Predicted(self.profile, self.precision).of(plan)
        return Cost({**sizes.by_node, "latency": json.loads(place.read_bytes())}, dict(kernels))

    def _alone(self, program: Program) -> Seconds:
        self._beside = Timed(self, program)
        rounds = [self._beside.once() for _ in range(self.rounds)]
        return _parts(rounds, float(np.quantile([sum(one.values()) for one in rounds], 0.25)))

    def _in_turns(self, program: Program) -> Seconds:
        assert self._first is not None
        whole = self(self._first).total("latency")
        if self._beside is None:
            self._beside = Timed(self, self._first)
        own = Timed(self, program)
        rounds = [(own.once(), sum(self._beside.once().values())) for _ in range(self.rounds)]
        share = float(np.median([sum(one.values()) / beside for one, beside in rounds]))
        return _parts([one for one, _ in rounds], share * whole)


def _parts(rounds: Sequence[Seconds], whole: float) -> Seconds:
    """Of the whole, those of nodes: their medians by themselves, which leave out what a run has suffered, add up to
    less.
    """
    medians = {node: float(np.median([one[node] for one in rounds])) for node in rounds[0]}
    together = sum(medians.values())
    return {node: whole * seconds / together for node, seconds in medians.items()}


class Timed:
    """A program, compiled and loaded."""

    def __init__(self, wanted: Measured, program: Program) -> None:
        from ..bundle.build import build, tensors  # slow to load, and they load recipes, which load this
        from ..frontends import Imported
        from ..programs import structure

        model = named(program).variants["full"]
        numbers = tensors(model)
        rates = {name: rate.value for name, rate in program.rates.items()}
        imported = Imported(model, program.name, "program", rates, program.weights)
        skeleton = build(
            {"program": imported},
            wanted.profile,
            wanted.folder,
            name=program.name,
            precision=wanted.precision,
        )
        with tempfile.TemporaryDirectory(prefix="fick-costs-") as scratch:
            bundle = Path(scratch) / "program.fick"
            skeleton.write(bundle, {"program": numbers})
            self._owners = anchors(structure(bundle).variants["full"])
            self._opened = Model(bundle, threads=wanted.profile.cores)
        self._feeds = example_inputs(self._opened, 0)

    def once(self) -> Seconds:
        """A call's, after one that pays for threads that slept and caches gone cold."""
        time.sleep(SETTLE_S)
        for _ in range(2):
            self._opened.run(**self._feeds)
        found: dict[str, float] = defaultdict(float)
        calls = [call for call in self._opened.profile() if call.variant == "full"]
        for node, call in owned(calls, self._owners):
            found[node] += call.seconds
        return found
