"""The command line: ``fick VERB``. Each verb is a thin reading of its arguments; the work is elsewhere."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings

import typer
from typer.exceptions import TyperException

from ...ir.errors import UserError
from ...runtime.errors import FickError
from . import (
    bench,
    compile,
    deploy,
    estimate,
    evaluate,
    explore,
    inspect,
    package,
    repack,
    run,
    runner,
    targets,
    tune,
    validate_hardware,
)
from .apart import apart

app = typer.Typer(
    name="fick",
    help="Compile diffusion models for the edge, run them, measure them, and look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
VERBS = (
    compile, run, runner, deploy, package, bench, evaluate, estimate, explore, validate_hardware, inspect, targets,
    tune, repack,
)  # fmt: skip
for verb in VERBS:
    name = verb.__name__.rpartition(".")[2].replace("_", "-")
    app.command(name=name, epilog=verb.EXAMPLE)(apart(verb.command))


NO_PLACE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or give another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES), "allow it, or give another place"),
    errno.ENAMETOOLONG: "give a shorter one",
}
"""What files may meet anywhere, and how the user can mend it."""


class Interrupted(BaseException):
    """Ctrl-C, as an exception of our own: typer would answer Python's with a word and another exit code."""


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted


def main() -> None:
    """The entry point: a user's mistake becomes one sentence on standard error and exit code 2."""
    signal.signal(signal.SIGINT, _interrupt)
    warnings.simplefilter("ignore")  # libraries warn of what is theirs to mend
    warnings.filterwarnings("default", module="fick")
    warnings.showwarning = lambda message, *rest: print(f"fick: {message}", file=sys.stderr)
    # Typer would print a frame of several lines around a mistake in the arguments.
    try:
        code = app(prog_name="fick", standalone_mode=False) or 0
        sys.stdout.flush()
        sys.exit(code)
    except (UserError, FickError) as error:
        _stop(str(error))
    except TyperException as error:
        context = getattr(error, "ctx", None)
        said = error.format_message().rstrip(".") or "name what to do"
        _stop(f"{said}; see {context.command_path if context else 'fick'} --help")
    except Interrupted:
        _stop("interrupted; run the same command again and finished work is not repeated")
    except MemoryError:
        _stop("there is not enough memory; close other programs or take a smaller model")
    except BrokenPipeError:
        # Whoever reads the output has seen enough, and Python would flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_PLACE:
            _stop(f"{error.filename or 'the output'}: {error.strerror}; {NO_PLACE[error.errno]}")
        if os.environ.get("FICK_TRACE"):
            raise
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        _stop(f"a fault of fick's own ({told}); FICK_TRACE=1 shows where")


def _stop(message: str) -> None:
    print(f"fick: {message}", file=sys.stderr)
    sys.exit(2)
