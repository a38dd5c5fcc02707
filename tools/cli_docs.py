"""docs/cli.md, from the command line's own declarations: verbs, arguments, defaults, examples."""

from __future__ import annotations

import typer.main

from fick.compiler.cli import app

INTRODUCTION = """# The command line

Written by `make docs` from the code; do not edit. Every verb takes `--json FILE` for machines (`-` is standard
output), shows progress on anything that takes long, and ends a mistake with one sentence and exit code 2.
"""


def page() -> str:
    """The whole page, as Markdown."""
    group = typer.main.get_command(app)
    parts = [INTRODUCTION]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        parts.append(f"## fick {name}\n\n{command.help}\n")
        rows = [row for parameter in command.params if (row := _row(parameter))]
        parts.append("\n".join(["| argument | meaning | default |", "| --- | --- | --- |", *rows]) + "\n")
        if command.epilog:
            parts.append(f"{command.epilog}\n")
    return "\n".join(parts)


def _row(parameter: object) -> str:
    if getattr(parameter, "hidden", False) or parameter.name == "help":  # type: ignore[attr-defined]
        return ""
    options = [option for option in parameter.opts if option.startswith("-")]  # type: ignore[attr-defined]
    label = parameter.metavar or str(parameter.name).upper()  # type: ignore[attr-defined]
    shown = ", ".join(f"`{option}`" for option in options) or f"`{label}`"
    text = getattr(parameter, "help", None) or ""
    default = parameter.default  # type: ignore[attr-defined]
    plain = "" if default is None or default is ... or parameter.required else f"`{default}`"  # type: ignore[attr-defined]
    cells = (cell.replace("|", "\\|") for cell in (shown, text, plain))
    return f"| {' | '.join(cells)} |"
