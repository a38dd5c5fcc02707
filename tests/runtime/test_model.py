"""The Python interface: what goes in, what comes out, the loop, and what each mistake says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fick.runtime import Cancelled, FickError, Model, load, native_api
from fick.runtime.noise import Noise
from fick.targets.compiled import Compiled

from . import tiny

X = np.array([1, 2, 3, 4], np.float32)
P = np.array([[0.5, 1.5]], np.float32)
LEVELS = [80.0, 24.0, 6.0, 1.2]


@pytest.fixture
def model(bundle: Path) -> Iterator[Model]:
    with load(bundle, threads=2) as opened:
        yield opened


def test_run_takes_what_fits(model: Model) -> None:
    wanted = tiny.expected(X, 3, P)
    strided = np.repeat(X, 2)[::2]
    assert not strided.flags.c_contiguous
    for x, t, p in [
        (X, 3, P),
        (strided, 3.0, P.tolist()),
        (X.astype(np.float64), np.int64(3), P),
        (list(X), [3], P),
    ]:
        np.testing.assert_array_equal(model.run(x=x, t=t, p=p)["y"], wanted)


def test_results_are_the_callers_own(model: Model) -> None:
    first = model.run(x=X, t=3, p=P)["y"]
    kept = first.copy()
    model.run(x=X + 1, t=3, p=P)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"x": X, "t": 3}, "input p is missing; the inputs are x float32[4], t float32[1], p float32[1, 2]"),
        (
            {"x": X, "t": 3, "p": P, "q": 1},
            "there is no input q; the inputs are x float32[4], t float32[1], p float32[1, 2]",
        ),
        ({"x": X[:3], "t": 3, "p": P}, "input x has shape [3] and should have [4]"),
        ({"x": X, "t": 3, "p": P[0]}, "input p has shape [2] and should have [1, 2]"),
        ({"x": X.astype(complex), "t": 3, "p": P}, "input x is complex128 and should be float32"),
        ({"x": X, "t": "3", "p": P}, "input t has shape [] and should have [1]"),
        ({"x": [None] * 4, "t": 3, "p": P}, "input x is object and should be float32"),
    ],
)
def test_wrong_inputs_are_named(model: Model, inputs: dict[str, object], sentence: str) -> None:
    with pytest.raises(FickError) as caught:
        model.run(**inputs)
    assert str(caught.value) == sentence


def test_two_bundles_at_once(bundle: Path, program: Compiled, core_cache: Path, tmp_path: Path) -> None:
    """Of different programs, whose libraries must not be taken for one another, and of the same one."""
    other = tiny.write(tmp_path / "other.fick", program, core_cache, program_id="cd" * 32)
    with load(bundle) as first, load(other) as second, load(bundle) as third:
        for offset in range(3):
            for index, one in enumerate((first, second, third)):
                x = X + 10 * index + offset
                np.testing.assert_array_equal(one.run(x=x, t=offset, p=P)["y"], tiny.expected(x, offset, P))


def test_models_run_in_threads_of_their_own(bundle: Path) -> None:
    wrong: list[int] = []

    def work(index: int) -> None:
        with load(bundle, threads=2) as one:
            for step in range(100):
                x = X * (index + 1)
                if not np.array_equal(
                    one.run(x=x, t=step, p=P + index)["y"], tiny.expected(x, step, P + index)
                ):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_model_says_so(bundle: Path) -> None:
    model = load(bundle)
    model.close()
    model.close()
    model.cancel()
    for use in (
        lambda: model.run(x=X, t=1, p=P),
        model.profile,
        lambda: model.prepare([1]),
        lambda: model.memory,
        lambda: model.generate(p=P),
    ):
        with pytest.raises(FickError, match="the model is closed; load it again"):
            use()


def test_generate_is_the_loop_by_hand(model: Model) -> None:
    """Multistep consistency, with the tiny model's own closed form in place of the network."""
    got = model.generate(seed=4, p=P)
    rng = Noise(4)
    x = 80 * rng.standard_normal((4,))
    for sigma, following in zip(LEVELS, [*LEVELS[1:], None], strict=True):
        x = tiny.expected(x, sigma, P)
        if following is not None:
            x = x + np.sqrt(following**2 - 0.002**2) * rng.standard_normal((4,))
    # Four calls of two float32 roundings each, every one scaled up to 8-fold by the calls after it.
    np.testing.assert_allclose(got, x, rtol=4 * 2 * 2.0**-23)


def test_the_same_seed_gives_the_same_bytes(model: Model) -> None:
    first = model.generate(seed=1, p=P).tobytes()
    assert model.generate(seed=1, p=P).tobytes() == first
    assert model.generate(seed=2, p=P).tobytes() != first


def test_guidance_mixes_two_prompts(model: Model) -> None:
    """y is linear in p, so guidance w between p and q is the prompt q + w (p - q)."""
    q = np.array([[0.0, -1.0]], np.float32)
    noise = np.ones(4, np.float32)
    sigmas = {"kind": "consistency", "sigmas": [2.0]}
    guided = model.generate(sampler=sigmas, noise=noise, guidance_scale=3.0, p=P, unconditional={"p": q})
    np.testing.assert_allclose(guided, tiny.expected(2 * noise, 2.0, q + 3 * (P - q)), rtol=1e-6)
    with pytest.raises(FickError, match="needs the prompt inputs of the unconditional branch"):
        model.generate(guidance_scale=3.0, p=P)


def test_generate_launches_the_step_and_prompt_kernels_once(model: Model) -> None:
    launched: list[int] = []
    original = model.run

    def counted(**inputs: object) -> dict[str, np.ndarray]:
        return original(progress=lambda done, total: launched.append(total), **inputs)

    model.run = counted  # type: ignore[method-assign]
    model.generate(p=P, guidance_scale=2.0, unconditional={"p": P + 1})
    # Eight calls of the three kernels of the loop; one kernel for each of two prompts; none for the steps.
    assert sorted(launched) == [1] * 2 + [3] * (8 * 3)


def test_progress_counts_and_cancels(model: Model) -> None:
    seen: list[tuple[int, int]] = []
    model.generate(p=P, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 4) for done in range(5)]
    with pytest.raises(Cancelled, match="cancelled"):
        model.generate(p=P, progress=lambda done, total: done == 2)


def test_cancel_between_calls_is_not_lost(model: Model) -> None:
    calls: list[int] = []

    def report(done: int, total: int) -> None:
        calls.append(done)
        if done == 1:
            model.cancel()

    with pytest.raises(Cancelled):
        model.generate(p=P, progress=report)
    assert calls == [0, 1]
    assert model.generate(p=P).shape == (4,)


def test_what_a_callback_raises_comes_out(model: Model) -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.run(progress=interrupted, x=X, t=1, p=P)
    np.testing.assert_array_equal(model.run(x=X, t=1, p=P)["y"], tiny.expected(X, 1, P))


def test_a_callback_is_of_its_own_run_alone(model: Model) -> None:
    seen: list[int] = []
    model.run(progress=lambda done, total: seen.append(done), x=X, t=1, p=P)
    count = len(seen)
    model.prepare([3, 4])
    assert len(seen) == count

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.run(progress=interrupted, x=X, t=1, p=P)
    model.prepare([5, 6])
    np.testing.assert_array_equal(model.run(x=X, t=6, p=P)["y"], tiny.expected(X, 6, P))


def test_a_step_table_needs_steps_and_an_input_is_rectangular(model: Model) -> None:
    with pytest.raises(FickError, match="there are no steps to prepare; give at least one"):
        model.prepare([])
    with pytest.raises(FickError, match=r"input x is ragged and should have \[4\]"):
        model.run(x=[[1], [1, 2]], t=1, p=P)


@pytest.mark.parametrize("options", [{"threads": 2**32}, {"threads": -1}, {"memory_limit_bytes": -1}])
def test_options_do_not_wrap_round(bundle: Path, options: dict[str, int]) -> None:
    with pytest.raises(FickError, match="cannot be; give 0 to 1024 threads"):
        load(bundle, **options)


def test_a_library_of_another_interface_is_not_taken_for_the_next(
    program: Compiled, core_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dynamic linker knows a library by its path, which holds a file descriptor that could be given out again."""
    other = tiny.write(tmp_path / "other.fick", program, core_cache, program_id="01" * 32)
    good = tiny.write(tmp_path / "good.fick", program, core_cache, program_id="23" * 32)
    with monkeypatch.context() as patched:
        patched.setattr(native_api, "ABI_VERSION", 99)
        with pytest.raises(FickError, match="another interface"):
            load(other)
    with load(good) as opened:
        np.testing.assert_array_equal(opened.run(x=X, t=1, p=P)["y"], tiny.expected(X, 1, P))


def modules_after(script: str) -> set[str]:
    """Top-level modules outside the standard library that a fresh interpreter holds after a script."""
    ending = "; import sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", script + ending], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout)) - sys.stdlib_module_names


def test_the_runtime_needs_numpy_alone(bundle: Path) -> None:
    use = f"import fick.runtime; fick.runtime.load({str(bundle)!r}).generate(p=[[0.5, 1.5]])"
    assert modules_after(use) - modules_after("import numpy.random") == {"fick"}
