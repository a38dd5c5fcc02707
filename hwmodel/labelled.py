"""Numbers in TOML files that say where they come from.

A constant is a plain value, or a table ``{ value, label, source }`` that says how far it can be trusted:

    published    in a paper           code      read in the authors' released code
    derived      follows from those   assumed   nobody says; chosen here
    calibrated   chosen so that a published figure comes out
    given        a plain value: whoever wrote the file answers for it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..ir.errors import UserError

Label = Literal["published", "code", "derived", "assumed", "calibrated", "given"]


@dataclass(frozen=True)
class Provenance:
    """How far a constant can be trusted."""

    label: Label
    source: str = ""


def unlabelled(tree: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Provenance]]:
    """The tree with every ``{ value, label, source }`` replaced by its value; and by dotted path what else it says.

    Raises UserError, which begins with ``where``, for a label that is none.
    """
    found: dict[str, Provenance] = {}
    return {key: _plain(child, key, found, where) for key, child in tree.items()}, found


def _plain(node: Any, path: str, found: dict[str, Provenance], where: str) -> Any:
    if not isinstance(node, dict):
        found[path] = Provenance("given")
        return node
    if "value" not in node:
        return {key: _plain(child, f"{path}.{key}", found, where) for key, child in node.items()}
    label, source = node.get("label", "given"), node.get("source", "")
    if (
        label not in get_args(Label)
        or not isinstance(source, str)
        or node.keys() - {"value", "label", "source"}
    ):
        raise UserError(
            f"{where}: {path} should have a value, a label ({', '.join(get_args(Label))}) and a source."
        )
    found[path] = Provenance(label, source)
    return node["value"]
