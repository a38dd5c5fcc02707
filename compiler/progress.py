"""Progress as the compiler reports it and as a terminal shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Silent:
    """Reports nothing, but keeps the seconds each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._current: tuple[str, float] | None = None

    def stage(self, name: str) -> None:
        self.finish()
        self._current = (name, time.perf_counter())

    def update(self, done: int, total: int) -> None:
        pass

    def rename(self, name: str) -> None:
        """Shows the stage under another name from now on."""

    def finish(self) -> None:
        if self._current is not None:
            name, started = self._current
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            self._current = None


class Terminal(Silent):
    """Bars with elapsed and remaining time on standard error."""

    def __init__(self, bars: Progress) -> None:
        super().__init__()
        self._bars = bars
        self._task = None

    def stage(self, name: str) -> None:
        super().stage(name)
        self._close()
        self._task = self._bars.add_task(name, total=None)

    def update(self, done: int, total: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def rename(self, name: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, description=name)

    def finish(self) -> None:
        super().finish()
        self._close()

    def _close(self) -> None:
        if self._task is not None:
            total = self._bars.tasks[self._task].total or 1
            self._bars.update(self._task, completed=total, total=total)
            self._task = None


@contextmanager
def terminal() -> Iterator[Silent]:
    """Bars when standard error is a terminal, silence otherwise."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        reporter = Terminal(bars)
        try:
            yield reporter
        finally:
            reporter.finish()
