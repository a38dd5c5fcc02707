"""Whether pictures show what was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AMONG = 16


def category_hits(logits: NDArray[np.float32], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 where the classifier's first choice is the prompted category, for logits [n, categories].

    Coarse, and only as good as the classifier, whose accuracy on real pictures stands beside it.
    """
    return (logits.argmax(1) == wanted).astype(np.float64)


def retrieval_hits(images: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 where a picture's own caption is nearest among 16 captions, the others drawn from those given.

    Embeddings are of unit length, [n, width]; captions that are equal to the own one are not drawn. Finer than
    the category, but a picture that matches words without looking right passes too.
    """
    rng = np.random.default_rng(0)
    captions = np.unique(texts, axis=0, return_inverse=True)[1].ravel()
    hits = np.zeros(len(images))
    for row, image in enumerate(images):
        others = np.flatnonzero(captions != captions[row])
        drawn = rng.choice(others, min(AMONG - 1, len(others)), replace=False)
        hits[row] = float((texts[row] @ image > texts[drawn] @ image).all())
    return hits
