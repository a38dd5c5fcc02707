"""Steps of a model that caches: what each of its alternatives takes, and whether loops are as much faster as that says.

    python benchmarks/variants.py [--model sd-1.5] [--interval 5] [--depth 1] [--steps 50] [--rounds 5] [--json FILE]

Compiles the model with DeepCache, random weights being enough, and times each alternative in turn with the others,
beside what the times of its layers in a full step have it take. Then whole loops, the schedule's in turn with one of
full steps: the speed-up that comes of it, beside the one that the layers' times predict.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from json_file import JsonFile, write_json
from numpy.typing import NDArray
from tables import show_table

import fick
from fick.compiler.bench.alternatives import Alternative, alternatives, predicted
from fick.compiler.bench.compare import example_inputs
from fick.compiler.bench.rounds import interleave
from fick.compiler.progress import Silent, terminal
from fick.compiler.recipes import Recipe
from fick.passes.caching import DeepCache, DeepCacheConfig
from fick.runtime import Model


@dataclass
class Loop:
    """Calls of a model one after the other, each of the alternative that ``order`` says, as a ``System``. Seconds are
    those of the calls, all of which are kept by alternative.
    """

    model: Model
    order: Sequence[str]
    feeds: Mapping[str, Any]
    each: dict[str, Alternative] = field(init=False)
    calls: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.each = {name: Alternative(self.model, name, self.feeds) for name in self.order}
        self.calls = {name: [] for name in self.order}

    def output(self) -> NDArray[Any]:
        self.model.begin()
        return [self.each[name].output() for name in self.order][-1]

    def seconds(self) -> float:
        self.model.begin()
        taken = [(name, self.each[name].seconds()) for name in self.order]
        for name, seconds in taken:
            self.calls[name].append(seconds)
        return sum(seconds for _, seconds in taken)


def main(
    model: Annotated[str, typer.Option(help="What fick compiles.")] = "sd-1.5",
    target: Annotated[str, typer.Option(help="A device profile.")] = "host",
    interval: Annotated[int, typer.Option(help="From one full step to the next.")] = 5,
    depth: Annotated[int, typer.Option(help="Skip connections whose branches every step runs.")] = 1,
    steps: Annotated[int, typer.Option(help="Of a loop.")] = 50,
    rounds: Annotated[int, typer.Option(help="Of loops; steps are timed as often.")] = 5,
    threads: Annotated[int, typer.Option(help="0 takes all.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Print a row an alternative, and what the schedule's loop gains."""
    with terminal() as reporter, tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "cached.fick"
        cache = DeepCache(DeepCacheConfig(interval=interval, depth=depth, steps=(steps,)))
        fick.compile(model, target, output=bundle, recipe=Recipe(passes=(cache,)), reporter=reporter)
        with Model(bundle, threads=threads) as opened:
            found = measured(opened, steps, rounds, reporter)
        reporter.finish()
    show(found, f"{model}, DeepCache N={interval}, depth {depth}")
    write_json(json_file, found)


def measured(model: Model, steps: int, rounds: int, reporter: Silent) -> dict[str, Any]:
    feeds = example_inputs(model, 0)
    model.begin()
    reporter.stage("steps")
    each = alternatives(model, feeds, rounds, reporter.update)
    order = model.order(steps)
    whole, cached = Loop(model, ["full"] * steps, feeds), Loop(model, order, feeds)
    reporter.stage("loops")
    timings = interleave({"uncached": whole, "cached": cached}, rounds, reporter.update)
    speed_up = timings["uncached"].ratio_to(timings["cached"])
    # A call that follows another at once takes less than one after a pause: the layers are those of the loop.
    layers, calls = whole.each["full"].layers, whole.calls["full"]
    steps_s = {name: predicted(layers, calls, one.layers) for name, one in cached.each.items()}
    expected = steps * statistics.median(calls) / sum(steps_s[name] for name in order)
    return {
        "alternatives": each,
        "runs": {name: order.count(name) for name in each},
        "loop_s": {name: one.summary() for name, one in timings.items()},
        "speed_up": speed_up,
        "predicted_speed_up": expected,
        "off": speed_up / expected - 1,
    }


def show(found: Mapping[str, Any], title: str) -> None:
    lines = [
        (
            name,
            str(found["runs"][name]),
            str(one["layers"]),
            f"{1e3 * one['step_s']['median']:.2f}",
            f"{1e3 * one['predicted_s']:.2f}",
            f"{one['ratio']:.3f}",
            f"{one['predicted_ratio']:.3f}",
        )
        for name, one in found["alternatives"].items()
    ]
    headings = ("alternative", "runs", "layers", "step, ms", "by its layers, ms", "share", "by its layers")
    show_table(title, headings, lines)
    print(
        f"a loop is {found['speed_up']:.3f} times as fast, {found['predicted_speed_up']:.3f} by its layers: "
        f"{100 * found['off']:+.1f} %"
    )


if __name__ == "__main__":
    typer.run(main)
