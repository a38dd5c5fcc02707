"""The protocol of a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from ..ir.program import Program

ConfigT = TypeVar("ConfigT", bound=BaseModel)


@dataclass(frozen=True)
class Context:
    progress: Any = None


class Pass(Generic[ConfigT]):
    name: ClassVar[str]
    Config: ClassVar[type[BaseModel]]

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def run(self, program: Program, context: Context) -> Program:
        raise AssertionError
