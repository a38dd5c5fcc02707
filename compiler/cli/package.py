"""fick package: what an app needs to draw from a bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ...ir.errors import UserError
from .arguments import BundleArgument, JsonOption
from .output import megabytes, show

EXAMPLE = "Example: `fick package emoji.fick --android -o emoji-android`"


def command(
    bundle: BundleArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where it goes.")],
    android: Annotated[
        bool, typer.Option("--android", help="For an Android app, from version 7 (API level 24) on.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Write a folder with BUNDLE, a library for apps, its Java and Kotlin sources and a README of three steps."""
    from ..deploy.android import package
    from ..progress import terminal

    if not android:
        raise UserError("say what to package it for: --android is what there is")
    with terminal() as reporter:
        done = package(bundle, output, reporter.stage)
        reporter.finish()
    facts = {
        "for": done.abi,
        "library": megabytes(done.library_bytes),
        "bundle": megabytes(done.bundle_bytes),
        "next": f"the three steps of {output / 'README.md'}",
    }
    show(str(output), facts, json_file, {**asdict(done), "folder": str(output)})
