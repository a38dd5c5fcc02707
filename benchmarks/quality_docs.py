"""Writes the tables of docs/quality.md from what the benchmarks wrote with --json.

    python benchmarks/quality_docs.py --precision out/precision.json --caching out/caching.json

Tables whose figures are not given stay as they are; what is said around them is for whoever reads them to see to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
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
    near = facts["fidelity"]
    exact = near["latent_error"]["value"] == 0
    return [
        name,
        f"{facts['weight_bits']:.2f}",
        "-" if exact else number(near["psnr_db"], 1),
        "-" if exact else f"{near['ssim']['value']:.3f}",
        *judged(facts["judged"]["candidate"]),
        f"{facts['step']['ratio']:.2f}x",
    ]


def reused_steps(name: str, facts: Facts) -> list[str]:
    return [
        name,
        f"{facts['image_s']['speed_up']:.2f}",
        f"{facts['cost']['weight_bytes'] / 1e6:.1f}",
        "-" if facts["policy"] == "uncached" else number(facts["psnr_db"], 1),
        *judged(facts),
    ]


JUDGED = ("category", "retrieval", "Fréchet distance")
TABLES: dict[str, tuple[tuple[str, ...], Callable[[str, Facts], list[str]]]] = {
    "precision": (("row", "weight bits", "PSNR, dB", "SSIM", *JUDGED, "step"), fewer_bits),
    "caching": (("row", "times as fast", "weights, MB", "PSNR, dB", *JUDGED), reused_steps),
}


def table(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [heading, ["---"] * len(heading), *lines])


def between(text: str, name: str, made: str) -> str:
    """The page with another table between its marks. Raises BadParameter where there are none."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise typer.BadParameter(
            f"{PAGE} has no {begin.strip()} and {end.strip()}; put them around the table"
        )
    return before + begin + made + end + after


def main(
    precision: Annotated[Path | None, typer.Option(help="What benchmarks/precision.py wrote.")] = None,
    caching: Annotated[Path | None, typer.Option(help="What benchmarks/caching.py wrote.")] = None,
) -> None:
    """Put the given figures into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, place in {"precision": precision, "caching": caching}.items():
        if place is not None:
            heading, line = TABLES[name]
            rows = json.loads(place.read_bytes())
            text = between(text, name, table(heading, [line(row, facts) for row, facts in rows.items()]))
    write_whole(PAGE, text.encode())


if __name__ == "__main__":
    typer.run(main)
