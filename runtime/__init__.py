"""What runs on the device. Needs NumPy alone."""

from .class_to_image import ClassToImage
from .errors import Cancelled, FickError
from .model import CallTime, MemoryUse, Model, TensorInfo
from .opening import load
from .text_to_image import TextToImage

__all__ = [
    "CallTime", "Cancelled", "ClassToImage", "FickError", "MemoryUse", "Model", "TensorInfo", "TextToImage", "load",
]  # fmt: skip
