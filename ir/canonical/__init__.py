"""One vocabulary for every source: ONNX at opset 24, static shapes, whole operators."""

from __future__ import annotations

from .driver import OPSET, canonicalise

__all__ = ["OPSET", "canonicalise"]
