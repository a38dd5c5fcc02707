"""The model card that stands beside the weights, with what was measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from .data import HELD_OUT_SHARE

CARD = """---
license: cc-by-4.0
library_name: diffusers
pipeline_tag: text-to-image
---
# emoji-sd

A text-to-image pipeline of Stable Diffusion's shape, small enough to live in a repository: {millions:.1f} million
parameters, 64 x 64 pixels. It draws emojis and nothing else. It is there so that what a compiler pass does to
pictures can be measured rather than claimed.

![Sixty-four prompts](contact-sheet.png)

| part | what it is |
| --- | --- |
| `vae/` | AutoencoderKL, 64 x 64 x 3 to 16 x 16 x 4 |
| `unet/` | UNet2DConditionModel, attends at 16, 8 and 4 pixels a side, predicts v, {denoiser_steps:,} steps of 64 |
| `text_encoder/`, `tokenizer/` | CLIPTextModel and a byte-pair CLIPTokenizer, trained on the captions |
| `judge/` | a classifier of nine categories and a contrastive text-image model, as ONNX: what `fick evaluate` asks |
| `prompts.txt`, `prompts-held-out.txt` | captions with their categories; those held out were never trained on |

Prompts look like the captions: `google smiley, loudly crying face`, `twitter food, slice of pizza`.

## Measured

{table}

The weights that come with fick had seen 4,300 steps before these, in which a gradient that was compiled wrongly left
most of the UNet as it was drawn. The last 4,700 of these, by `examples/emoji_sd/train_on.py`, are Muon's for matrices.

Neither network of the judge is a standard measure. Distances in the features of its classifier are not FID, and its
contrastive model is not CLIP: they know emojis and nothing else, and were trained on the same pictures. The diffusion
model saw few concepts many times; on prompts that it never saw it is weak, as the last rows say.

![Losses](curve.png){since}

## Data and licences

The pictures are those of the npm packages `emoji-datasource-google` 16.0.0 and `emoji-datasource-twitter` 16.0.0
without variants of skin tone, {share:.0f} % of the concepts held out; keywords are those of `emojilib` 4.0.3 (MIT).

- Google's are [Noto Emoji](https://github.com/googlefonts/noto-emoji), Copyright Google LLC, licensed under the Apache
  License 2.0 (images; fonts under the SIL Open Font License 1.1).
- Twitter's are [Twemoji](https://github.com/twitter/twemoji), Copyright Twitter, Inc. and other contributors, licensed
  under [CC-BY 4.0](https://creativecommons.org/licenses/by/4.0/).

The weights are a work derived from both, offered under CC-BY 4.0; whoever passes them or their pictures on names both
sources. `examples/emoji_sd/train.py` makes them again.
"""


def write(measures: dict[str, Any], made: StableDiffusionPipeline, folder: Path) -> None:
    """The card with a table of ``measures``, beside the weights in ``folder``."""
    parts = (made.unet, made.vae, made.text_encoder)
    parameters = sum(one.numel() for part in parts for one in part.parameters())
    rows = ["| | seen | held out |", "| --- | --- | --- |"]
    names = {
        "autoencoder_psnr_db": ("reconstruction by the autoencoder, PSNR", "{:.1f} dB"),
        "classifier_accuracy": ("the classifier on real pictures", "{:.1%}"),
        "retrieval_accuracy_of_16": (
            "the contrastive model on real pictures: its caption among 16",
            "{:.1%}",
        ),
    }
    for key, (name, form) in names.items():
        rows.append(
            "| "
            + " | ".join((name, *(form.format(measures[key][one]) for one in ("seen", "held_out"))))
            + " |"
        )
    asked = [measures[name] for name in ("prompts.txt", "prompts-held-out.txt")]
    share, plain = "{:.1%} ({:.1%} to {:.1%})", "{:.1f} ({:.1f} to {:.1f})"
    drawn = {
        "category_accuracy": ("drawn pictures of the asked category", share),
        "retrieval_accuracy": ("drawn pictures whose caption is the nearest among 16", share),
        "frechet_distance": ("Fréchet distance to real pictures, in the classifier's features", plain),
    }
    for key, (name, form) in drawn.items():
        found = (form.format(*(one[key][end] for end in ("value", "low", "high"))) for one in asked)
        rows.append("| " + " | ".join((name, *found)) + " |")
    text = CARD.format(
        millions=parameters / 1e6, table="\n".join(rows), share=100 * HELD_OUT_SHARE,
        denoiser_steps=measures["denoiser_steps"],
        since="\n![Losses of the steps since](curve-on.png)" if (folder / "curve-on.png").exists() else "",
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")
