"""A space of designs, as a TOML file: a spec, and what may be varied of it.

    hardware = "sda"  # or the path of a spec beside this file

    [parameters]
    clock_hz = [200e6, 250e6, 300e6]
    array.sub_array_rows = { from = 2, to = 8, step = 2 }
    buffers.matmul_weights = { from = 160, to = 655_360, times = 8 }

    [choices.bus]  # fields that vary together
    narrow = {}
    wide = { memory.port_bits = 256, memory.streams.output.useful_bits = 256 }

    [software]  # what the program may be: recipes beside this file
    plain = {}
    cached = { recipe = "deep-cache-3.toml", quality = "DeepCache N=3" }

    [constraints]
    device = "zcu102"
    step_latency_s = 0.25  # at most

A design is a number: one digit for each axis, the last axis turning fastest. Axes that change all times come first
and buffers last, so that a walk through the numbers times little anew.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from ...ir.errors import UserError, first_line
from ...ir.files import read_text
from ..hardware import Hardware, load, validated
from ..specs import Bits, Spec
from .limits import Limits, limits
from .measures import meant

MOST_VALUES = 10_000
SOFTWARE = "software"

Value = int | float | str


class File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(File):
    """Numbers from one to another, ``step`` apart or each ``times`` the last."""

    start: int | float = Field(alias="from")
    stop: int | float = Field(alias="to")
    step: int | float | None = Field(default=None, gt=0)
    times: int | float | None = Field(default=None, gt=1)

    def values(self) -> Iterator[int | float]:
        value = self.start
        while value <= self.stop:
            yield value
            value = value + self.step if self.step is not None else value * (self.times or 2)


class Software(File):
    """A program: what passes made of the model. ``quality`` says where its table has it."""

    recipe: str | None = None
    quality: str | QualityAt | None = None


class QualityAt(File):
    """Between the measured rows of one policy, at a value of what they differ in."""

    policy: str
    at: FiniteFloat


class SpaceFile(File):
    hardware: str = "sda"
    parameters: dict[str, Any] = {}
    choices: dict[str, dict[str, dict[str, Any]]] = {}
    software: dict[str, Software] = {"plain": Software()}
    constraints: dict[str, Any] = {}
    quality: str | None = Field(default=None, description="The measure of the quality table that is meant.")


@dataclass(frozen=True)
class Axis:
    """What may be varied: by label, the fields of the spec that it sets."""

    name: str
    settings: Mapping[Value, Mapping[str, Any]]

    @property
    def labels(self) -> tuple[Value, ...]:
        return tuple(self.settings)

    @property
    def inner(self) -> bool:
        """Whether it changes no more than how work is cut to fit, if anything."""
        paths = _paths(self)
        return bool(paths) and all(path.startswith(("buffers.", "energy.")) for path in paths)


def _paths(axis: Axis) -> set[str]:
    return {path for setting in axis.settings.values() for path in setting}


@dataclass(frozen=True)
class Space:
    """Designs by number. ``folder`` is where recipes lie."""

    hardware: Hardware
    axes: tuple[Axis, ...]
    software: Mapping[str, Software]
    limits: Limits
    folder: Path = field(default=Path(), compare=False)
    quality: str | None = None

    @property
    def size(self) -> int:
        return math.prod(len(axis.labels) for axis in self.axes)

    @property
    def block(self) -> int:
        """Designs in a row that differ in nothing but buffers."""
        return math.prod(len(axis.labels) for axis in self.axes if axis.inner)

    def digits(self, number: int) -> tuple[int, ...]:
        found: list[int] = []
        for axis in reversed(self.axes):
            number, digit = divmod(number, len(axis.labels))
            found.append(digit)
        return tuple(reversed(found))

    def number(self, digits: Sequence[int]) -> int:
        number = 0
        for axis, digit in zip(self.axes, digits, strict=True):
            number = number * len(axis.labels) + digit
        return number

    def labels(self, number: int) -> dict[str, Value]:
        """What a design chooses, by axis."""
        digits = self.digits(number)
        return {axis.name: axis.labels[digit] for axis, digit in zip(self.axes, digits, strict=True)}

    def software_of(self, number: int) -> str:
        return str(self.labels(number)[SOFTWARE])

    def changes(self, number: int) -> dict[str, Any]:
        """The fields of the spec that a design sets, by dotted path."""
        found: dict[str, Any] = {}
        for axis, label in zip(self.axes, self.labels(number).values(), strict=True):
            found |= axis.settings[label]
        return found

    def spec(self, number: int) -> Spec:
        """A design's spec. Every value was checked by itself when the space was read."""
        return _changed(self.hardware.spec, self.changes(number))

    def widths(self) -> list[Bits]:
        """What designs take for widths that no pass chose."""
        free = [
            range(len(axis.labels) if any(path.startswith("bits.") for path in _paths(axis)) else 1)
            for axis in self.axes
        ]
        found = {repr(bits): bits for bits in (self.spec(self.number(one)).bits for one in product(*free))}
        return [found[key] for key in sorted(found)]

    def neighbours(self, number: int) -> Iterator[int]:
        """Designs that differ in one axis by one place."""
        digits = self.digits(number)
        for place, axis in enumerate(self.axes):
            for digit in (digits[place] - 1, digits[place] + 1):
                if 0 <= digit < len(axis.labels):
                    yield self.number((*digits[:place], digit, *digits[place + 1 :]))


def _changed(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    return _copied(spec, [(path.split("."), value) for path, value in changes.items()])


def _copied(table: Any, changes: Sequence[tuple[Sequence[str], Any]]) -> Any:
    inner: dict[str, list[tuple[Sequence[str], Any]]] = {}
    update: dict[str, Any] = {}
    for (name, *rest), value in changes:
        if rest:
            inner.setdefault(name, []).append((rest, value))
        else:
            update[name] = value
    update |= {name: _copied(getattr(table, name), deeper) for name, deeper in inner.items()}
    return table.model_copy(update=update)


def read_space(path: str | os.PathLike[str]) -> Space:
    """Raises UserError for a file that is no space: what is wrong, where, and what would be right."""
    place = Path(path)
    try:
        return parse_space(read_text(place), str(path), place.parent)
    except (OSError, ValueError) as error:
        raise UserError(
            f"space {path} cannot be read: {first_line(error)}; give a TOML file as docs/explore.md has it."
        ) from None


def parse_space(text: str, where: str, folder: Path) -> Space:
    """A space from the text of a file called ``where`` in ``folder``. Raises UserError as ``read_space`` does."""
    where = f"space {where}"
    try:
        given = SpaceFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{where}: {path}: {first['msg']}; a space has {', '.join(SpaceFile.model_fields)}."
        ) from None
    beside = given.hardware.endswith(".toml")
    hardware = load(folder / given.hardware if beside else given.hardware)
    axes = [
        *(_parameter(hardware, path, values, where) for path, values in _leaves(given.parameters)),
        *(_choice(hardware, name, labels, where) for name, labels in given.choices.items()),
        Axis(SOFTWARE, {label: {} for label in given.software}),
    ]
    _check_axes(axes, where)
    # What a recipe changes and what changes all times comes first; the sort keeps the file's order otherwise.
    ordered = sorted(axes, key=lambda axis: (axis.inner, axis.name != SOFTWARE))
    return Space(
        hardware, tuple(ordered), given.software, limits(given.constraints, where), folder, given.quality
    )


def _check_axes(axes: Sequence[Axis], where: str) -> None:
    seen: dict[str, str] = {}
    for axis in axes:
        if not axis.settings:
            raise UserError(f"{where}: {axis.name} has no values, so the space is empty; give at least one.")
        for path in sorted(_paths(axis)):
            if path in seen:
                raise UserError(
                    f"{where}: {path} is set by {seen[path]} and by {axis.name}; leave it to one of them."
                )
            seen[path] = axis.name


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and what stands there: a list or a range is not entered."""
    for key, child in tree.items():
        below = f"{path}.{key}" if path else key
        if isinstance(child, dict) and not child.keys() & {"from", "to"}:
            yield from _leaves(child, below)
        else:
            yield below, child


def _parameter(hardware: Hardware, path: str, given: Any, where: str) -> Axis:
    at = f"{where}: parameters.{path}"
    if isinstance(given, dict):
        try:
            spread = Range.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"{at}: {'.'.join(map(str, first['loc']))}: {first['msg']}; give from, to and step or times."
            ) from None
        if (spread.step is None) == (spread.times is None):
            raise UserError(f"{at} should have either step or times besides from and to.")
        if spread.times is not None and spread.start <= 0:
            raise UserError(f"{at} should begin above 0, for each value is {spread.times} times the last.")
        values: list[Any] = []
        for value in spread.values():
            values.append(value)
            if len(values) > MOST_VALUES:
                raise UserError(f"{at} has more than {MOST_VALUES:,} values; take a larger step.")
    elif isinstance(given, list):
        values = given
    else:
        raise UserError(f"{at} is {given!r} but should be a list of values or a table {{ from, to, step }}.")
    settings: dict[Value, dict[str, Any]] = {}
    for value in values:
        checked = _checked(hardware, path, value, at)
        label = checked if isinstance(checked, int | float | str) else "x".join(map(str, checked))
        settings[label] = {path: checked}
    return Axis(path, settings)


def _choice(hardware: Hardware, name: str, labels: Mapping[str, Mapping[str, Any]], where: str) -> Axis:
    return Axis(
        name,
        {
            label: {
                path: _checked(hardware, path, value, f"{where}: choices.{name}.{label}.{path}")
                for path, value in _leaves(tree)
            }
            for label, tree in labels.items()
        },
    )


def _checked(hardware: Hardware, path: str, value: Any, at: str) -> Any:
    """The value as the spec has it. Raises UserError for a field that is none, or a value that it may not have."""
    fields = dict(_fields(hardware.spec.model_dump()))
    if path not in fields:
        raise UserError(
            f"{at} is no field of {hardware.spec.name}{meant(path, fields) or '; see docs/hardware.md for them.'}"
        )
    tree = hardware.spec.model_dump()
    *tables, name = path.split(".")
    node = tree
    for table in tables:
        node = node[table]
    node[name] = value
    return attrgetter(path)(validated(tree, at))


def _fields(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, child in tree.items():
        below = f"{path}.{key}" if path else key
        if isinstance(child, dict):
            yield from _fields(child, below)
        elif key not in ("kind", "name", "description"):
            yield below, child
