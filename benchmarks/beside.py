"""A call of one bundle's UNet beside that of another, in interleaved rounds.

    python benchmarks/beside.py sd-float32.fick sd-w8a8.fick [--rounds 15]

Both take the same inputs, which are noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fick.compiler.bench.compare import example_inputs
from fick.compiler.bench.rounds import measure
from fick.compiler.progress import terminal
from fick.runtime import Model


def main(
    first: Annotated[Path, typer.Argument(help="A bundle of a UNet alone.")],
    second: Annotated[Path, typer.Argument(help="Another one, that takes the same.")],
    rounds: Annotated[int, typer.Option(help="In which each is called once.")] = 15,
) -> None:
    """Print medians, their quartiles and the ratio of times in a round."""
    with Model(first) as before, Model(second) as after, terminal() as reporter:
        reporter.stage("rounds")
        feeds = example_inputs(before, 0)
        runs = {
            str(path): lambda model=model: next(iter(model.run(**feeds).values()))
            for path, model in ((first, before), (second, after))
        }
        found = measure(runs, rounds, reporter.update)
        reporter.finish()
    for name, timing in found.items():
        seconds = timing.summary()
        low, middle, high = (1e3 * seconds[key] for key in ("quartile_1", "median", "quartile_3"))
        print(f"{name}: {middle:.1f} ms ({low:.1f} .. {high:.1f})")
    print(f"{found[str(first)].ratio_to(found[str(second)]):.2f} times as fast")


if __name__ == "__main__":
    typer.run(main)
