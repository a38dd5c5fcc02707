"""What `fick tune` measured on a device, as a file that others compile with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from ...ir.errors import UserError
from ...targets.profile import Target

GAIN = 0.97
"""A choice's share of the predicted one's time, at most, for it to be taken: less may be chance."""

LARGEST_BYTES = 64 << 20
"""Of a file of choices."""


class Tuned(BaseModel):
    """The file: for each problem what each choice took, as a share of the predicted one's time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fick-tuned"] = "fick-tuned"
    target: str = Field(description="The profile that was measured.")
    cores: int = Field(ge=1, description="That ran.")
    shares: dict[str, dict[str, FiniteFloat]] = Field(default={}, description="By problem and choice [1].")

    def choices(self) -> dict[str, str]:
        """The fastest of each problem, where it is not the predicted one."""
        best = {problem: min(found, key=found.__getitem__) for problem, found in self.shares.items() if found}
        return {problem: name for problem, name in best.items() if self.shares[problem][name] < GAIN}

    def of(self, profile: Target) -> Target:
        """The profile with what was measured. Raises UserError for another one, or another number of cores."""
        if profile.name != self.target:
            raise UserError(
                f"--tuned: its choices were measured on {self.target}, and the target is {profile.name}; "
                f"tune for {profile.name}, or compile for {self.target}"
            )
        if profile.cores != self.cores:
            raise UserError(
                f"--tuned: its choices were measured on {self.cores} cores, and {profile.name} has {profile.cores}; "
                "tune on as many"
            )
        return profile.model_copy(update={"tuned": self.choices()})


def read_tuned(path: Path) -> Tuned:
    """Raises UserError for a file that `fick tune` did not write."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise UserError(f"--tuned {path}: larger than any file of `fick tune`; give one that it wrote")
        return Tuned.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"--tuned {path} cannot be read: {error.strerror}; `fick tune` writes one") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the file"
        raise UserError(
            f"--tuned {path}: {place}: {fault['msg'].lower()}; give a file of `fick tune`"
        ) from None
