"""Measure a bundle, beside peers running the model it was compiled from, in interleaved rounds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir import referee
from ..ir.errors import UserError, first_line
from ..runtime import Model
from .frontends import import_model

MIDDLE = 10
"""A timestep or noise level that every model knows."""

SETTLE_S = 0.05
"""Waiting threads of most systems spin for a while after a run: the next system's turn starts when they sleep."""

Run = Callable[[], NDArray[Any]]


@dataclass
class Timing:
    """Seconds of one call: every round, in order.

    ``max_abs_diff`` is between this system's output and the bundle's; ``relative_diff`` is the same in standard
    deviations of this system's output.
    """

    rounds_s: list[float] = field(default_factory=list[float])
    max_abs_diff: float = 0.0
    relative_diff: float = 0.0

    def summary(self) -> dict[str, Any]:
        return {
            "median": statistics.median(self.rounds_s),
            "min": min(self.rounds_s),
            "max": max(self.rounds_s),
            "rounds": len(self.rounds_s),
        }


def bench(
    bundle: Path,
    *,
    model: Any = None,
    peers: Sequence[str] = (),
    rounds: int = 10,
    threads: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Time one call of a bundle and, in turn with it, of each peer on ``model``, the bundle's source.

    Every round runs each system once, so that a machine whose speed drifts is as unfair to all. Returns
    ``step_s``, ``peak_bytes``, ``weight_bytes`` and per peer ``step_s``, ``ratio`` (ours over theirs, the median
    of the rounds' ratios), ``max_abs_diff`` and ``relative_diff``.
    """
    if peers and model is None:
        raise UserError("peers run the source model: give it with --model")
    with Model(bundle, threads=threads) as ours:
        feeds: dict[str, Any] = example_inputs(ours, seed)
        runners: dict[str, Run] = {"fick": lambda: next(iter(ours.run(**feeds).values()))}
        for name in peers:
            runners[name] = peer(name, model, feeds, threads)
        timings = measure(runners, rounds, progress)
        memory = ours.memory
        result: dict[str, Any] = {
            "bundle": str(bundle),
            "target": ours.manifest["target"].get("name"),
            "random_weights": ours.manifest.get("random_weights", False),
            "step_s": timings["fick"].summary(),
            "peak_bytes": memory.peak_bytes,
            "weight_bytes": memory.weights_bytes,
            "peers": {},
        }
    for name in peers:
        pairs = zip(timings["fick"].rounds_s, timings[name].rounds_s, strict=True)
        result["peers"][name] = {
            "step_s": timings[name].summary(),
            "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
            "max_abs_diff": timings[name].max_abs_diff,
            "relative_diff": timings[name].relative_diff,
        }
    return result


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


def measure(
    runners: Mapping[str, Run], rounds: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, Timing]:
    """One warm-up of each, then ``rounds`` in which each runs once."""
    timings = {name: Timing() for name in runners}
    first = {name: run() for name, run in runners.items()}
    reference = next(iter(first.values())).astype(np.float64)
    for name, output in first.items():
        timings[name].max_abs_diff = float(np.abs(output - reference).max())
        timings[name].relative_diff = timings[name].max_abs_diff / max(float(output.std()), 1e-30)
    for done in range(rounds):
        for name, run in runners.items():
            time.sleep(SETTLE_S)
            started = time.perf_counter()
            run()
            timings[name].rounds_s.append(time.perf_counter() - started)
        if progress:
            progress(done + 1, rounds)
    return timings


def peer(name: str, source: Any, feeds: Mapping[str, NDArray[Any]], threads: int) -> Run:
    """Another system, ready to run ``source`` on ``feeds``.

    ``source`` is what ``import_model`` takes. Raises UserError for a peer that is unknown, not installed, or
    cannot read the source.
    """
    if name not in PEERS:
        raise UserError(f"peer {name!r} is not known; the peers are {', '.join(PEERS)}")
    if str(source).endswith(".onnx") and not Path(source).is_file():
        raise UserError(f"{source}: no such file; give the bundle's source with --model")
    try:
        return PEERS[name](source, dict(feeds), threads or len(os.sched_getaffinity(0)))
    except UserError:
        raise
    except Exception as error:  # Each peer raises its own kinds on a model that it cannot read.
        raise UserError(
            f"peer {name} cannot run {source} on the bundle's inputs: {first_line(error)}"
        ) from error


def _onnxruntime(source: Any, feeds: dict[str, NDArray[Any]], threads: int) -> Run:
    """ONNX Runtime on an .onnx file as it is; on any other source in canonical form."""
    model = (
        Path(source) if str(source).endswith(".onnx") else import_model(source, shapes=_sizes(feeds)).model
    )
    session = referee.session(model, threads=threads)
    return lambda: np.asarray(session.run(None, feeds)[0])


def _openvino(source: Any, feeds: dict[str, NDArray[Any]], threads: int) -> Run:
    """OpenVINO reads .onnx files only, and of those not the newest opsets: it is given the user's own."""
    try:
        import openvino  # pyright: ignore[reportMissingImports] - the extra "peers" brings it
    except ImportError:
        raise UserError(
            "peer openvino is not installed; install it with `pip install 'fick[peers]'`"
        ) from None
    if not str(source).endswith(".onnx"):
        raise UserError("peer openvino runs .onnx files only; give one with --model, or leave openvino out")
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
    model = core.read_model(str(source))
    model.reshape(_sizes(feeds))
    request = core.compile_model(model, "CPU", options).create_infer_request()
    return lambda: np.array(next(iter(request.infer(feeds).values())))


def _sizes(feeds: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    """The bundle's own sizes: the source by itself may be imported at others."""
    return {name: list(value.shape) for name, value in feeds.items()}


PEERS: dict[str, Callable[[Any, dict[str, NDArray[Any]], int], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
