"""The float program that students learn from, and lessons that are interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fick.ir.interpreter import Interpreter
from fick.passes.base import Context
from fick.passes.learned import lessons

from . import small_unet


def context(count: int, work_folder: Path | None = None) -> Context:
    """``count`` calls to learn from what the whole program gives."""
    return Context(
        referee=Interpreter,
        calibration=small_unet.calls(count),
        reference=small_unet.program(),
        work_folder=work_folder,
    )


@contextmanager
def interrupted() -> Iterator[None]:
    """The lesson inside is, where its student is to be examined for the fifth time: at first, and after three parts of
    ten, it was.
    """
    error_of = lessons._error  # pyright: ignore[reportPrivateUsage]
    examined: list[int] = []

    def stops(*given: Any) -> float:
        examined.append(1)
        if len(examined) == 5:
            raise KeyboardInterrupt
        return error_of(*given)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lessons, "_error", stops)
        yield
