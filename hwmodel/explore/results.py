"""A search's results: every design that was timed as a table, and the front as specs that ``fick estimate`` takes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..hardware import Hardware
from .measures import COLUMNS
from .problem import Outcome, Problem
from .search import Found

Row = dict[str, Any]


def rows(found: Found) -> list[Row]:
    """Designs that were timed, by number: what each chooses, its measures, whether it keeps to limits and is best."""
    space = found.problem.space
    return [
        {
            "design": one.number,
            "front": one.number in found.front.costs,
            "feasible": found.problem.feasible(one.measures),
        }
        | space.labels(one.number)
        | {column: one.measures[column] for column in COLUMNS if column in one.measures}
        for one in sorted(found.evaluated(), key=lambda one: one.number)
    ]


def table(some: list[Row]) -> bytes:
    """As CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(some[0]) if some else ["design"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(some)
    return text.getvalue().encode()


def parquet(some: list[Row]) -> bytes:
    import pyarrow
    from pyarrow import parquet as files

    buffer = io.BytesIO()
    files.write_table(pyarrow.Table.from_pylist(some), buffer)
    return buffer.getvalue()


def spec_name(problem: Problem, number: int) -> str:
    return f"{problem.space.hardware.spec.name}-{number}"


def is_spec_name(name: str) -> bool:
    """Whether ``spec_name`` may have given it, for whatever problem."""
    return re.fullmatch(r".+-\d+", name) is not None


def spec_file(problem: Problem, outcome: Outcome, command: str) -> bytes:
    """A design as a spec: constants that it has from the spec of the space keep their labels. ``command`` says how to
    come by its measures again.
    """
    space, number = problem.space, outcome.number
    spec = space.spec(number).model_copy(
        update={
            "name": spec_name(problem, number),
            "description": f"Design {number} of a space over {space.hardware.spec.name}",
        }
    )
    measures = ", ".join(f"{column} {value:.6g}" for column, value in outcome.measures.items())
    lines = [f"# {command}", f"# {measures}"]
    tree = spec.model_dump(mode="json")
    kept = Hardware(spec, {
        path: known for path, known in space.hardware.provenance.items()
        if path not in {*space.changes(number), "name", "description"} and known.label != "given"
    })  # fmt: skip
    return "\n".join([*lines, *_toml(tree, kept), ""]).encode()


def _toml(tree: Mapping[str, Any], hardware: Hardware, path: str = "") -> Iterator[str]:
    """A table: its values, then its tables. JSON writes numbers, strings and lists as TOML does."""
    for key, value in tree.items():
        if not isinstance(value, dict):
            known = hardware.provenance.get(f"{path}{key}")
            text = json.dumps(value, ensure_ascii=False)
            if known is not None:
                source = json.dumps(known.source, ensure_ascii=False)
                text = f'{{ value = {text}, label = "{known.label}", source = {source} }}'
            yield f"{key} = {text}"
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"\n[{path}{key}]"
            yield from _toml(value, hardware, f"{path}{key}.")
