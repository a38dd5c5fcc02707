"""Writes the tables of docs/quality.md from what the benchmarks wrote with --json.

    python benchmarks/quality_docs.py --precision out/precision.json --caching out/caching.json

Rows whose figures are not given stay as they are; what is said around them is for whoever reads them to see to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fick.ir.files import write_whole

PAGE = Path(__file__).resolve().parents[1] / "docs" / "quality.md"

Facts = dict[str, Any]


def percent(figure: dict[str, float]) -> str:
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def number(figure: dict[str, float], digits: int) -> str:
    value, low, high = (f"{figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def judged(facts: Facts) -> list[str]:
    return [
        percent(facts["category_accuracy"]),
        percent(facts["retrieval_accuracy"]),
        number(facts["frechet_distance"], 2),
    ]


def fewer_bits(name: str, facts: Facts) -> list[str]:
    return [name, f"{facts['weight_bits']:.2f}", *beside_float(facts)]


def fewer_blocks(name: str, facts: Facts) -> list[str]:
    return [name, f"{facts['weight_bytes'] / 1e6:.1f}", *beside_float(facts)]


def beside_float(facts: Facts) -> list[str]:
    near = facts["fidelity"]
    exact = near["latent_error"]["value"] == 0
    return [
        "-" if exact else number(near["psnr_db"], 1),
        "-" if exact else f"{near['ssim']['value']:.3f}",
        *judged(facts["judged"]["candidate"]),
        f"{facts['step']['ratio']:.2f}x",
    ]


def reused_steps(name: str, facts: Facts) -> list[str]:
    return [
        name.removesuffix(f", {facts['steps']} steps"),
        f"{facts['image_s']['speed_up']:.2f}",
        f"{facts['cost']['weight_bytes'] / 1e6:.1f}",
        "-" if facts["policy"] == "uncached" else number(facts["psnr_db"], 1),
        *judged(facts),
    ]


FLOAT = "float32"
JUDGED = ("category", "retrieval", "Fréchet distance")
BESIDE = ("PSNR, dB", "SSIM", *JUDGED, "step")
REUSED = ("row", "times as fast", "weights, MB", "PSNR, dB", *JUDGED)


@dataclass(frozen=True)
class Table:
    """``takes`` says of a row of the benchmark's, by its name and facts, whether it is one of these."""

    heading: tuple[str, ...]
    line: Callable[[str, Facts], list[str]]
    takes: Callable[[str, Facts], bool]


PRECISION = {
    "precision": Table(("row", "weight bits", *BESIDE), fewer_bits, lambda name, _: "pruned" not in name),
    "pruned": Table(("row", "MB", *BESIDE), fewer_blocks, lambda name, _: name == FLOAT or "pruned" in name),
}
CACHING = {
    "caching": Table(REUSED, reused_steps, lambda _, facts: facts["steps"] == 50),
    "caching, 20 steps": Table(REUSED, reused_steps, lambda _, facts: facts["steps"] == 20),
}


def between(text: str, name: str, wanted: Table, rows: dict[str, Facts]) -> str:
    """The page with rows in the table between its marks, in the places of those of their names, or behind them. Raises
    BadParameter where there are no marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    old, ended, after = rest.partition(end)
    if not found or not ended:
        raise typer.BadParameter(
            f"{PAGE} has no {begin.strip()} and {end.strip()}; put them around the table"
        )
    lines = [line.strip("| ").split(" | ") for line in old.splitlines()[2:]]
    lines += [wanted.line(name, facts) for name, facts in rows.items() if wanted.takes(name, facts)]
    told = [wanted.heading, ["---"] * len(wanted.heading), *{line[0]: line for line in lines}.values()]
    return before + begin + "".join(f"| {' | '.join(line)} |\n" for line in told) + end + after


def main(
    precision: Annotated[Path | None, typer.Option(help="What benchmarks/precision.py wrote.")] = None,
    caching: Annotated[Path | None, typer.Option(help="What benchmarks/caching.py wrote.")] = None,
) -> None:
    """Put the given figures into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for place, tables in ((precision, PRECISION), (caching, CACHING)):
        if place is not None:
            rows: dict[str, Facts] = json.loads(place.read_bytes())
            for name, wanted in tables.items():
                text = between(text, name, wanted, rows)
    write_whole(PAGE, text.encode())


if __name__ == "__main__":
    typer.run(main)
