"""Whether two programs are the same to the bit."""

from __future__ import annotations

import onnx_ir as ir

from fick.ir.program import Program


def serialised(program: Program) -> bytes:
    """Variant "full"."""
    return ir.serde.serialize_model(program.variants["full"]).SerializeToString(deterministic=True)
