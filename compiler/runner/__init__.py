"""The runner: C core, pipeline and command line as one program for a device."""

from .build import ARCHITECTURES, library, program

__all__ = ["ARCHITECTURES", "library", "program"]
