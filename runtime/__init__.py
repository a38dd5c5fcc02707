"""What runs on the device. Needs NumPy alone."""

from .errors import Cancelled, FickError
from .model import CallTime, MemoryUse, Model, TensorInfo, load

__all__ = ["CallTime", "Cancelled", "FickError", "MemoryUse", "Model", "TensorInfo", "load"]
