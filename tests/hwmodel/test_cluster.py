"""A real scheduler with real workers on the loopback interface, one of which is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fick.hwmodel.explore.problem import Outcome
from fick.hwmodel.explore.storage import Storage
from fick.hwmodel.explore.workers import Chunk, cluster
from fick.ir.errors import UserError

from .spaces import SPACE, found, problem

LARGER = f"{SPACE}buffers.lines = [983_040, 1_966_080, 3_932_160]\nbuffers.shortcut = [409_600, 819_200, 1_638_400]\n"
COUNT = 256

STRANGER = """
import fick.hwmodel.explore.version as known
known.version = lambda: "0.0.9+of-yesterday"
known.version.__module__, known.version.__qualname__ = known.__name__, "version"
"""


def process(kind: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def machines(folder: Path, *workers: Iterable[str]) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Address of a scheduler, and its workers' processes, each started with more arguments."""
    place = folder / "scheduler.json"
    started = [
        process(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(place),
        )
    ]
    try:
        limit = time.monotonic() + 120
        while not (place.is_file() and place.read_text().strip().endswith("}")):
            assert time.monotonic() < limit and started[0].poll() is None
            time.sleep(0.05)
        address = json.loads(place.read_text())["address"]
        common = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--host", "127.0.0.1")
        started += [process("worker", address, *common, *more) for more in workers]
        wait_for(address, len(workers))
        yield address, started[1:]
    finally:
        for one in started:
            one.kill()
            one.wait()


def wait_for(address: str, count: int) -> None:
    from distributed import Client

    if count:
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)


def test_a_worker_that_is_killed_takes_no_design_with_it(tmp_path: Path) -> None:
    one, url = problem(tmp_path, LARGER), f"sqlite:///{tmp_path / 'points.db'}"
    storage = Storage(url, one)
    with machines(tmp_path, (), ()) as (address, workers), cluster(one, address) as walk:

        def deadly(chunks: Iterable[Chunk]) -> Iterator[list[Outcome]]:
            for outcomes in walk(chunks):
                workers[0].kill()
                yield outcomes

        far = found(one, deadly, method="nsga2", count=COUNT, storage=storage)
        assert workers[0].wait() != 0 and workers[1].poll() is None
    near = found(one, method="nsga2", count=COUNT)
    assert far.outcomes == near.outcomes
    assert far.front == near.front
    timed = {number for number, outcome in near.outcomes.items() if outcome.status in ("evaluated", "misfit")}
    kept = Storage(url, one)
    assert kept.load().keys() == timed
    assert kept.count == len(timed) > 64


def test_a_worker_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text(STRANGER)
    with (
        machines(tmp_path, ("--preload", str(tmp_path / "stranger.py"))) as (address, _),
        pytest.raises(UserError, match=r"another fick \(0\.0\.9\+of-yesterday"),
        cluster(problem(tmp_path), address),
    ):
        pass


def test_a_scheduler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fick.hwmodel.explore.workers.CONNECT_S", 0.5)
    with (
        pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        cluster(problem(tmp_path), "tcp://127.0.0.1:9"),
    ):
        pass
