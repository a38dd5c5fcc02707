"""The C pipeline as a library on this machine, its inner functions included."""

from __future__ import annotations

import ctypes
import json
import platform
from ctypes import POINTER, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from fick.compiler.runner import library
from fick.runtime import FickError


class Json(ctypes.Structure):
    _fields_ = [("at", c_void_p), ("end", c_void_p)]


class Entry(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("name_size", c_uint32),
        ("data", c_char_p),
        ("size", c_uint64),
        ("checksum", c_uint32),
    ]


class Noise(ctypes.Structure):
    _fields_ = [("state", c_uint32 * 624), ("next", c_int32)]


class Doubles(ctypes.Structure):
    """fick_residual."""

    _fields_ = [("timesteps", c_void_p), ("deviations", c_void_p), ("count", c_int32)]


SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "fick_last_error": ([], c_char_p),
    "fick_json_valid": ([c_void_p, c_uint64], c_int32),
    "fick_noise_seed": ([POINTER(Noise), c_uint64], None),
    "fick_noise_draw": ([POINTER(Noise), c_void_p, c_size_t], None),
    "fick_residual_read": ([Json, ctypes.c_double, POINTER(Doubles)], c_int32),
    "fick_residual_free": ([POINTER(Doubles)], None),
    "fick_sampler_create": ([Json, c_char_p, c_int32, c_void_p, c_size_t, POINTER(c_void_p)], c_int32),
    "fick_sampler_destroy": ([c_void_p], None),
    "fick_sampler_steps": ([c_void_p, POINTER(c_int32)], POINTER(c_float)),
    "fick_sampler_initial": ([c_void_p, c_void_p], None),
    "fick_sampler_scale_input": ([c_void_p, c_void_p, c_int32, c_void_p], None),
    "fick_sampler_step": ([c_void_p, c_void_p, c_int32, c_void_p, POINTER(Noise)], None),
    "fick_tokenizer_create": ([POINTER(Entry), POINTER(Entry), Json, POINTER(c_void_p)], c_int32),
    "fick_tokenizer_destroy": ([c_void_p], None),
    "fick_tokenizer_encode": ([c_void_p, c_char_p, c_void_p, POINTER(c_size_t)], c_int32),
    "fick_png_write": ([c_char_p, c_void_p, c_int32, c_int32], c_int32),
    "fick_png_read": ([c_char_p, c_void_p, c_int32, c_int32], c_int32),
}


def load(cache_folder: Path, scratch: Path) -> ctypes.CDLL:
    path = scratch / "libfick.so"
    path.write_bytes(library(platform.machine(), cache_folder))
    return typed(path)


def typed(path: Path) -> ctypes.CDLL:
    made = ctypes.CDLL(str(path))
    for name, (arguments, result) in SIGNATURES.items():
        function = getattr(made, name)
        function.argtypes, function.restype = arguments, result
    return made


def check(c: ctypes.CDLL, status: int) -> None:
    if status:
        raise FickError(c.fick_last_error().decode(), status)


class Text:
    """JSON that C may read as long as this lives."""

    def __init__(self, value: object) -> None:
        self._bytes = json.dumps(value).encode()
        self._kept = ctypes.create_string_buffer(self._bytes)
        start = ctypes.addressof(self._kept)
        self.json = Json(start, start + len(self._bytes))


class Sampler:
    """A C sampler, called as those of Python are."""

    def __init__(
        self,
        c: ctypes.CDLL,
        spec: object,
        steps: int | None,
        elements: int,
        residual: object = None,
        scale: float = 1.0,
    ) -> None:
        self._c, self._text, self._handle = c, Text(spec), c_void_p()
        self._residual = Doubles()
        if residual is not None:
            described = Text(residual)
            check(c, c.fick_residual_read(described.json, scale, ctypes.byref(self._residual)))
        made = c.fick_sampler_create(
            self._text.json,
            None,
            steps or 0,
            ctypes.addressof(self._residual),
            elements,
            ctypes.byref(self._handle),
        )
        check(c, made)
        count = c_int32()
        found = c.fick_sampler_steps(self._handle, ctypes.byref(count))
        self.steps = np.ctypeslib.as_array(found, (count.value,)).copy()

    def initial(self, noise: np.ndarray) -> np.ndarray:
        x = np.array(noise, np.float32)
        self._c.fick_sampler_initial(self._handle, x.ctypes.data)
        return x

    def scale_input(self, x: np.ndarray, index: int) -> np.ndarray:
        seen = np.empty_like(x)
        self._c.fick_sampler_scale_input(self._handle, x.ctypes.data, index, seen.ctypes.data)
        return seen

    def step(self, output: np.ndarray, index: int, x: np.ndarray, rng: Noise) -> np.ndarray:
        moved = np.array(x, np.float32)
        self._c.fick_sampler_step(
            self._handle, output.ctypes.data, index, moved.ctypes.data, ctypes.byref(rng)
        )
        return moved

    def __del__(self) -> None:
        self._c.fick_sampler_destroy(self._handle)
        self._c.fick_residual_free(ctypes.byref(self._residual))


class Tokenizer:
    def __init__(self, c: ctypes.CDLL, vocabulary: bytes, merges: bytes, facts: dict[str, int]) -> None:
        self._c, self._handle, self._length = c, c_void_p(), facts.get("tokens", 0)
        self._files = [Entry(b"", 0, data, len(data), 0) for data in (vocabulary, merges)]
        self._facts = Text(facts)
        one, two = (ctypes.byref(entry) for entry in self._files)
        check(c, c.fick_tokenizer_create(one, two, self._facts.json, ctypes.byref(self._handle)))

    def encode(self, prompt: str | bytes) -> tuple[list[int], bytes]:
        """The tokens and what fell off."""
        text = prompt if isinstance(prompt, bytes) else prompt.encode()
        ids, at = np.full(self._length + 1, -7, np.int64), c_size_t()
        check(self._c, self._c.fick_tokenizer_encode(self._handle, text, ids.ctypes.data, ctypes.byref(at)))
        assert ids[-1] == -7
        return ids[:-1].tolist(), text[at.value :]

    def __del__(self) -> None:
        self._c.fick_tokenizer_destroy(self._handle)


__all__ = ["Noise", "Sampler", "Text", "Tokenizer", "check", "load", "typed"]
