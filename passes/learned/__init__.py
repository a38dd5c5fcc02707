"""Passes that learn: numbers of a program are fitted to calls of the float program.

Torch is imported when such a pass runs, so that recipes can be read, and graphs compiled, without it.
"""

from __future__ import annotations

from ...ir.errors import UserError


def require_torch(wanted_by: str) -> None:
    """Raises UserError if torch is not installed."""
    try:
        import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise UserError(
            f"pass {wanted_by} needs torch; install it with `pip install 'fick[torch]'`."
        ) from error
