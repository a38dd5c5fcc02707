"""fick repack: new weights without compiling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import BundleArgument, JsonOption
from .output import megabytes, show

EXAMPLE = "Example: `fick repack sd.fick --weights finetune.safetensors -o finetune.fick`"


def command(
    bundle: BundleArgument,
    weights: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="All weights, by source name.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The new bundle.")],
    component: Annotated[
        str | None, typer.Option(help="Whose weights they are. [default: the main one, the UNet]")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Put new weights of the same shapes into BUNDLE without compiling."""
    from ..bundle.repack import repack as swap
    from ..progress import terminal

    with terminal() as reporter:
        reporter.stage("repack")
        written = swap(bundle, weights, output, reporter.update, component=component)
        reporter.finish()
    size = written.stat().st_size
    show(str(written), {"size": megabytes(size)}, json_file, {"bundle": str(written), "bytes": size})
