"""Attention scores as a processor with PSSA writes them to memory (Choi et al., arXiv 2403.04982, ISCAS 2024).

Scores are quantised, those below a threshold pruned, and what remains is written as a bitmap and a list of values.
A map [tokens, tokens] of a grid w pixels wide is made of patches w x w: what the pixels of one line of the picture see
in another. Patches side by side look alike, so that the exclusive or of their bitmaps has fewer ones than they have.

The paper gives the idea. The layout here is ours, and every bit of it is written and counted:

    for each patch, row by row       1 bit that says which of two forms is shorter, then
        the bitmap                   w x w bits, or
        compressed rows              for each row the number of its ones, then the column of each
    for each score that is not zero  its value
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.uint16]
Bits = NDArray[np.uint8]


def quantise(probabilities: NDArray[np.floating], bits: int) -> Scores:
    """Probabilities in 0..1 as integers of ``bits`` bits, 1 being the largest."""
    return np.rint(probabilities.astype(np.float64) * (2**bits - 1)).astype(np.uint16)


def prune(scores: Scores, threshold: int) -> Scores:
    """Scores with those below ``threshold`` set to zero."""
    return np.where(scores < threshold, np.uint16(0), scores)


@dataclass(frozen=True)
class Layout:
    """``side`` pixels of the token grid in a line, ``value_bits`` in a value."""

    side: int
    value_bits: int

    @property
    def count_bits(self) -> int:
        """How many ones a row of a patch has: 0 to ``side``."""
        return self.side.bit_length()

    @property
    def column_bits(self) -> int:
        return (self.side - 1).bit_length()

    def patches(self, matrix: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[..., lines, lines, side, side] of [..., tokens, tokens]."""
        *batch, rows, columns = matrix.shape
        cut = matrix.reshape(*batch, rows // self.side, self.side, columns // self.side, self.side)
        return cut.swapaxes(-3, -2)

    def whole(self, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The inverse of ``patches``."""
        *batch, down, across, side, _ = patches.shape
        return patches.swapaxes(-3, -2).reshape(*batch, down * side, across * side)


def encoded_bits(scores: Scores, layout: Layout) -> int:
    """Bits that ``encode`` takes for maps [..., tokens, tokens]."""
    changed = _changed(layout.patches(_present(scores)))
    ones = changed.sum(axis=(-1, -2), dtype=np.int64)
    plain = layout.side**2
    rows = layout.side * layout.count_bits + ones * layout.column_bits
    return int(ones.size + np.minimum(plain, rows).sum() + np.count_nonzero(scores) * layout.value_bits)


def encode(scores: Scores, layout: Layout) -> Bits:
    """The stream of one map [tokens, tokens], a bit an element. Raises ValueError if a value needs more bits."""
    if int(scores.max(initial=0)) >= 2**layout.value_bits:
        raise ValueError(f"a score of {scores.max()} does not fit in {layout.value_bits} bits")
    stream: list[Bits] = []
    for patch in _changed(layout.patches(_present(scores))).reshape(-1, layout.side, layout.side):
        rows, columns = np.nonzero(patch)
        counts = np.bincount(rows, minlength=layout.side)
        compressed = [_to_bits(counts, layout.count_bits), _to_bits(columns, layout.column_bits)]
        if sum(map(len, compressed)) < patch.size:
            stream += [np.array([1], np.uint8), *compressed]
        else:
            stream += [np.array([0], np.uint8), patch.reshape(-1)]
    return np.concatenate([*stream, _to_bits(scores[scores != 0], layout.value_bits)])


def decode(stream: Bits, tokens: int, layout: Layout) -> Scores:
    """The map that ``encode`` was given. Raises ValueError for a stream of another length or form."""
    reader, side = _Reader(stream), layout.side
    lines = tokens // side
    patches = np.zeros((lines * lines, side, side), np.uint8)
    for patch in patches:
        if reader.take(1, 1)[0]:
            counts = reader.take(side, layout.count_bits)
            columns = reader.take(int(counts.sum()), layout.column_bits)
            if counts.max() > side or columns.max(initial=0) >= side:
                raise ValueError("a compressed row has more ones than pixels, or one beyond its end")
            patch[np.repeat(np.arange(side), counts), columns] = 1
        else:
            patch[:] = reader.take(side * side, 1).reshape(side, side)
    present = layout.whole(_restored(patches.reshape(lines, lines, side, side)))
    scores = np.zeros((tokens, tokens), np.uint16)
    scores[present == 1] = reader.take(int(present.sum()), layout.value_bits)
    if reader.at != len(stream):
        raise ValueError(f"{len(stream) - reader.at} bits are left over")
    return scores


def _present(scores: Scores) -> NDArray[np.uint8]:
    return (scores != 0).astype(np.uint8)


def _changed(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each patch against the one to its left; the first of a line as it is."""
    changed = patches.copy()
    changed[..., 1:, :, :] ^= patches[..., :-1, :, :]
    return changed


def _restored(changed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.bitwise_xor.accumulate(changed, axis=-3)


def _to_bits(values: NDArray[np.integer], width: int) -> Bits:
    """Values of ``width`` bits each, the highest first, one after another."""
    places = np.arange(width - 1, -1, -1)
    return ((values[:, None].astype(np.int64) >> places) & 1).astype(np.uint8).reshape(-1)


class _Reader:
    """Takes values off a stream."""

    def __init__(self, stream: Bits) -> None:
        self.stream, self.at = stream, 0

    def take(self, count: int, width: int) -> NDArray[np.int64]:
        end = self.at + count * width
        if end > len(self.stream):
            raise ValueError(f"the stream ends at bit {len(self.stream)} and should have {end} or more")
        taken = self.stream[self.at : end].reshape(count, width).astype(np.int64)
        self.at = end
        return taken @ (1 << np.arange(width - 1, -1, -1))
