"""Components that take turns: one arena, one limit, and the same picture under it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fick.runtime import FickError, TextToImage, load

from . import tiny_pipeline

STEPS = 4
BALLAST_BYTES = 8 << 20
AROUND_BYTES = 2 * (2 << 20)
"""What the system may bring in at both ends of what is asked for: pages are of up to 2 MB."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, core_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("turns")
    return tiny_pipeline.write(folder / "tiny.fick", folder, core_cache, ballast_bytes=BALLAST_BYTES)


def opened(bundle: Path, limit: int = 0) -> TextToImage:
    model = load(bundle, threads=2, memory_limit_bytes=limit)
    assert isinstance(model, TextToImage)
    return model


def needed(error: pytest.ExceptionInfo[FickError]) -> int:
    said = re.fullmatch(
        r"the bundle needs (\d+) bytes at least and the limit is \d+; raise the limit", str(error.value)
    )
    assert said
    return int(said[1])


def resident_bytes(path: Path) -> int:
    """Of a file that is mapped, as the system counts."""
    sizes, within = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            within = line.endswith(f" {path}")
        elif within and line.startswith("Rss:"):
            sizes += int(line.split()[1]) << 10
    return sizes


@pytest.fixture(scope="module")
def least(bundle: Path) -> int:
    """Of the limits under which a picture is drawn: opening does not know of the steps' table yet."""
    with pytest.raises(FickError) as refused:
        opened(bundle, 1)
    with pytest.raises(FickError, match=f"limit is {needed(refused) - 1}"):
        opened(bundle, needed(refused) - 1)
    with opened(bundle, needed(refused)) as model, pytest.raises(FickError) as drawing:
        model.generate("cat", steps=STEPS)
    return needed(drawing)


def test_the_limit_is_for_all_components(bundle: Path, least: int) -> None:
    with opened(bundle) as model:
        wanted = [model.generate(prompt, steps=STEPS, seed=3) for prompt in ("cat", "dog")]
        assert model.memory.weights_bytes == 3 * BALLAST_BYTES + 192
        assert model.memory.arena_bytes == 320
        assert resident_bytes(bundle) > 2 * BALLAST_BYTES
    assert not resident_bytes(bundle)
    with opened(bundle, least) as model:
        before = resident_bytes(bundle)
        there: list[int] = []

        def look(*_: object) -> None:
            there.append(resident_bytes(bundle) - before)
            assert model.memory.peak_bytes <= least

        for prompt, picture in zip(("cat", "dog"), wanted, strict=True):
            model.encode(prompt)
            look()
            drawn = model.generate(prompt, steps=STEPS, seed=3, progress=look, each_step=look)
            look()
            np.testing.assert_array_equal(drawn, picture)
        room = least - (model.memory.peak_bytes - model.memory.weights_bytes)
        assert BALLAST_BYTES <= room < BALLAST_BYTES + 64
        assert BALLAST_BYTES <= max(there) <= room + AROUND_BYTES


def test_what_was_read_before_there_was_a_table_is_let_go_of(bundle: Path, least: int) -> None:
    """The limit has room for all weights, but not for a table beside them."""
    with opened(bundle) as model:
        all_bytes = model.memory.peak_bytes
    with opened(bundle, all_bytes) as model:
        model.encode("cat")
        model.decode(np.zeros((1, 4, 3, 3), np.float32))
        assert model.memory.peak_bytes == all_bytes
        read = resident_bytes(bundle)
        model.unet.prepare([1])
        assert model.memory.peak_bytes <= all_bytes
        assert resident_bytes(bundle) < read - BALLAST_BYTES


def test_one_may_be_closed_before_the_others(bundle: Path) -> None:
    with opened(bundle) as model:
        latent = np.linspace(-1, 1, 36, dtype=np.float32).reshape(1, 4, 3, 3)
        wanted = model.decode(latent)
        model.unet.close()
        np.testing.assert_array_equal(model.decode(latent), wanted)
        with pytest.raises(FickError, match="is closed"):
            model.generate("cat", steps=STEPS)
