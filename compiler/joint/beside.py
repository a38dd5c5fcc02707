"""What a search leaves beside its bundle: NAME.toml and NAME.png. People give files such names too, and edit recipes:
over what is theirs nothing is written.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...ir.errors import UserError
from ...ir.files import check_place, write_whole


class Beside:
    """The places beside a ``bundle``. What any search wrote is known again by its digest, which ``folder`` keeps.

    Raises UserError where the bundle itself would have one of the names, and as ``check`` does.
    """

    def __init__(self, bundle: Path, folder: Path) -> None:
        self._folder = folder
        self.recipe, self.picture = places = bundle.with_suffix(".toml"), bundle.with_suffix(".png")
        if bundle in places:
            raise UserError(
                f"cannot write {bundle}: what --within finds is written beside the bundle as {self.recipe.name} and "
                f"{self.picture.name}; give the bundle a name that ends in .fick"
            )
        for path in places:
            self.check(path)

    def check(self, path: Path) -> None:
        """Raises UserError where ``path`` cannot be written, or has what no search wrote or what was changed since."""
        check_place(path)
        if path.exists() and not self._mark(path.read_bytes()).exists():
            raise UserError(
                f"cannot write {path}: it is there, and not as --within left it; rename it, or give the bundle another "
                "name with -o"
            )

    def write(self, path: Path, data: bytes) -> None:
        """Whole or not at all. Raises UserError as ``check`` does: hours may have passed."""
        self.check(path)
        mark = self._mark(data)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        write_whole(path, data)

    def _mark(self, data: bytes) -> Path:
        return self._folder / hashlib.sha256(data).hexdigest()
