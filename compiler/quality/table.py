"""What compression did to a model's pictures, as measured: a table beside the model, looked up and never guessed at.

    model = "emoji-sd"
    weights = "5f0c..."   # digest of the checkpoint that was judged
    measure = "retrieval_accuracy"   # what quality means unless a space names another

    [[row]]
    name = "DeepCache N=3, 50 steps"
    policy = "DeepCache"  # rows of one policy are joined by a line
    at = 0.41             # where on it: here the share of the time that an image takes
    steps = 50
    psnr_db = { value = 27.1, low = 26.6, high = 27.6 }
    retrieval_accuracy = { value = 0.88, low = 0.84, high = 0.92 }

`python benchmarks/quality_table.py` writes it from the figures of benchmarks/precision.py and benchmarks/caching.py.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ...hwmodel.explore.measures import meant
from ...hwmodel.explore.space import QualityAt
from ...ir.errors import UserError, first_line
from ...ir.files import read_text

Measured = Literal["psnr_db", "ssim", "category_accuracy", "retrieval_accuracy"]
"""Measures of which more is better."""

NAME = "quality.toml"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Table):
    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class Row(_Table):
    name: str
    policy: str
    at: FiniteFloat
    steps: int
    psnr_db: Interval | None = None
    ssim: Interval | None = None
    category_accuracy: Interval | None = None
    retrieval_accuracy: Interval | None = None

    def of(self, measure: str) -> float | None:
        found: Interval | None = getattr(self, measure)
        return found and found.value


class QualityTable(_Table):
    model: str
    weights: str
    measure: Measured
    row: tuple[Row, ...]

    def quality(self, wanted: str | QualityAt, steps: int, measure: str | None, where: str) -> float:
        """Of a row by name, or on the line between two measured neighbours of a policy.

        Raises UserError, which begins with ``where``, for what was not measured, or not with so many steps.
        """
        kind = measure or self.measure
        if kind not in get_args(Measured):
            raise UserError(
                f"{where}: quality is {kind!r} but should be one of {', '.join(get_args(Measured))}."
            )
        some = [(row, value) for row in self.row if (value := row.of(kind)) is not None]
        if isinstance(wanted, str):
            named = [(row, value) for row, value in some if row.name == wanted]
            if not named:
                names = [row.name for row, _ in some]
                raise UserError(
                    f"{where}: nobody measured the {kind} of {wanted!r}{meant(wanted, names) or '.'} Rows are "
                    f"{', '.join(names) or 'none'}."
                )
            row, value = named[0]
            if row.steps != steps:
                raise UserError(
                    f"{where}: {wanted!r} was measured with {row.steps} steps and an image has {steps} here; give "
                    f"--steps {row.steps}, or a row of {steps} steps."
                )
            return value
        line = sorted(
            (row.at, value) for row, value in some if row.policy == wanted.policy and row.steps == steps
        )
        if not line:
            policies = dict.fromkeys(row.policy for row, _ in some if row.steps == steps)
            raise UserError(
                f"{where}: nobody measured the {kind} of policy {wanted.policy!r} with {steps} steps"
                f"{meant(wanted.policy, policies) or '.'} Policies are {', '.join(policies) or 'none'}."
            )
        return _between(line, wanted, where)


def _between(line: list[tuple[float, float]], wanted: QualityAt, where: str) -> float:
    below = [one for one in line if one[0] <= wanted.at]
    above = [one for one in line if one[0] >= wanted.at]
    if not below or not above:
        raise UserError(
            f"{where}: policy {wanted.policy!r} was measured from {line[0][0]:g} to {line[-1][0]:g} and "
            f"{wanted.at:g} lies beyond; measure there."
        )
    (x0, y0), (x1, y1) = below[-1], above[0]
    return y0 if x1 == x0 else y0 + (y1 - y0) * (wanted.at - x0) / (x1 - x0)


def read_table(path: Path) -> QualityTable:
    """Raises UserError naming what is wrong and what would be right."""
    try:
        return QualityTable.model_validate(tomllib.loads(read_text(path)))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"quality table {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; "
            "benchmarks/quality_table.py writes such tables."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"quality table {path} cannot be read: {first_line(error)}; benchmarks/quality_table.py writes such tables."
        ) from None


def digest_of_weights(files: Iterable[Path]) -> str:
    """Of the checkpoint that pictures were drawn with."""
    total = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:32]


def weights_of(model: Path) -> list[Path]:
    """The UNet's checkpoint in a diffusers folder."""
    return sorted((model / "unet").glob("*.safetensors"))


def write_rows(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows in TOML."""
    import json

    lines: list[str] = []
    for row in rows:
        lines.append("\n[[row]]")
        for key, value in row.items():
            if isinstance(value, Mapping):
                inner = ", ".join(f"{name} = {float(number)!r}" for name, number in value.items())
                lines.append(f"{key} = {{ {inner} }}")
            else:
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)


def finite(figure: Mapping[str, float]) -> dict[str, float] | None:
    """A measured figure with its interval; nothing where a picture was compared with itself."""
    found = {key: float(figure[key]) for key in ("value", "low", "high")}
    return found if all(map(math.isfinite, found.values())) else None
