"""What to recompute when, by an optimiser: what choices cost, what they do to pictures, and the best of them."""

from .config import ScheduleReuseConfig
from .schedule import ScheduleReuse

__all__ = ["ScheduleReuse", "ScheduleReuseConfig"]
