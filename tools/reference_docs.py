"""Write the pages of docs/ that repeat what the code declares; with --check say whether they are as it says."""

from __future__ import annotations

import sys
from pathlib import Path

import cli_docs
import recipe_docs

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"cli.md": cli_docs.page, "recipes.md": recipe_docs.page}


def main() -> None:
    texts = {DOCS / name: page() for name, page in PAGES.items()}
    if "--check" not in sys.argv:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        return
    old = [f"docs/{path.name}" for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    if old:
        sys.exit(f"out of date: {', '.join(old)}; run make docs")


if __name__ == "__main__":
    main()
