"""fick runner: the program that runs bundles on a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .arguments import JsonOption, TargetOption, place
from .output import megabytes, show, write_result

EXAMPLE = (
    "Example: `fick runner --target rpi5 -o fick-run` or `fick runner --target rpi5 --library -o libfick.so`"
)


def command(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where it goes.", callback=place)
    ],
    target: TargetOption = "host",
    library: Annotated[
        bool,
        typer.Option(
            "--library", help="libfick.so for programs of your own (fick_pipeline.h), for glibc 2.17 on."
        ),
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Write fick-run for a target's architecture: one static file that draws from bundles where there is no Python."""
    from ...targets import profile
    from .. import runner
    from ..cache import cache_folder
    from ..progress import terminal

    arch = profile.load(target).arch
    with terminal() as reporter:
        reporter.stage("build")
        data = (runner.library if library else runner.program)(arch, cache_folder() / "core")
        reporter.finish()
    write_result(output, data)
    os.chmod(output, 0o755)
    facts = {"output": str(output), "arch": arch, "bytes": len(data)}
    show(str(output), {"for": arch, "size": megabytes(len(data))}, json_file, facts)
