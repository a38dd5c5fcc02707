"""fick takes diffusion models to the edge: ``compile`` a UNet into a bundle, ``load`` the bundle and run it, or
``estimate`` what it would cost on an accelerator."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fick.compiler.compile import compile
    from fick.compiler.estimate import estimate
    from fick.runtime import load

__all__ = ["compile", "estimate", "load"]

_HOMES = {
    "compile": "fick.compiler.compile",
    "estimate": "fick.compiler.estimate",
    "load": "fick.runtime",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: running a bundle needs none of what compiling needs.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fick' has no attribute {name!r}")
