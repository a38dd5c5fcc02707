"""fick targets: the device profiles."""

from __future__ import annotations

from typing import Any

from .arguments import JsonOption
from .output import show

EXAMPLE = "Example: `fick targets`"


def command(json_file: JsonOption = None) -> None:
    """List the device profiles."""
    from ...targets import profile

    facts = {name: profile.load(name).model_dump(mode="json") for name in profile.names()}
    rows = {name: _line(one) for name, one in facts.items()}
    show("targets", rows, json_file, facts)


def _line(profile: dict[str, Any]) -> str:
    needs = profile["requires"] or [f"OpenCL {profile['opencl']}"]
    return f"{profile['description']}; needs {', '.join(needs)}"
