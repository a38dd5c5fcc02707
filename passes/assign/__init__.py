"""Products in formats of their own: how much each matters, what each costs, and the best of both."""

from .assign import Assign
from .config import AssignConfig

__all__ = ["Assign", "AssignConfig"]
