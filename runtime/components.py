"""Components of a bundle, opened by the core that is inside it."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Sequence
from typing import Any

from . import native_api as api
from .errors import FickError
from .loader import LIBRARY, Checked, check_bundle, require_this_machine

MOST_THREADS = 1024
PROCESSOR = "processor"


class Component:
    """A component that is open, by the name that it was asked for; ``device`` is what it runs on."""

    def __init__(
        self, manifest: dict[str, Any], library: ctypes.CDLL, handle: ctypes.c_void_p, name: str | None
    ) -> None:
        self.manifest, self.library, self.handle, self.name = manifest, library, handle, name
        self.device: str = library.fick_device_name(handle).decode("utf-8", "replace")

    def close(self) -> None:
        """Give the memory back."""
        if self.handle:
            self.library.fick_close(self.handle)
            self.handle = ctypes.c_void_p()

    def __del__(self) -> None:
        self.close()


def open_together(
    bundle: str | os.PathLike[str] | Checked,
    names: Sequence[str | None],
    *,
    threads: int,
    verify: bool,
    memory_limit_bytes: int,
) -> list[Component]:
    """Components that take turns: they share an arena, and the limit is for all of them together.

    The name None is that of the main one. The other arguments are those of ``load``. Raises FickError.
    """
    # ctypes would wrap them round into numbers that the core takes.
    if not 0 <= threads <= MOST_THREADS or not 0 <= memory_limit_bytes < 2**64:
        raise FickError(
            f"{threads} threads within {memory_limit_bytes} bytes cannot be; give 0 to {MOST_THREADS} threads "
            "and a limit of 0 bytes (none) or more"
        )
    checked = bundle if isinstance(bundle, Checked) else check_bundle(bundle)
    require_this_machine(checked)
    library = api.load_library(checked.entries[LIBRARY])
    options = api.Options(threads, int(not verify), memory_limit_bytes, None)
    wanted = (ctypes.c_char_p * len(names))(*(name.encode() if name else None for name in names))
    handles = (ctypes.c_void_p * len(names))()
    path = os.fsencode(checked.path)
    status = library.fick_open_together(path, ctypes.byref(options), wanted, len(names), handles)
    api.check(library, status)
    opened = [
        Component(checked.manifest, library, ctypes.c_void_p(handle), name)
        for handle, name in zip(handles, names, strict=True)
    ]
    if opened[0].device == PROCESSOR and checked.manifest["target"].get("kind") == "opencl":
        reason = library.fick_last_error().decode("utf-8", "replace")
        warnings.warn(f"{checked.path} runs on the processor: {reason}", stacklevel=3)
    return opened
