"""Writes a model's table of measured qualities, which `fick explore` looks quality up in.

    python benchmarks/quality_table.py [out/precision.json out/caching.json] [--output models/emoji-sd/quality.toml]

Takes what benchmarks/precision.py and benchmarks/caching.py wrote with --json, of the checkpoint that lies in --model.
Rows of that checkpoint which the table has already, and which were not measured anew, stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from fick.compiler.quality.table import (
    NAME,
    Measured,
    digest_of_weights,
    finite,
    read_table,
    weights_of,
    write_rows,
)
from fick.ir.files import write_whole

MODEL = Path(__file__).resolve().parents[1] / "models" / "emoji-sd"
PRECISION_STEPS = 20
"""Of benchmarks/precision.py."""


def rows(figures: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of either benchmark: a precision by its bits a weight, a cache by the share of the time that an image takes."""
    for name, facts in figures.items():
        cached = "policy" in facts
        near = facts if cached else {**facts["fidelity"], **facts["judged"]["candidate"]}
        row = {
            "name": name,
            "policy": facts["policy"] if cached else name,
            "at": float(1 / facts["image_s"]["speed_up"] if cached else facts["weight_bits"]),
            "steps": facts["steps"] if cached else PRECISION_STEPS,
        }
        measured = {key: finite(near[key]) for key in get_args(Measured) if key in near}
        yield row | {key: figure for key, figure in measured.items() if figure}


def main(
    figures: Annotated[list[Path] | None, typer.Argument(help="What the benchmarks wrote.")] = None,
    model: Annotated[Path, typer.Option(help="The diffusers folder that was judged.")] = MODEL,
    measure: Annotated[str, typer.Option(help="What quality means by default.")] = "retrieval_accuracy",
    output: Annotated[Path | None, typer.Option(help="The table. [default: beside the model]")] = None,
) -> None:
    """Write the table, and read it again as a check."""
    given = figures or [Path("out/precision.json"), Path("out/caching.json")]
    place, weights = output or model / NAME, digest_of_weights(weights_of(model))
    found: dict[str, dict[str, Any]] = {}
    if place.is_file() and (old := read_table(place)).weights == weights:
        found = {row.name: row.model_dump(exclude_none=True) for row in old.row}
    found |= {row["name"]: row for path in given for row in rows(json.loads(path.read_bytes()))}
    head = [
        "# Written by benchmarks/quality_table.py from measured figures; do not edit.",
        f"model = {json.dumps(model.name)}",
        f'weights = "{weights}"',
        f"measure = {json.dumps(measure)}",
    ]
    write_whole(place, ("\n".join(head) + "\n" + write_rows(found.values()) + "\n").encode())
    print(f"{place}: {len(read_table(place).row)} rows")


if __name__ == "__main__":
    typer.run(main)
