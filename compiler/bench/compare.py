"""A bundle beside peers that run the model it was compiled from, and its layers beside the limit of the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import UserError
from ...runtime import Model
from ..frontends import open_source
from ..programs import structure
from .alternatives import alternatives
from .child import Child
from .layers import Profiler, by_kind, total
from .limits import Peaks
from .peers import Precision, Task, known
from .rounds import Here, Progress, Timing, interleave

OURS = "fick"

MIDDLE = 10
"""A timestep or noise level that every model knows."""


def bench(
    bundle: Path,
    *,
    model: Any = None,
    peers: Sequence[str] = (),
    precision: Precision | None = None,
    rounds: int = 10,
    threads: int = 0,
    layers: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time one call of a bundle and, in turn with it, of each peer on ``model``, the bundle's source.

    Peers come one after another, each in a process of its own and in rounds of its own with the bundle: the memory
    that this takes is the bundle's and one peer's. ``precision`` is what the peers compute in, float32
    by default.

    Returns ``step_s``, ``peak_bytes``, ``weight_bytes``, ``cores`` and per peer ``step_s``, ``ratio`` (ours over
    theirs, the median of the rounds' ratios), ``max_abs_diff``, ``relative_diff`` and ``resident_bytes`` (of the
    peer's process), or ``failed``, the sentence that says why it could not. With ``layers`` also ``peaks``, what the
    machine can do at most, ``layers``, ``kinds`` and ``total``: see `Layer.summary` and `total`. Of a model that steps
    run alternatives of, also ``alternatives``: see `alternatives`.

    Raises UserError for a bundle that is not the compiler's, for a peer that is not known, for a model that is not
    there, and for a model or a precision that no peer is to run.
    """
    if peers and model is None:
        raise UserError("peers run the source model: give it with --model")
    if model is not None and not peers:
        raise UserError(f"--model {model} is for peers to run; name them, as in --against onnxruntime")
    if precision is not None and not peers:
        raise UserError(
            f"--precision {precision} is for peers to compute in; name them, as in --against onnxruntime"
        )
    for name in peers:
        known(name)
    if model is not None:
        open_source(model)
    profiler = Profiler(structure(bundle)) if layers else None
    peaks = _peaks(threads) if layers else None
    with Model(bundle, threads=threads) as opened:
        task = Task(model, example_inputs(opened, seed), threads, precision or "float32")
        ours = _Ours(opened, task.feeds, profiler)
        beside = {name: _beside(ours, name, task, rounds, progress) for name in peers}
        if not ours.timing.rounds_s:
            interleave({OURS: ours}, rounds, progress)
        each = alternatives(opened, task.feeds, rounds, progress) if opened.alternatives[1:] else {}
        memory, manifest = opened.memory, opened.manifest
    result: dict[str, Any] = {
        "bundle": str(bundle),
        "target": manifest["target"].get("name"),
        "random_weights": manifest.get("random_weights", False),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": task.workers,
        "step_s": ours.timing.summary(),
        "peak_bytes": memory.peak_bytes,
        "weight_bytes": memory.weights_bytes,
        "precision": task.precision,
        "peers": beside,
        **({"alternatives": each} if each else {}),
    }
    if profiler and peaks:
        found = profiler.layers(peaks, memory.peak_bytes)
        result |= {
            "peaks": peaks.summary(),
            "total": total(found),
            "kinds": by_kind(found),
            "layers": [layer.summary() for layer in found],
        }
    return result


def _peaks(threads: int) -> Peaks:
    from .peaks import measure_peaks  # Brings TVM, which is slow to load.

    return measure_peaks(threads)


@dataclass
class _Ours:
    """The bundle as a ``System``; keeps every round, whichever peer it was beside."""

    model: Model
    feeds: Mapping[str, Any]
    profiler: Profiler | None
    timing: Timing = field(default_factory=Timing)

    def output(self) -> NDArray[Any]:
        return next(iter(self.model.run(**self.feeds).values()))

    def seconds(self) -> float:
        seconds = Here(self.output).seconds()
        self.timing.rounds_s.append(seconds)
        if self.profiler:
            self.profiler.record(self.model.profile())
        return seconds


def _beside(ours: _Ours, name: str, task: Task, rounds: int, progress: Progress | None) -> dict[str, Any]:
    try:
        with Child(name, task) as peer:
            timings = interleave({OURS: ours, name: peer}, rounds, progress)
            resident_bytes = peer.resident_bytes()
    except UserError as error:
        return {"failed": str(error)}
    return {
        "step_s": timings[name].summary(),
        "ratio": timings[OURS].ratio_to(timings[name]),
        "max_abs_diff": timings[name].max_abs_diff,
        "relative_diff": timings[name].relative_diff,
        "rms_diff": timings[name].rms_diff,
        "resident_bytes": resident_bytes,
    }


def example_inputs(model: Model, seed: int) -> dict[str, Any]:
    """Inputs of the right shapes: noise for the sample and the prompt, a mid-range number for the step.

    A step called sigma is a noise level, and the sample has it.
    """
    rng = np.random.default_rng(seed)
    noisy = MIDDLE if any(name.startswith("sigma") for name in model.inputs) else 1
    feeds: dict[str, NDArray[Any]] = {}
    for info in model.inputs.values():
        if info.rate == "step":
            feeds[info.name] = np.full(info.shape, MIDDLE, info.dtype)
        elif info.dtype == "float32":
            level = noisy if info.rate == "sample" else 1
            feeds[info.name] = level * rng.standard_normal(info.shape, dtype=np.float32)
        else:
            feeds[info.name] = np.zeros(info.shape, info.dtype)
    return feeds
