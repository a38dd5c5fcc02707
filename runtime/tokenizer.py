"""CLIP's tokenizer: byte-pair encoding of lower-case words (Sennrich et al., arXiv 1508.07909)."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FickError

SEPARATORS = "\x1c\x1d\x1e\x1f"
"""White space to Python, but not to Unicode's property of that name."""

END_OF_WORD = "</w>"
CONTRACTIONS = ("'re", "'ve", "'ll", "'s", "'t", "'m", "'d")


@dataclass(frozen=True)
class Tokens:
    """``ids`` is int64 [1, tokens]. ``dropped`` is the end of the prompt that did not fit, or empty."""

    ids: NDArray[np.int64]
    dropped: str


class Tokenizer:
    """Reads the ``vocab.json`` and ``merges.txt`` of a bundle. Raises FickError if they do not go together."""

    def __init__(self, vocabulary: bytes, merges: bytes, facts: Mapping[str, Any]) -> None:
        try:
            self._numbers: dict[str, int] = json.loads(vocabulary)
            pairs = [tuple(line.split(" ")) for line in merges.decode("utf-8").splitlines()]
            self._length, self._start, self._end, self._padding = (
                int(facts[name]) for name in ("tokens", "start", "end", "padding")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise FickError(f"the bundle's tokenizer is damaged ({error}); compile it anew") from None
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._word = lru_cache(maxsize=4096)(self._encoded)

    def encode(self, prompt: str) -> Tokens:
        """Start, the prompt's tokens, end, and padding to the length the text encoder takes."""
        room = self._length - 2
        ids: list[int] = []
        dropped = ""
        for word, place in _words(unicodedata.normalize("NFC", prompt).lower()):
            numbers = self._word(word)
            if len(ids) + len(numbers) > room:
                dropped = prompt[place:].strip() if len(prompt) > place else word
                ids += numbers[: room - len(ids)]
                break
            ids += numbers
        row = [self._start, *ids, self._end]
        row += [self._padding] * (self._length - len(row))
        return Tokens(np.array([row], np.int64), dropped)

    def _encoded(self, word: str) -> tuple[int, ...]:
        letters = [BYTE_LETTERS[byte] for byte in word.encode("utf-8")]
        pieces = [*letters[:-1], letters[-1] + END_OF_WORD]
        while len(pieces) > 1:
            ranked = [
                (self._ranks.get(pair, len(self._ranks)), place)
                for place, pair in enumerate(pairwise(pieces))
            ]
            rank, _ = min(ranked)
            if rank == len(self._ranks):
                break
            pieces = _merged(pieces, [place for found, place in ranked if found == rank])
        return tuple(self._numbers.get(piece, self._end) for piece in pieces)


def _merged(pieces: list[str], places: list[int]) -> list[str]:
    """The pieces with the pairs that begin at ``places`` joined, from the left; pairs do not overlap."""
    result: list[str] = []
    wanted, place = set(places), 0
    while place < len(pieces):
        joins = place in wanted
        result.append(pieces[place] + pieces[place + 1] if joins else pieces[place])
        place += 2 if joins else 1
    return result


def _words(text: str) -> Iterator[tuple[str, int]]:
    """Words, single digits, runs of other characters, and English contractions, with where each begins."""
    place = 0
    while place < len(text):
        contraction = next((one for one in CONTRACTIONS if text.startswith(one, place)), None)
        end = place + len(contraction) if contraction else _run(text, place)
        if end > place:
            yield text[place:end], place
        place = max(end, place + 1)


def _run(text: str, place: int) -> int:
    """Where the run of one kind that begins at ``place`` ends; ``place`` itself for a space."""
    kind = _kind(text[place])
    if kind == "space":
        return place
    end = place + 1
    while kind != "number" and end < len(text) and _kind(text[end]) == kind:
        end += 1
    return end


def _kind(character: str) -> str:
    if character.isspace() and character not in SEPARATORS:
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "other")


def _byte_letters() -> list[str]:
    """A printable letter for every byte, as GPT-2's vocabulary has it: bytes that print are themselves."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


BYTE_LETTERS = _byte_letters()
