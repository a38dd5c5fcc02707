"""The C interface (``native/fick.h``) as ctypes sees it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

from .errors import CANCELLED, Cancelled, FickError

MAX_RANK = 8
INPUT, OUTPUT = 0, 1
DTYPES: tuple[str, ...] = ("float32", "int64", "int32", "bool")
RATES: tuple[str, ...] = ("prompt", "step", "sample")
ABI_VERSION = 3

PROGRESS = ctypes.CFUNCTYPE(c_int32, c_uint64, c_uint64, c_void_p)


class Options(ctypes.Structure):
    _fields_ = [
        ("threads", c_int32),
        ("skip_verification", c_int32),
        ("memory_limit_bytes", c_uint64),
        ("component", c_char_p),
    ]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("dtype", c_int32),
        ("rate", c_int32),
        ("rank", c_int32),
        ("shape", c_int64 * MAX_RANK),
        ("size_bytes", c_uint64),
    ]


class CallProfile(ctypes.Structure):
    _fields_ = [("variant", c_char_p), ("node", c_char_p), ("kernel", c_char_p), ("seconds", c_double)]


class Memory(ctypes.Structure):
    _fields_ = [
        ("weights_bytes", c_uint64),
        ("arena_bytes", c_uint64),
        ("state_bytes", c_uint64),
        ("table_bytes", c_uint64),
    ]


SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "fick_abi_version": ([], c_uint32),
    "fick_last_error": ([], c_char_p),
    "fick_component": ([c_int32], c_char_p),
    "fick_open": ([c_char_p, POINTER(Options), POINTER(c_void_p)], c_int32),
    "fick_open_together": (
        [c_char_p, POINTER(Options), POINTER(c_char_p), c_int32, POINTER(c_void_p)],
        c_int32,
    ),
    "fick_close": ([c_void_p], None),
    "fick_device_name": ([c_void_p], c_char_p),
    "fick_tensor_count": ([c_void_p, c_int32], c_int32),
    "fick_tensor_info": ([c_void_p, c_int32, c_int32, POINTER(Tensor)], c_int32),
    "fick_set_input": ([c_void_p, c_char_p, c_void_p, c_uint64], c_int32),
    "fick_get_output": ([c_void_p, c_char_p, c_void_p, c_uint64], c_int32),
    "fick_run": ([c_void_p], c_int32),
    "fick_alternative": ([c_void_p, c_int32], c_char_p),
    "fick_begin": ([c_void_p, c_int32], c_int32),
    "fick_choose": ([c_void_p, c_char_p, c_int32], c_int32),
    "fick_prepare_steps": ([c_void_p, c_void_p, c_uint64, c_int32], c_int32),
    "fick_set_progress": ([c_void_p, PROGRESS, c_void_p], None),
    "fick_cancel": ([c_void_p], None),
    "fick_call_count": ([c_void_p], c_int32),
    "fick_call_info": ([c_void_p, c_int32, POINTER(CallProfile)], c_int32),
    "fick_memory_use": ([c_void_p, POINTER(Memory)], c_int32),
    "fick_check": ([c_void_p, c_uint64], c_int32),
}


_loaded: dict[bytes, ctypes.CDLL] = {}


def load_library(code: bytes) -> ctypes.CDLL:
    """The library with these bytes, loaded once however many models use it: it keeps no state of its own."""
    digest = hashlib.sha256(code).digest()
    if digest not in _loaded:
        _loaded[digest] = _load(code)
    return _loaded[digest]


def _load(code: bytes) -> ctypes.CDLL:
    try:
        descriptor = os.memfd_create("libmodel.so", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return _load_from_file(code)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(code)
    # The dynamic linker takes two libraries of one name for the same one. The descriptor is the name, so it stays
    # open as long as the library is loaded: for good, even where the library turns out not to be of use.
    try:
        library = _open(f"/proc/self/fd/{descriptor}")
    except FickError:
        os.close(descriptor)
        raise
    return _of_this_interface(library)


def _load_from_file(code: bytes) -> ctypes.CDLL:
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(code)
        file.flush()
        return _of_this_interface(_open(file.name))


def _open(path: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> FickError:
    return FickError(f"the bundle's library cannot be loaded: {error}; compile it anew for this machine")


def _of_this_interface(library: ctypes.CDLL) -> ctypes.CDLL:
    try:
        if library.fick_abi_version() != ABI_VERSION:
            raise FickError("the bundle's library has another interface than this runtime; compile it anew")
        for name, (arguments, result) in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, result
    except AttributeError as error:
        raise _unusable(error) from None
    return library


def int32(value: int) -> int:
    """The nearest number that fits: ctypes would wrap it round into one that the core takes."""
    return max(-(2**31), min(value, 2**31 - 1))


def check(library: ctypes.CDLL, status: int) -> None:
    """Turn a failed call into an exception with the core's sentence."""
    if status == 0:
        return
    text = (library.fick_last_error() or b"").decode("utf-8", "replace")
    raise (Cancelled if status == CANCELLED else FickError)(text, status)
