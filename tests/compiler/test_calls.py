"""Calls that passes are calibrated with: kept, read again, and chosen by timestep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fick.compiler.quality.calls import Calls, chosen
from fick.compiler.quality.drawing import Drawing
from fick.compiler.quality.gallery import Gallery

STEPS = 100


def trajectory() -> tuple[Drawing, Calls]:
    rng = np.random.default_rng(0)
    latents: NDArray[np.float32] = rng.standard_normal((STEPS, 4, 2, 2)).astype(np.float32)
    calls = [{"sample": latents[step][None], "timestep": np.array(999 - 10 * step)} for step in range(STEPS)]
    return Drawing(np.zeros((4, 4, 3), np.uint8), latents, 1.5), calls


def never() -> tuple[Drawing, Calls]:
    raise AssertionError("it is kept")


def test_what_is_kept_is_not_drawn_again(tmp_path: Path) -> None:
    kept = Gallery(tmp_path, "a" * 64)
    drawing, calls = trajectory()
    kept.drawn(("cat", 0), trajectory)
    again, read = Gallery(tmp_path, "a" * 64).drawn(("cat", 0), never)
    np.testing.assert_array_equal(again.latents, drawing.latents)
    assert again.image_s == drawing.image_s
    assert len(read) == STEPS
    for one, other in zip(calls, read, strict=True):
        assert one.keys() == other.keys()
        assert all(other[name].dtype == one[name].dtype for name in one)
        np.testing.assert_array_equal(other["sample"], one["sample"])
        np.testing.assert_array_equal(other["timestep"], one["timestep"])
    for other in (("dog", 0), ("cat", 1)):
        with pytest.raises(AssertionError, match="it is kept"):
            kept.drawn(other, never)
    with pytest.raises(AssertionError, match="it is kept"):
        Gallery(tmp_path, "b" * 64).drawn(("cat", 0), never)


def test_a_damaged_file_is_drawn_again(tmp_path: Path) -> None:
    kept = Gallery(tmp_path, "a" * 64)
    kept.drawn(("cat", 0), trajectory)
    (path,) = tmp_path.rglob("*.npz")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(20):
        damaged = bytearray(whole[: rng.integers(1, len(whole))])
        damaged[rng.integers(len(damaged))] ^= 0xFF
        path.write_bytes(bytes(damaged))
        assert len(kept.drawn(("cat", 0), trajectory)[1]) == STEPS
        assert path.read_bytes() == whole


def test_calls_are_chosen_by_timestep() -> None:
    _, calls = trajectory()
    assert chosen(calls, "timestep", STEPS, "uniform", 0) is calls
    times = {}
    for spread in ("uniform", "normal"):
        some = chosen(calls, "timestep", 60, spread, 0)
        times[spread] = np.array([float(call["timestep"]) for call in some])
        assert len(np.unique(times[spread])) == 60
        assert (np.diff(times[spread]) < 0).all()  # in the order of the loop
        again = chosen(calls, "timestep", 60, spread, 0)
        assert all(one is other for one, other in zip(some, again, strict=True))
    assert abs(times["uniform"].mean() - 504) < 60
    assert times["normal"].mean() < times["uniform"].mean()
