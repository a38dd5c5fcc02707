"""The C interface by itself: what it computes, when it computes, and what it says to bad arguments."""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fick.runtime import native_api as api
from fick.runtime.loader import LIBRARY, check_bundle
from fick.targets.compiled import Compiled

from . import tiny

ARGUMENT, FILE, FORMAT, CPU, MEMORY, CANCELLED, KERNEL = 1, 2, 3, 6, 7, 8, 9
TASKS_A_THREAD = 4
"""As pool.c cuts a launch."""

X = np.array([1, 2, 3, 4], np.float32)
P = np.array([[0.5, 1.5]], np.float32)
HEADER = Path(__file__).parents[2] / "runtime" / "native" / "fick.h"


class Core:
    """One open model, driven as a C program would."""

    def __init__(self, path: Path, threads: int = 2, limit: int = 0) -> None:
        self.c = api.load_library(check_bundle(path).entries[LIBRARY])
        self.handle = ctypes.c_void_p()
        options = api.Options(threads, 0, limit)
        self.status = self.c.fick_open(os.fsencode(path), ctypes.byref(options), ctypes.byref(self.handle))
        self.reports: list[tuple[int, int]] = []

    def said(self) -> str:
        return self.c.fick_last_error().decode()

    def set(self, name: str, value: object) -> int:
        array = np.ascontiguousarray(value, np.float32)
        return self.c.fick_set_input(self.handle, name.encode(), array.ctypes.data, array.nbytes)

    def get(self, name: str = "y", shape: tuple[int, ...] = (4,), dtype: str = "float32") -> np.ndarray:
        array = np.full(shape, -1, dtype)
        assert self.c.fick_get_output(self.handle, name.encode(), array.ctypes.data, array.nbytes) == 0
        return array

    def run(self, x: np.ndarray, t: float, p: np.ndarray) -> int:
        assert self.set("x", x) == self.set("t", [t]) == self.set("p", p) == 0
        return self.c.fick_run(self.handle)

    def calls(self) -> int:
        """Kernels launched since the last time."""
        count = len(self.reports)
        self.reports.clear()
        return count

    def watch(self) -> None:
        def report(done: int, total: int, user: int | None) -> int:
            self.reports.append((done, total))
            return 0

        self.callback = api.PROGRESS(report)
        self.c.fick_set_progress(self.handle, self.callback, None)


@pytest.fixture
def core(bundle: Path) -> Iterator[Core]:
    opened = Core(bundle)
    assert opened.status == 0, opened.said()
    opened.watch()
    yield opened
    opened.c.fick_close(opened.handle)


def test_a_run_gives_what_the_kernels_compute(core: Core) -> None:
    assert core.run(X, 7, P) == 0
    np.testing.assert_array_equal(core.get(), tiny.expected(X, 7, P))
    assert core.reports == [(0, 1), (0, 1), (0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_task_runs_once(bundle: Path, threads: int) -> None:
    core = Core(bundle, threads)
    count = TASKS_A_THREAD * threads if threads > 1 else 1
    for _ in range(200):
        assert core.run(X, 0, P) == 0
        tasks = core.get("tasks", (tiny.MOST_TASKS,), "int32")
        assert tasks[:-1].tolist() == [1] * count + [0] * (tiny.MOST_TASKS - 1 - count)
        assert tasks[-1] == count
    core.c.fick_close(core.handle)


def test_sleeping_threads_wake(bundle: Path) -> None:
    core = Core(bundle, 3)
    for _ in range(5):
        threading.Event().wait(0.02)  # longer than the threads spin
        assert core.run(X, 0, P) == 0
        tasks = core.get("tasks", (tiny.MOST_TASKS,), "int32")
        assert tasks[: 3 * TASKS_A_THREAD].tolist() == [1] * (3 * TASKS_A_THREAD)
    core.c.fick_close(core.handle)


def test_prompt_and_step_run_only_when_their_inputs_change(core: Core) -> None:
    other = P + 1
    core.run(X, 7, P)
    assert core.calls() == 1 + 1 + 3
    core.run(X + 1, 7, P)
    assert core.calls() == 3
    core.run(X, 8, P)
    assert core.calls() == 1 + 3
    core.run(X, 8, other)
    assert core.calls() == 1 + 3
    # Two prompts are kept, as guidance alternates between them.
    for prompt in (P, other, P, other):
        core.run(X, 8, prompt)
        np.testing.assert_array_equal(core.get(), tiny.expected(X, 8, prompt))
    assert core.calls() == 4 * 3
    core.run(X, 8, P + 2)
    core.run(X, 8, P)
    assert core.calls() == 2 * (1 + 3)  # a third prompt took the place of the first


def test_prepared_steps_are_copied_from_their_rows(core: Core) -> None:
    steps = np.array([9, 5, 5, 1], np.float32)
    assert core.c.fick_prepare_steps(core.handle, steps.ctypes.data, steps.nbytes, 4) == 0
    assert core.calls() == 3
    for step in (9, 5, 1, 9):
        core.run(X, step, P)
        np.testing.assert_array_equal(core.get(), tiny.expected(X, step, P))
    assert core.calls() == 1 + 4 * 3  # the prompt once, no step
    core.run(X, 2, P)
    np.testing.assert_array_equal(core.get(), tiny.expected(X, 2, P))
    assert core.calls() == 1 + 3
    memory = api.Memory()
    assert core.c.fick_memory_use(core.handle, ctypes.byref(memory)) == 0
    # Rows of key and result: two prompts of 8 + 8 bytes, four steps of 4 + 4.
    assert (memory.weights_bytes, memory.arena_bytes, memory.state_bytes) == (128, 64, 1408)
    assert memory.table_bytes == 2 * 16 + 4 * 8


def test_another_thread_cancels_and_the_model_goes_on(core: Core) -> None:
    def report(done: int, total: int, user: int | None) -> int:
        if (done, total) == (1, 3):
            canceller = threading.Thread(target=core.c.fick_cancel, args=(core.handle,))
            canceller.start()
            canceller.join()
        return 0

    callback = api.PROGRESS(report)
    core.c.fick_set_progress(core.handle, callback, None)
    assert core.run(X, 7, P) == CANCELLED
    assert core.said() == "the run was cancelled before unet/combine"
    core.watch()
    assert core.run(X, 7, P) == 0
    np.testing.assert_array_equal(core.get(), tiny.expected(X, 7, P))


@pytest.mark.parametrize("stop_at", range(5))
def test_a_callback_cancels_anywhere(core: Core, stop_at: int) -> None:
    seen: list[int] = []

    def report(done: int, total: int, user: int | None) -> int:
        seen.append(done)
        return len(seen) > stop_at

    callback = api.PROGRESS(report)
    core.c.fick_set_progress(core.handle, callback, None)
    assert core.run(X, 7, P) == CANCELLED
    assert len(seen) == stop_at + 1
    core.c.fick_set_progress(core.handle, api.PROGRESS(), None)
    assert core.run(X, 7, P) == 0
    np.testing.assert_array_equal(core.get(), tiny.expected(X, 7, P))


def test_a_kernel_that_fails_is_named(core: Core) -> None:
    assert core.run(X - 1e10, 7, P) == KERNEL
    assert core.said() == "kernel scale failed at unet/scale"
    assert core.run(X, 7, P) == 0


def test_profile_lists_every_call(core: Core) -> None:
    core.run(X, 7, P)
    profile = api.CallProfile()
    seen = []
    for index in range(core.c.fick_call_count(core.handle)):
        assert core.c.fick_call_info(core.handle, index, ctypes.byref(profile)) == 0
        assert 0 <= profile.seconds < 1
        seen.append((profile.variant, profile.kernel, profile.node))
    assert seen == [
        (b"prompt", b"twice", b"prompt/double"),
        (b"step", b"next", b"time/next"),
        (b"full", b"scale", b"unet/scale"),
        (b"full", b"combine", b"unet/combine"),
        (b"full", b"launch", b"unet/launch"),
    ]


def test_tensors_are_described(core: Core) -> None:
    info = api.Tensor()
    seen = []
    for direction in (api.INPUT, api.OUTPUT):
        for index in range(core.c.fick_tensor_count(core.handle, direction)):
            assert core.c.fick_tensor_info(core.handle, direction, index, ctypes.byref(info)) == 0
            shape = tuple(info.shape[: info.rank])
            seen.append((info.name, api.DTYPES[info.dtype], api.RATES[info.rate], shape, info.size_bytes))
    assert seen == [
        (b"x", "float32", "sample", (4,), 16),
        (b"t", "float32", "step", (1,), 4),
        (b"p", "float32", "prompt", (1, 2), 8),
        (b"y", "float32", "sample", (4,), 16),
        (b"tasks", "int32", "sample", (256,), 1024),
    ]


ROOM = ctypes.create_string_buffer(4096)
BAD_CALLS = {
    "set unknown": (lambda c, m: c.fick_set_input(m, b"z", ROOM, 16), "the model has no input z"),
    "set size": (lambda c, m: c.fick_set_input(m, b"x", ROOM, 12), "input x has 16 bytes, not 12"),
    "set null data": (
        lambda c, m: c.fick_set_input(m, b"x", None, 16),
        "fick_set_input: an argument is NULL",
    ),
    "set null name": (
        lambda c, m: c.fick_set_input(m, None, ROOM, 16),
        "fick_set_input: an argument is NULL",
    ),
    "set no model": (
        lambda c, m: c.fick_set_input(None, b"x", ROOM, 16),
        "fick_set_input: an argument is NULL",
    ),
    "get unknown": (lambda c, m: c.fick_get_output(m, b"x", ROOM, 16), "the model has no output x"),
    "get size": (
        lambda c, m: c.fick_get_output(m, b"y", ROOM, 2**63),
        "output y has 16 bytes, not 9223372036854775808",
    ),
    "get null": (lambda c, m: c.fick_get_output(m, b"y", None, 16), "fick_get_output: an argument is NULL"),
    "run no model": (lambda c, m: c.fick_run(None), "fick_run: model is NULL"),
    "begin no model": (lambda c, m: c.fick_begin(None, 1), "fick_begin: model is NULL"),
    "begin none": (lambda c, m: c.fick_begin(m, 0), "fick_begin: 0 branches; give 1 to 64"),
    "choose no model": (lambda c, m: c.fick_choose(None, b"full", 0), "fick_choose: an argument is NULL"),
    "choose nothing": (lambda c, m: c.fick_choose(m, None, 0), "fick_choose: an argument is NULL"),
    "choose unknown": (lambda c, m: c.fick_choose(m, b"step", 0), "the model has no alternative step"),
    "choose beyond": (
        lambda c, m: c.fick_choose(m, b"full", 1),
        "fick_choose: there is no branch 1; fick_begin made 1",
    ),
    "steps size": (
        lambda c, m: c.fick_prepare_steps(m, ROOM, 9, 2),
        "fick_prepare_steps: 2 steps of 4 bytes are not 9 bytes",
    ),
    "steps none": (
        lambda c, m: c.fick_prepare_steps(m, ROOM, 0, 0),
        "fick_prepare_steps: 0 steps of 4 bytes are not 0 bytes",
    ),
    "steps negative": (
        lambda c, m: c.fick_prepare_steps(m, ROOM, 4, -1),
        "fick_prepare_steps: -1 steps of 4 bytes are not 4 bytes",
    ),
    "steps null": (
        lambda c, m: c.fick_prepare_steps(m, None, 4, 1),
        "fick_prepare_steps: an argument is NULL",
    ),
    "info beyond": (
        lambda c, m: c.fick_tensor_info(m, 0, 3, ctypes.byref(api.Tensor())),
        "fick_tensor_info: there is no tensor 3",
    ),
    "info before": (
        lambda c, m: c.fick_tensor_info(m, 1, -1, ctypes.byref(api.Tensor())),
        "fick_tensor_info: there is no tensor -1",
    ),
    "info null": (lambda c, m: c.fick_tensor_info(m, 0, 0, None), "fick_tensor_info: there is no tensor 0"),
    "call beyond": (
        lambda c, m: c.fick_call_info(m, 5, ctypes.byref(api.CallProfile())),
        "fick_call_info: there is no call 5",
    ),
    "memory null": (lambda c, m: c.fick_memory_use(m, None), "fick_memory_use: an argument is NULL"),
    "check null": (lambda c, m: c.fick_check(None, 10), "fick_check: data is NULL"),
    "open null": (
        lambda c, m: c.fick_open(None, None, ctypes.byref(m)),
        "fick_open: path and model must not be NULL",
    ),
    "open none together": (
        lambda c, m: c.fick_open_together(b"/", None, (ctypes.c_char_p * 1)(), 0, ctypes.byref(m)),
        "fick_open_together: give a path and the names of 1 to 16 components",
    ),
    "open nowhere": (
        lambda c, m: c.fick_open(b"/", None, None),
        "fick_open: path and model must not be NULL",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_get_one_sentence(core: Core, name: str) -> None:
    call, sentence = BAD_CALLS[name]
    assert call(core.c, core.handle) == ARGUMENT
    assert core.said() == sentence


def test_null_models_are_ignored_where_nothing_is_returned(core: Core) -> None:
    core.c.fick_close(None)
    core.c.fick_cancel(None)
    core.c.fick_set_progress(None, api.PROGRESS(), None)
    assert core.c.fick_tensor_count(None, 0) == core.c.fick_call_count(None) == 0
    assert core.c.fick_alternative(None, 0) is None


def test_alternatives_are_listed(core: Core) -> None:
    names = [core.c.fick_alternative(core.handle, index) for index in (-1, 0, 1, 2**31 - 1)]
    assert names == [None, b"full", None, None]


@pytest.mark.parametrize("threads", [-1, 1025, 2**31 - 1])
def test_impossible_thread_counts(bundle: Path, threads: int) -> None:
    core = Core(bundle, threads)
    assert core.status == ARGUMENT
    assert core.said() == f"fick_open: {threads} threads; give 1 to 1024, or 0 for all"
    assert not core.handle


def test_files_that_cannot_be_opened(bundle: Path, tmp_path: Path) -> None:
    c = api.load_library(check_bundle(bundle).entries[LIBRARY])
    handle = ctypes.c_void_p()

    def opened(path: Path) -> tuple[int, str]:
        return c.fick_open(os.fsencode(path), None, ctypes.byref(handle)), c.fick_last_error().decode()

    (tmp_path / "empty").touch()
    assert opened(tmp_path / "none") == (FILE, f"cannot open {tmp_path}/none: No such file or directory")
    assert opened(tmp_path) == (FILE, f"cannot read {tmp_path}: it is not a regular file")
    assert opened(tmp_path / "empty") == (FORMAT, f"{tmp_path}/empty is empty; copy or compile it anew")
    assert opened(tmp_path / ("n" * 3000))[0] == FILE
    assert not handle


def test_memory_limit_counts_the_tables(bundle: Path) -> None:
    # 128 of weights, 64 of arena, 1408 of state, and two kept prompts of 16 bytes.
    short = Core(bundle, limit=1631)
    assert short.status == MEMORY
    assert short.said() == "the bundle needs 1632 bytes at least and the limit is 1631; raise the limit"
    core = Core(bundle, limit=1648)
    steps = np.arange(3, dtype=np.float32)
    assert core.c.fick_prepare_steps(core.handle, steps.ctypes.data, 12, 3) == MEMORY
    assert core.said() == "the bundle needs 1656 bytes at least and the limit is 1648; raise the limit"
    assert core.c.fick_prepare_steps(core.handle, steps.ctypes.data, 8, 2) == 0
    core.c.fick_close(core.handle)


@pytest.mark.parametrize("feature", ["fma4", "no_such_feature"])
def test_a_missing_cpu_feature_is_named(
    program: Compiled, core_cache: Path, tmp_path: Path, feature: str
) -> None:
    # The last processors with fma4 were made in 2016.
    flags = Path("/proc/cpuinfo").read_text().split()
    assert feature not in flags
    present = next(name for name in ("avx2", "asimd") if name in flags)
    core = Core(tiny.write(tmp_path / "other.fick", tiny.requiring(program, present, feature), core_cache))
    assert core.status == CPU
    assert (
        core.said() == f"the bundle uses {feature}, which this processor lacks; compile it for this machine"
    )


def test_features_that_the_system_reports_are_found(
    program: Compiled, core_cache: Path, tmp_path: Path
) -> None:
    known = re.findall(r'\{"(\w+)", ', HEADER.with_name("cpu.c").read_text())
    flags = set(Path("/proc/cpuinfo").read_text().split())
    present = [name for name in known if name in flags]
    assert len(present) > 4
    core = Core(tiny.write(tmp_path / "mine.fick", tiny.requiring(program, *present), core_cache))
    assert core.status == 0, core.said()
    core.c.fick_close(core.handle)
