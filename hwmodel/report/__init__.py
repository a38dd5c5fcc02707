"""An estimate to look at: one self-contained HTML page, and its time line for Perfetto."""

from .page import page
from .trace import trace

__all__ = ["page", "trace"]
