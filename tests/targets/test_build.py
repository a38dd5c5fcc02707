"""Kernels are compiled by processes of their own, which wait for more where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from fick.targets.cpu import build
from fick.targets.cpu.elementwise import Map
from fick.targets.cpu.worker import Worker
from fick.targets.expressions import Apply, Expression, Load
from fick.targets.profile import processor

HOST = processor("host")
COPY = Load(1, (1,))


def elementwise(count: int, expression: Expression) -> Map:
    return Map(("float32",) * 2, extents=(count,), out_strides=(1,), expression=expression, lanes=8)


def test_processes_are_started_once_and_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was asked for what cannot be compiled is not asked again."""
    started: list[Worker] = []

    class Counted(Worker):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    def running() -> list[bool]:
        return [one._process.poll() is None for one in started]

    monkeypatch.setattr(build, "Worker", Counted)
    monkeypatch.setattr(build, "_resting", None)
    with build.workers_kept():
        for count in (8, 16):
            with build.workers_kept():
                (code,) = build.build([elementwise(count, COPY)], HOST, tmp_path).values()
            assert code.startswith(build.OBJECT_MAGIC)
        assert running() == [True]
        with pytest.raises(RuntimeError, match="did not compile"):
            build.build([elementwise(8, Apply("Nothing", (COPY,)))], HOST, tmp_path)
        assert running() == [False]
        build.build([elementwise(32, COPY)], HOST, tmp_path)
        assert running() == [False, True]
    assert running() == [False, False]
