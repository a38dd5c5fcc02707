"""The evaluation of one model against another: pictures of the same prompts and seeds, and all measures on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from . import alignment, distribution, fidelity
from .drawing import Artist, Drawing, artist
from .gallery import Gallery, fingerprint
from .interval import Interval, bootstrap, mean
from .judge import Judge
from .sheet import side_by_side
from .standard import Standard

MOST_ROWS = 12


@dataclass(frozen=True)
class Prompt:
    text: str
    category: str | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """One a line; after a tab, if anything, the category that the picture should have.

    Raises UserError for a file that cannot be read or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as prompts ({first_line(error)}); give a text file, one a line"
        ) from None
    # Not splitlines, which would also part a prompt at characters that a page it was copied from had in it.
    rows = [line.split("\t") for line in text.split("\n") if line.strip()]
    if not rows:
        raise UserError(f"{path} holds no prompts; give one a line")
    return [Prompt(row[0].strip(), row[1].strip() if len(row) > 1 else None) for row in rows]


def evaluate(
    candidate: Path,
    reference: Path,
    prompts: Sequence[Prompt],
    *,
    steps: int,
    seeds: int,
    guidance_scale: float,
    folder: Path,
    judge: Judge | None = None,
    standard: Standard | None = None,
    reference_steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw every prompt from seeds 0, 1, ... with both models, and measure.

    Drawings are kept in ``folder``, where another call goes on from, and which gets ``sheet.png``. Without a
    judge only fidelity and cost are measured; ``standard`` adds FID and CLIP score by networks of the user's. The
    reference may take another number of steps.
    """
    jobs = [(prompt.text, seed) for prompt in prompts for seed in range(seeds)]
    report = progress or (lambda done, total: None)
    drawn: dict[str, list[Drawing]] = {}
    costs: dict[str, dict[str, Any]] = {}
    sources = {"reference": reference, "candidate": candidate}
    hands = {name: artist(source) for name, source in sources.items()}  # both are sound before either draws
    for before, (name, hand) in enumerate(hands.items()):
        gallery = Gallery(folder, fingerprint(sources[name]))
        count = (reference_steps if name == "reference" else None) or steps
        drawn[name] = []
        for text, seed in jobs:
            report(before * len(jobs) + len(drawn[name]), 2 * len(jobs))
            draw = partial(hand.draw, text, seed, count, guidance_scale)
            drawn[name].append(gallery.drawing((text, seed, count, guidance_scale), draw))
        costs[name] = _cost(drawn[name], hand, count)
    report(2 * len(jobs), 2 * len(jobs))
    ours, theirs = drawn["candidate"], drawn["reference"]
    result: dict[str, Any] = {
        "candidate": str(candidate),
        "reference": str(reference),
        "prompts": len(prompts),
        "seeds": seeds,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "fidelity": nearness(theirs, ours),
        "cost": costs,
    }
    if judge is not None:
        asked = [prompt for prompt in prompts for _ in range(seeds)]
        result["judged"] = {
            name: judged(judge, np.stack([one.picture for one in drawings]), asked)
            for name, drawings in drawn.items()
        }
    labels = [text for text, _ in jobs]
    if standard is not None:
        result["standard"] = {
            name: standard.of(np.stack([one.picture for one in drawings]), labels)
            for name, drawings in drawn.items()
        }
    side_by_side(labels[:MOST_ROWS], theirs[:MOST_ROWS], ours[:MOST_ROWS], folder / "sheet.png")
    return plain(result)


def judged(judge: Judge, pictures: NDArray[np.uint8], prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What the judge says of pictures of prompts: distance to real ones, and whether they show what was asked."""
    features, logits = judge.look(pictures)
    real = judge.real.astype(np.float64)
    wide = features.astype(np.float64)
    precision, recall = distribution.precision_recall(real, wide)
    theirs = distribution.Gaussian(real)
    found: dict[str, Any] = {
        "frechet_distance": bootstrap(
            len(wide), lambda rows: distribution.frechet_distance(theirs, distribution.Gaussian(wide[rows]))
        ),
        "precision": precision,
        "recall": recall,
    }
    known = [row for row, prompt in enumerate(prompts) if prompt.category in judge.categories]
    if known:
        wanted = np.array([judge.categories.index(str(prompts[row].category)) for row in known])
        found["category_accuracy"] = mean(alignment.category_hits(logits[known], wanted))
    texts = judge.text_embeddings([prompt.text for prompt in prompts])
    found["retrieval_accuracy"] = mean(alignment.retrieval_hits(judge.image_embeddings(pictures), texts))
    return found


def nearness(theirs: Sequence[Drawing], ours: Sequence[Drawing]) -> dict[str, Any]:
    """How near ``ours`` are to ``theirs``, drawn from the same prompts and seeds; in loops of different lengths only
    the last latents are held beside each other.
    """
    pairs = list(zip(theirs, ours, strict=True))
    if any(
        a.picture.shape != b.picture.shape or a.latents.shape[1:] != b.latents.shape[1:] for a, b in pairs
    ):
        raise UserError("the two models draw pictures of different sizes; compare two of one size")
    last = slice(None) if all(len(a.latents) == len(b.latents) for a, b in pairs) else slice(-1, None)
    errors = np.stack([fidelity.relative_error(a.latents[last], b.latents[last]) for a, b in pairs])
    return {
        "psnr_db": mean(np.array([fidelity.psnr_db(a.picture, b.picture) for a, b in pairs])),
        "ssim": mean(np.array([fidelity.ssim(a.picture, b.picture) for a, b in pairs])),
        "latent_error": mean(errors[:, -1]),
        "latent_error_by_step": errors.mean(0).tolist(),
    }


def _cost(drawings: Sequence[Drawing], hand: Artist, steps: int) -> dict[str, Any]:
    seconds = np.array([one.image_s for one in drawings])
    return {
        "image_s": {
            "median": float(np.median(seconds)),
            "min": float(seconds.min()),
            "max": float(seconds.max()),
        },
        "step_s": float(np.median(seconds)) / steps,
        **hand.cost(steps),
    }


def plain(result: Any) -> Any:
    """Intervals as dictionaries, for JSON."""
    if isinstance(result, Interval):
        return asdict(result)
    if isinstance(result, dict):
        return {key: plain(value) for key, value in result.items()}
    return result
