"""What a program costs on this machine, measured: it is compiled, run, and every call timed."""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

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
from .predicted import Predicted


@dataclass(frozen=True)
class Measured:
    """Program -> lower quartiles of ``rounds`` runs on noise, by the profile's kernels, which this machine must be able
    to run. What else a machine does adds to times, and mostly for longer than a run takes: runs are apart.

    Bytes are those of the prediction, which are exact. What was measured is kept in ``folder`` by content.
    """

    profile: Target
    folder: Path
    precision: str = "float32"
    rounds: int = 24

    def __call__(self, program: Program) -> Cost:
        sizes = Predicted(self.profile, self.precision)(program)
        content = hashlib.sha256(pack(replace(program, history=[]))).hexdigest()
        name = digest({}, [self.profile.model_dump_json(), self.precision, self.rounds, content])
        place = self.folder / "costs" / f"{name}.json"
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, json.dumps(self._seconds(program)).encode())
        return Cost({**sizes.by_node, "latency": json.loads(place.read_bytes())})

    def _seconds(self, program: Program) -> dict[str, float]:
        """By anchor."""
        from ..bundle.build import build, tensors  # slow to load, and they load recipes, which load this
        from ..frontends import Imported
        from ..programs import structure

        model = named(program).variants["full"]
        numbers = tensors(model)
        rates = {name: rate.value for name, rate in program.rates.items()}
        imported = Imported(model, program.name, "program", rates, program.weights)
        skeleton = build(
            {"program": imported}, self.profile, self.folder, name=program.name, precision=self.precision
        )
        rounds: dict[str, list[float]] = defaultdict(list)
        with tempfile.TemporaryDirectory(prefix="fick-costs-") as scratch:
            bundle = Path(scratch) / "program.fick"
            skeleton.write(bundle, {"program": numbers})
            owners = anchors(structure(bundle).variants["full"])
            with Model(bundle, threads=self.profile.cores) as opened:
                feeds = example_inputs(opened, 0)
                for _ in range(self.rounds):
                    time.sleep(SETTLE_S)
                    # The first call after a rest pays for threads that slept and caches gone cold.
                    opened.run(**feeds)
                    opened.run(**feeds)
                    once: dict[str, float] = defaultdict(float)
                    calls = [call for call in opened.profile() if call.variant == "full"]
                    for node, call in owned(calls, owners):
                        once[node] += call.seconds
                    for node, seconds in once.items():
                        rounds[node].append(seconds)
        return {node: statistics.quantiles(seconds, n=4)[0] for node, seconds in rounds.items()}
