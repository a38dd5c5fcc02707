"""Accelerators as data: ``specs/*.toml``, and where each of their constants comes from (``labelled.py``)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ..ir.errors import UserError
from ..ir.files import read_text
from .labelled import Provenance, unlabelled
from .specs import Spec

_KINDS = {str(get_args(model.model_fields["kind"].annotation)[0]): model for model in get_args(Spec)}
_SPEC: TypeAdapter[Spec] = TypeAdapter(Annotated[Spec, Field(discriminator="kind")])


@dataclass(frozen=True)
class Hardware:
    """A spec and, by dotted path, where each of its constants comes from."""

    spec: Spec
    provenance: Mapping[str, Provenance]

    def assumed(self) -> list[str]:
        """Dotted paths of the numbers that nobody published."""
        return [path for path, known in self.provenance.items() if known.label == "assumed"]

    def scaled(self, path: str, factor: float) -> Hardware | None:
        """The same with one constant multiplied, a whole one rounded; None if it is no number or may not be that."""
        tree = self.spec.model_dump()
        *tables, field = path.split(".")
        node = tree
        for table in tables:
            node = node[table]
        old = node[field]
        if not isinstance(old, int | float):
            return None
        node[field] = round(old * factor) if isinstance(old, int) else old * factor
        try:
            return Hardware(_SPEC.validate_python(tree), self.provenance)
        except ValidationError:
            return None


def names() -> list[str]:
    """The specs that come with fick."""
    return sorted(entry.name[:-5] for entry in files("fick.hwmodel").joinpath("specs").iterdir())


def load(name: str | os.PathLike[str]) -> Hardware:
    """A spec by name or by path of a TOML file.

    Raises UserError for an unknown name or a file that is no spec; the sentence has the dotted path of the first
    field at fault, the unit it is in and what would be right.
    """
    given = os.fspath(name)
    if given.endswith(".toml"):
        try:
            text = read_text(Path(given))
        except (OSError, ValueError):
            raise UserError(
                f"hardware {given!r} is not a readable file; give the path of a TOML spec or one of {_known()}."
            ) from None
        return parse(text, given)
    if given not in names():
        raise UserError(
            f"hardware {given!r} is not known; give one of {_known()} or the path of a .toml file."
        )
    return _shipped(given)


@cache
def _shipped(name: str) -> Hardware:
    return parse(files("fick.hwmodel").joinpath("specs", f"{name}.toml").read_text(encoding="utf-8"), name)


def _known() -> str:
    return ", ".join(names())


def parse(text: str, where: str) -> Hardware:
    """A spec from the text of a TOML file called ``where``. Raises UserError as ``load`` does."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"hardware {where} is not TOML: {error}.") from None
    plain, provenance = unlabelled(tree, f"hardware {where}")
    return Hardware(validated(plain, f"hardware {where}"), provenance)


def validated(tree: Mapping[str, Any], where: str) -> Spec:
    """A spec from its fields. Raises UserError, which begins with ``where``, for the first that is at fault."""
    try:
        return _SPEC.validate_python(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_complaint(error)}.") from None


def _complaint(error: ValidationError) -> str:
    """The first mistake as half a sentence: dotted path, what is wrong, the unit expected."""
    # A misspelt name is also a missing one; the spelling is what to mend.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    if first["type"].startswith("union_tag"):
        return f"kind should be one of {', '.join(sorted(_KINDS))}"
    # Behind the discriminator pydantic puts the kind at the head of the path.
    kind, *location = first["loc"]
    path = ".".join(str(part) for part in location)
    field, table = _field(_KINDS[str(kind)], location)
    if first["type"] == "extra_forbidden":
        return f"{path} is not a field; the fields there are {', '.join(table.model_fields)}"
    extra = field.json_schema_extra if field is not None else None
    unit = f", in {extra['unit']}" if isinstance(extra, dict) else ""
    if first["type"] == "missing":
        described = (field.description or "").rstrip(".") if field is not None else ""
        return f"{path} is missing ({described}{unit})"
    _, should, reason = first["msg"].partition("should")
    return f"{path} is {first['input']!r} but {should}{reason}{unit}"


def _field(model: type[BaseModel], location: list[Any]) -> tuple[FieldInfo | None, type[BaseModel]]:
    """The innermost field on a path, and the table that the path's end stands in. Numbers are places in lists."""
    field: FieldInfo | None = None
    for part in (part for part in location if isinstance(part, str)):
        if (
            isinstance(field, FieldInfo)
            and isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
        ):
            model = field.annotation
        field = model.model_fields.get(part)
    return field, model
