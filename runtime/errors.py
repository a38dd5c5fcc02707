"""The one exception of the runtime."""

CANCELLED = 8
"""FICK_ERROR_CANCELLED of fick.h."""


class FickError(Exception):
    """Something the caller can mend: one sentence that says what was wrong, where, and what would be right.

    ``code`` is the status of the C interface (``fick_status``), 1 where Python itself found the mistake.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Cancelled(FickError):
    """The progress callback or ``Model.cancel`` stopped the run."""
