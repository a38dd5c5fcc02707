"""Python's Unicode tables in C, so that the runner reads a prompt as runtime/tokenizer.py does."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from ...runtime.tokenizer import SEPARATORS

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)
SPECIAL = "\u0130\u03a3"
"""Their lower case is two characters, or depends on what is around them: unicode.c has rules for them."""


def tables() -> str:
    """unicode_tables.h: rows rise by their first number."""
    parts = _decompositions()
    pool: list[int] = []
    rows: list[tuple[int, ...]] = []
    for code, text in parts.items():
        rows.append((code, len(pool), len(text)))
        pool += map(ord, text)
    return "\n".join(
        [
            f"/* Unicode {unicodedata.unidata_version}. */",
            f"enum {{ CASED = 1, CASE_IGNORED = 2, MOST_PARTS = {max(map(len, parts.values()))} }};",
            _table("kinds", 3, _ranges(_kind)),
            _table("classes", 3, _ranges(unicodedata.combining)),
            _table("cases", 3, _ranges(_case)),
            _table("lowered", 4, _lowered()),
            _table("decompositions", 3, rows),
            f"static const uint32_t parts[] = {{{', '.join(map(str, pool))}}};",
            _table("compositions", 3, _compositions()),
            "",
        ]
    )


def _table(name: str, width: int, rows: Iterable[Sequence[int]]) -> str:
    text = ", ".join("{" + ", ".join(str(number % 2**32) for number in row) + "}" for row in rows)
    return f"static const uint32_t {name}[][{width}] = {{{text}}};"


def _ranges(number: Callable[[str], int]) -> list[tuple[int, int, int]]:
    """(first, last, number) of runs of characters that have the same number, other than 0."""
    runs: list[tuple[int, int, int]] = []
    for value, members in groupby(CHARACTERS, number):
        if value:
            codes = [ord(one) for one in members]
            runs.append((codes[0], codes[-1], value))
    return runs


def _kind(character: str) -> int:
    if character.isspace() and character not in SEPARATORS:
        return 3
    return {"L": 1, "N": 2}.get(unicodedata.category(character)[0], 0)


def _case(character: str) -> int:
    """As Python tells by how it writes a sigma after it: at a word's end it has a form of its own."""
    after = f"{character}\u03a3".lower()[-1] == "\u03c2"
    within = f"A{character}\u03a3".lower()[-1] == "\u03c2"
    return 1 if after else 2 if within else 0


def _lowered() -> list[tuple[int, int, int, int]]:
    """(first, last, stride, difference) of runs of characters that are as far from their lower case."""
    rows: list[list[int]] = []
    for character in CHARACTERS:
        lower = character.lower()
        if lower == character or character in SPECIAL:
            continue
        if len(lower) != 1:
            raise AssertionError(f"{character!r} has a lower case of {len(lower)} characters")
        code, difference = ord(character), ord(lower) - ord(character)
        last = rows[-1] if rows else None
        if last and last[3] == difference and code - last[1] in (1, 2) and last[2] in (0, code - last[1]):
            last[1], last[2] = code, code - last[1]
        else:
            rows.append([code, code, 0, difference])
    return [(first, last, stride or 1, difference) for first, last, stride, difference in rows]


def _decompositions() -> dict[int, str]:
    found = ((ord(one), unicodedata.normalize("NFD", one)) for one in CHARACTERS)
    return {code: text for code, text in found if text != chr(code) and code not in HANGUL}


def _compositions() -> list[tuple[int, int, int]]:
    pairs: list[tuple[int, int, int]] = []
    for character in CHARACTERS:
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            first, second = (int(part, 16) for part in parts)
            if unicodedata.normalize("NFC", chr(first) + chr(second)) == character:
                pairs.append((first, second, ord(character)))
    return sorted(pairs)
