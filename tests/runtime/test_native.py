"""What C computes between prompt and picture, beside the Python that it stands for."""

from __future__ import annotations

import ctypes
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fick.compiler import pictures
from fick.runtime import FickError, samplers
from fick.runtime.noise import Noise
from fick.runtime.tokenizer import BYTE_LETTERS, Tokenizer

from . import native

SHAPE = (1, 2, 5, 3)
"""Not a multiple of the sixteen numbers that noise comes in."""

CONFIGS = st.fixed_dictionaries(
    {"kind": st.sampled_from(sorted(samplers.KINDS))},
    optional={
        "num_train_timesteps": st.sampled_from([1000, 50, 7]),
        "beta_start": st.sampled_from([0.00085, 0.0001, 1]),
        "beta_end": st.sampled_from([0.012, 0.02]),
        "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2", "other"]),
        "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample", None]),
        "timestep_spacing": st.sampled_from(["leading", "trailing", "linspace"]),
        "steps_offset": st.sampled_from([0, 1, 3]),
        "set_alpha_to_one": st.booleans(),
        "clip_sample": st.booleans(),
        "clip_sample_range": st.sampled_from([1.0, 2]),
        "eta": st.sampled_from([0.0, 0.5, 1, 2.0]),
        "variance_type": st.sampled_from(["fixed_small", "fixed_large", "learned"]),
        "final_sigmas_type": st.sampled_from(["zero", "sigma_min"]),
        "lower_order_final": st.booleans(),
        "skip_prk_steps": st.sampled_from([True, False]),
        "sigmas": st.sampled_from([[80.0, 24.0, 1.5], [3.0], [1.0, 2.0]]),
        "sigma_min": st.sampled_from([0.002, 0.5, "x"]),
        "thresholding": st.sampled_from([None, True]),
    },
)
RESIDUAL = {"timesteps": [900, 100, 500], "covariance": [[[0.02, 0.01], [0.01, 0.03]]] * 3}


@pytest.fixture(scope="module")
def c(core_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return native.load(core_cache, tmp_path_factory.mktemp("native"))


@settings(max_examples=80, deadline=None)
@given(spec=CONFIGS, steps=st.sampled_from([None, 1, 2, 5, 16, 60]), uneven=st.booleans())
@example(spec={"kind": "diffusers", "config": {"_class_name": "PNDMScheduler"}}, steps=4, uneven=False)
@example(
    spec={"kind": "diffusers", "config": {"_class_name": "EulerDiscreteScheduler"}}, steps=4, uneven=False
)
@example(spec={"kind": "diffusers", "config": {"_class_name": "Other"}}, steps=4, uneven=False)
@example(spec={}, steps=4, uneven=False)
def test_samplers(c: ctypes.CDLL, spec: dict[str, object], steps: int | None, uneven: bool) -> None:
    """Python rounds intermediate values to float32 where C does not: a few roundings of numbers that are up to 157 times
    the result, 1 / sqrt(abar) at the noisiest timestep of the longest schedules drawn here; or both refuse.
    """
    try:
        described = samplers.Residual.of(RESIDUAL, 3.0) if uneven else samplers.NOTHING
        theirs = samplers.create(spec, steps, described)
    except FickError:
        with pytest.raises(FickError):
            native.Sampler(c, spec, steps, 30)
        return
    ours = native.Sampler(c, spec, steps, 30, RESIDUAL if uneven else None, 3.0)
    np.testing.assert_allclose(ours.steps, theirs.steps, rtol=2**-22)
    draws = np.random.default_rng(3)
    rng, noise = Noise(11), native.Noise()
    c.fick_noise_seed(ctypes.byref(noise), 11)
    x = theirs.initial(draws.standard_normal(SHAPE).astype(np.float32))
    for index in range(len(ours.steps)):
        close(ours.scale_input(x, index), theirs.scale_input(x, index), np.abs(x).max())
        output = draws.standard_normal(SHAPE).astype(np.float32)
        moved = ours.step(output, index, x, noise)
        scale = np.abs(x).max() + 157.0
        x = theirs.step(output, index, x, rng)
        close(moved, x, max(scale, float(np.abs(x).max())))
    np.testing.assert_allclose(drawn(c, noise, 20), rng.standard_normal((20,)), atol=2**-20)


def close(found: np.ndarray, wanted: np.ndarray, scale: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * float(scale))


def drawn(c: ctypes.CDLL, noise: native.Noise, count: int) -> np.ndarray:
    values = np.empty(max(count, 16), np.float32)
    c.fick_noise_draw(ctypes.byref(noise), values.ctypes.data, count)
    return values[:count]


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3])
def test_noise(c: ctypes.CDLL, seed: int) -> None:
    """To two units in the last place of numbers up to about five, as NumPy's to torch's."""
    theirs, ours = Noise(seed), native.Noise()
    c.fick_noise_seed(ctypes.byref(ours), seed)
    for count in (3, 16, 17, 1000, 40):
        np.testing.assert_allclose(
            drawn(c, ours, count), theirs.standard_normal((count,)), rtol=0, atol=2**-21
        )


MERGES = [
    ("c", "a"), ("ca", "t</w>"), ("h", "e"), ("a", "r"), ("he", "ar"), ("hear", "t</w>"), ("l", "l"), ("l", "l</w>"),
    ("'", "s</w>"), ("a", "a"), ("aa", "a</w>"), ("t", "h"), ("th", "e</w>"), ("Ã", "¼</w>"), ("!", '"</w>'),
]  # fmt: skip
PIECES = st.sampled_from(
    ["cat", "heart", "the", "'s", "'ll", "'", "12", "½", "Ⅷ", "über", "u\u0308", "e\u0301\u0323", "!?", '!"', " ", "\t",
     "\u00a0", "猫", "😀", "A", "aaaa", "_", "\\", "İ", "ΑΣ", "Σ", "ΑΣ\u0301", "\u1100\u1161\u11a8", "각", "\u0344", "Å", "ﬁ", "\x1c"]
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizers(c: ctypes.CDLL) -> Iterator[tuple[native.Tokenizer, Tokenizer]]:
    letters = sorted(BYTE_LETTERS)
    pieces = [*letters, *(f"{one}</w>" for one in letters), *(a + b for a, b in MERGES), "<s>", "</s>"]
    vocabulary = json.dumps(
        {piece: number for number, piece in enumerate(pieces)}, ensure_ascii=False
    ).encode()
    merges = "".join(f"{a} {b}\n" for a, b in MERGES).encode()
    facts = {"tokens": 24, "start": len(pieces) - 2, "end": len(pieces) - 1, "padding": 0}
    yield native.Tokenizer(c, vocabulary, merges, facts), Tokenizer(vocabulary, merges, facts)


@settings(max_examples=250, deadline=None)
@given(
    st.one_of(
        st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12),
        st.lists(PIECES, max_size=14).map("".join),
    )
)
def test_tokens(tokenizers: tuple[native.Tokenizer, Tokenizer], text: str) -> None:
    ours, theirs = tokenizers
    wanted = theirs.encode(text)
    ids, dropped = ours.encode(text)
    assert ids == wanted.ids[0].tolist()
    # Of a word that was cut, Python says it as the tokens have it.
    said, meant = (
        unicodedata.normalize("NFC", one).lower().strip() for one in (dropped.decode(), wanted.dropped)
    )
    assert bool(said) == bool(meant)
    if said and len(text.lower()) == len(text):
        assert meant in (said, unicodedata.normalize("NFC", text[-1]).lower())


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"cat \xe7\x8c", b"a" * 16385]
)
def test_a_prompt_that_is_none(tokenizers: tuple[native.Tokenizer, Tokenizer], text: bytes) -> None:
    with pytest.raises(FickError, match=r"the prompt (is not UTF-8|has 16385 bytes)"):
        tokenizers[0].encode(text)


def test_a_damaged_tokenizer(c: ctypes.CDLL) -> None:
    whole = {"tokens": 4, "start": 0, "end": 1, "padding": 1}
    cases = [(b"{", b"", whole), (b"[]", b"", whole), (b"{}", b"\xff", whole), (b'{"a": -1}', b"", whole),
             (b'{"a": 1.5}', b"", whole), (b"{}", b"", {**whole, "tokens": 1}), (b"{}", b"", {})]  # fmt: skip
    for vocabulary, merges, facts in cases:
        with pytest.raises(FickError, match="tokenizer is damaged"):
            native.Tokenizer(c, vocabulary, merges, facts)
    assert native.Tokenizer(c, b"{}", b"", whole).encode("cat")[0] == [0, 1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 40),
    few=st.sampled_from([1, 3, 256]),
    seed=st.integers(0, 99),
)
@example(width=300, height=120, few=1, seed=0)
@example(width=300, height=120, few=256, seed=0)
def test_png(
    c: ctypes.CDLL, tmp_path_factory: pytest.TempPathFactory, width: int, height: int, few: int, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.png"
    pixels = np.random.default_rng(seed).integers(0, few, (height, width, 3), dtype=np.uint8)
    assert c.fick_png_write(str(path).encode(), pixels.ctypes.data, width, height) == 0
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    if few == 1 and width == 300:
        assert path.stat().st_size < pixels.nbytes / 50


def test_a_picture_that_cannot_be_written(c: ctypes.CDLL, tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    for place in (tmp_path / "none" / "x.png", tmp_path):
        assert c.fick_png_write(str(place).encode(), pixels.ctypes.data, 2, 2) == 2
        assert c.fick_last_error().decode().startswith(f"cannot write {place}: ")
    assert list(tmp_path.iterdir()) == []


FORMATS = {
    "RGB": {},
    "RGBA": {},
    "L": {"compress_level": 0},
    "LA": {"compress_level": 1},
    "P": {"transparency": 3},
}
"""Kinds of PNG, each with what Pillow is told of how to write it."""


def read(c: ctypes.CDLL, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    pixels = np.full(shape, 77, np.uint8)
    native.check(c, c.fick_png_read(str(path).encode(), pixels.ctypes.data, shape[1], shape[0]))
    return pixels


@pytest.mark.parametrize("mode", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (70, 41)])
def test_a_picture_is_read(c: ctypes.CDLL, tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    """As Pillow reads it, over white: blending is rounded otherwise by one of 255."""
    rng = np.random.default_rng(3)
    smooth = np.add.outer(np.arange(size[1]), np.arange(size[0]))[..., None] * [1, 2, 3, 5] % 256
    noisy = rng.integers(0, 256, (*smooth.shape[:2], 4))
    drawn = np.where(np.arange(size[0])[:, None] % 2 > 0, smooth, noisy).astype(np.uint8)
    picture = Image.fromarray(drawn, "RGBA").convert(mode)
    picture.save(tmp_path / "x.png", **FORMATS[mode])
    wanted = pictures.read(tmp_path / "x.png", size[::-1]).astype(int)
    assert np.abs(read(c, tmp_path / "x.png", wanted.shape) - wanted).max() <= 1


def test_a_picture_that_cannot_be_read(c: ctypes.CDLL, tmp_path: Path) -> None:
    path, pixels = tmp_path / "x.png", np.random.default_rng(3).integers(0, 255, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    with pytest.raises(FickError, match="has 7 x 9 pixels and pictures of the bundle 9 x 7; resize it"):
        read(c, path, (7, 9, 3))
    for end in range(1, len(whole) - 12):
        path.write_bytes(whole[:end])
        with pytest.raises(FickError, match=r"x\.png is no PNG, or damaged"):
            read(c, path, pixels.shape)
    data = whole.index(b"IDAT") + 4
    for at in range(data, len(whole) - 16):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x24]) + whole[at + 1 :])
        with pytest.raises(FickError, match=r"x\.png is no PNG, or damaged"):
            read(c, path, pixels.shape)
    Image.fromarray(pixels[..., 0] > 99).save(path)
    with pytest.raises(FickError, match="other than 8 bits a channel; save it as a plain PNG"):
        read(c, path, pixels.shape)
