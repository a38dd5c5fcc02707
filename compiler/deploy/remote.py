"""A bundle onto a device: copied with its runner, tested there, timed there. Over ssh or adb, whichever reaches it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ir.errors import UserError, first_line
from ...ir.files import write_whole
from ...runtime.loader import check_bundle
from ..bundle.skeleton import GOLDEN
from ..cache import cache_folder
from ..runner import program

LONGEST_S = 3600


@dataclass(frozen=True)
class Device:
    """``shell`` is what a command line is appended to; ``push`` and ``pull`` take two places."""

    folder: str
    shell: tuple[str, ...]
    push: Callable[[str, str], list[str]]
    pull: Callable[[str, str], list[str]]


@dataclass(frozen=True)
class Deployed:
    """``self_test`` is what fick-run said of it, nothing for a bundle without golden values; ``calls`` its profile."""

    runner_bytes: int
    bundle_bytes: int
    self_test: str
    said: str
    calls: list[dict[str, Any]]


def device(place: str) -> Device:
    """From ssh://[USER@]HOST[:PORT][/FOLDER] or adb:[SERIAL]. Raises UserError for anything else."""
    if found := re.fullmatch(r"ssh://((?:[\w.-]+@)?[\w.-]+)(?::(\d+))?(/[^\s]*)?", place):
        host, port, folder = found[1], found[2] or "22", found[3] or "fick"
        if not host.startswith("-"):
            return Device(
                folder,
                ("ssh", "-p", port, host),
                lambda here, there: ["scp", "-q", "-P", port, here, f"{host}:{there}"],
                lambda there, here: ["scp", "-q", "-P", port, f"{host}:{there}", here],
            )
    if found := re.fullmatch(r"adb:([\w.:-]*)", place):
        adb = ["adb", *(("-s", found[1]) if found[1] else ())]
        return Device(
            "/data/local/tmp/fick",  # the folder that Android's shell may run programs from
            (*adb, "shell"),
            lambda here, there: [*adb, "push", here, there],
            lambda there, here: [*adb, "pull", there, here],
        )
    raise UserError(
        f"--to {place!r} is no device; give ssh://USER@HOST, ssh://HOST:PORT/FOLDER, adb: or adb:SERIAL"
    )


def deploy(
    bundle: Path, to: str, asks: list[str], output: Path, progress: Callable[[str], None] = lambda stage: None
) -> Deployed:
    """Copy ``bundle`` and its runner to a device, test it there, and draw with it there.

    ``asks`` are arguments of fick-run that say what to draw; the picture comes back to ``output``. Raises UserError
    where the device cannot be reached or fick-run fails, with its words.
    """
    checked, there = check_bundle(bundle), device(to)
    if "pipeline" not in checked.manifest or not checked.manifest["pipeline"]:
        raise UserError(f"{bundle} holds a model alone; fick-run draws with whole pipelines")

    def place(name: str) -> str:
        return f"{there.folder}/{name}"

    def run(*arguments: str) -> str:
        return _ran([*there.shell, shlex.join(arguments)], to)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        progress("reach")  # before the runner is built, which may take a minute
        run("mkdir", "-p", there.folder)
        progress("build")
        data = program(str(checked.manifest["target"].get("arch")), cache_folder() / "core")
        (folder / "fick-run").write_bytes(data)
        (folder / "fick-run").chmod(0o755)
        progress("copy")
        _ran(there.push(str(folder / "fick-run"), place("fick-run")), to)
        _ran(there.push(str(bundle), place(bundle.name)), to)
        run("chmod", "755", place("fick-run"))
        start = (place("fick-run"), place(bundle.name))
        progress("self-test")
        tested = run(*start, "--self-test").strip() if GOLDEN in checked.manifest["entries"] else ""
        progress("draw")
        files = ("--profile", place("profile.json"), "-o", place("picture.png"))
        said = run(*start, *asks, *files)
        _ran(there.pull(place("profile.json"), str(folder / "profile.json")), to)
        _ran(there.pull(place("picture.png"), str(folder / "picture.png")), to)
        calls = json.loads((folder / "profile.json").read_text(encoding="utf-8"))["calls"]
        write_whole(output, (folder / "picture.png").read_bytes())
    return Deployed(
        len(data), bundle.stat().st_size, tested, said.strip().splitlines()[-1] if said.strip() else "", calls
    )


def _ran(command: list[str], to: str) -> str:
    """What a command says, errors included: progress comes that way."""
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            timeout=LONGEST_S,
        )  # fmt: skip
    except FileNotFoundError:
        raise UserError(f"{to} needs the program {command[0]}, which is not installed here") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{to}: {command[0]} did not end within {LONGEST_S} s") from None
    said = result.stdout.decode("utf-8", "replace")
    if result.returncode:
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"{to}: {first_line(RuntimeError(last[0]))} (exit code {result.returncode})")
    return said
