"""fick deploy: a bundle onto a device, tested and timed there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ...ir.errors import UserError
from .arguments import BundleArgument, JsonOption, ThreadsOption, place
from .output import megabytes, milliseconds, show

EXAMPLE = (
    "Example: `fick deploy emoji.fick --to ssh://pi@raspberrypi.local --prompt 'cat with heart eyes' -o cat.png` or "
    "`fick deploy emoji.fick --to adb: --prompt 'cat' --json profile.json -o cat.png`"
)
SLOWEST = 5


def command(
    bundle: BundleArgument,
    to: Annotated[
        str, typer.Option(metavar="DEVICE", help="ssh://USER@HOST[:PORT][/FOLDER] or adb:[SERIAL].")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.png", help="The picture drawn there.", callback=place),
    ],
    prompt: Annotated[str | None, typer.Option(help="What to draw, for a text-to-image bundle.")] = None,
    class_label: Annotated[
        str | None, typer.Option(metavar="NUMBER|NAME", help="What to draw, for a class-to-image bundle.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Calls of the network.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same picture.")] = 0,
    threads: ThreadsOption = 0,
    json_file: JsonOption = None,
) -> None:
    """Copy BUNDLE and fick-run to a device, test every kernel there, draw, and bring the times back."""
    from ..deploy.remote import deploy
    from ..progress import terminal

    if (prompt is None) == (class_label is None):
        raise UserError("say what to draw on the device, with --prompt or with --class-label")
    asks = ["--prompt", prompt] if prompt is not None else ["--class-label", str(class_label)]
    asks += ["--steps", str(steps), "--seed", str(seed), "--threads", str(threads)]
    with terminal() as reporter:
        done = deploy(bundle, to, asks, output, reporter.stage)
        reporter.finish()
    slowest = sorted(done.calls, key=lambda one: -one["seconds"])[:SLOWEST]
    facts = {
        "copied": f"fick-run {megabytes(done.runner_bytes)}, bundle {megabytes(done.bundle_bytes)}",
        "self-test": done.self_test or "none: compile the bundle with --self-test",
        "there": done.said,
        **{f"{one['component']} {one['node']}": milliseconds(one["seconds"]) for one in slowest},
    }
    show(str(output), facts, json_file, {**asdict(done), "output": str(output), "to": to})
