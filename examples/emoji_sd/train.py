"""Trains emoji-sd, a text-to-image pipeline of Stable Diffusion's shape, from nothing, on a CPU or a GPU.

    python -m emoji_sd.train [--folder FOLDER] [--output models/emoji-sd]        (in examples/)

Pictures come from npm. Every stage checkpoints and goes on where it was; run it again after an interruption.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from fick.compiler.quality.drawing import PipelineArtist
from fick.compiler.quality.evaluate import judged, plain, read_prompts
from fick.compiler.quality.judge import Judge

from . import card, curve, data, export, models, sheet, train_autoencoder, train_denoiser, train_measures

PROMPTS, JUDGED, STEPS, GUIDANCE = 256, 64, 20, 5.0

Compiled = Annotated[bool, typer.Option(help="Compile the UNet with torch: faster, needs a C++ compiler.")]
Threads = Annotated[int, typer.Option(help="0 takes all.")]


def main(
    folder: Annotated[Path, typer.Option(help="Checkpoints, curves and downloads.")] = Path("out/emoji-sd"),
    output: Annotated[Path, typer.Option(help="The finished pipeline.")] = Path("models/emoji-sd"),
    autoencoder_steps: int = 2000,
    steps: Annotated[int, typer.Option(help="Of the text encoder and the UNet.")] = 5000,
    classifier_steps: int = 1500,
    contrastive_steps: int = 3000,
    compiled: Compiled = False,
    threads: Threads = 0,
) -> None:
    """Train all parts, export them, and print how good they are."""
    device = fastest(threads)
    emojis, pixels = data.load(folder / "npm")
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    flippable = torch.tensor([emoji.flippable for emoji in emojis])
    held_out = torch.tensor([emoji.held_out for emoji in emojis])
    known = [emoji for emoji in emojis if not emoji.held_out]
    others = [emoji for emoji in emojis if emoji.held_out]
    seen, unseen = pictures[~held_out], pictures[held_out]

    autoencoder = train_autoencoder.train(seen, flippable[~held_out], autoencoder_steps, folder, device)
    tokenizer = models.tokenizer((words(emoji) for emoji in known), folder / "tokenizer")
    latents = train_denoiser.encode_views(autoencoder, seen, flippable[~held_out], folder, device)
    denoiser = train_denoiser.train(
        train_denoiser.new(tokenizer), known, latents, tokenizer, steps, folder, device, compiled=compiled
    )
    classifier = train_measures.classifier(
        seen, known, flippable[~held_out], classifier_steps, folder, device
    )
    contrastive = train_measures.contrastive(
        seen, known, flippable[~held_out], tokenizer, contrastive_steps, folder, device
    )

    measures = {
        "autoencoder_psnr_db": both(train_autoencoder.reconstruction_psnr, autoencoder, seen, unseen, device),
        "classifier_accuracy": {
            "seen": train_measures.accuracy(classifier, seen, known, device),
            "held_out": train_measures.accuracy(classifier, unseen, others, device),
        },
        "retrieval_accuracy_of_16": {
            "seen": train_measures.retrieval(contrastive, seen, known, tokenizer, device),
            "held_out": train_measures.retrieval(contrastive, unseen, others, tokenizer, device),
        },
        "denoiser_steps": denoiser.steps_trained,
    }
    made = export.pipeline(autoencoder, denoiser, tokenizer)
    sheet.draw(made, output / "contact-sheet.png")
    export.save(made, output)
    save_judge(classifier, contrastive, seen, tokenizer, measures, output / "judge", folder / "tokenizer")
    asked = {
        "prompts.txt": data.prompts(known, PROMPTS),
        "prompts-held-out.txt": data.prompts(others, PROMPTS),
    }
    for name, lines in asked.items():
        (output / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        measures[name] = judge_pictures(output, output / name)
    curve.draw(folder, output / "curve.png")
    card.write(measures, made, output)
    (output / "measures.json").write_text(json.dumps(measures, indent=1) + "\n")
    print(json.dumps(measures, indent=1))


def fastest(threads: int) -> torch.device:
    """A GPU where there is one; else the processor, with so many threads if not all."""
    if threads:
        torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def judge_pictures(pipeline: Path, prompts: Path) -> dict[str, Any]:
    """What the judge says of pictures of the first prompts, each drawn by diffusers from its number as the seed."""
    asked = read_prompts(prompts)[:JUDGED]
    artist = PipelineArtist(pipeline)
    drawn = [
        artist.draw(prompt.text, seed, STEPS, GUIDANCE).picture
        for seed, prompt in enumerate(track(asked, "pictures"))
    ]
    return plain(judged(Judge(pipeline / "judge"), np.stack(drawn), asked))


def words(emoji: data.Emoji) -> str:
    """What the tokenizer learns from."""
    return f"{emoji.caption()} {' '.join(emoji.keywords)}"


def both(measure, model, seen: Tensor, unseen: Tensor, device: torch.device) -> dict[str, float]:
    return {"seen": measure(model, seen, device), "held_out": measure(model, unseen, device)}


def save_judge(
    classifier: train_measures.Classifier,
    contrastive: train_measures.Contrastive,
    pictures: Tensor,
    tokenizer,
    measures: dict,
    folder: Path,
    vocabulary: Path,
) -> None:
    """The networks that ``fick evaluate`` asks, as it reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    image, ids = torch.zeros(2, 3, data.SIZE, data.SIZE), torch.zeros(2, models.MAX_TOKENS, dtype=torch.int64)
    # Text of nothing but padding has no mean: the example is a token and its end.
    ids[:] = tokenizer.bos_token_id
    train_measures.export(classifier, {"image": image}, ["features", "logits"], folder / "classifier.onnx")
    train_measures.export(contrastive.image, {"image": image}, ["vector"], folder / "image.onnx")
    train_measures.export(contrastive.text, {"input_ids": ids}, ["vector"], folder / "text.onnx")
    with torch.no_grad():
        features = torch.cat([classifier(part)[0] for part in pictures.split(256)])
    save_file({"features": features.half().contiguous()}, folder / "real.safetensors")
    merges = (vocabulary / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in merges), encoding="utf-8")
    (folder / "vocab.json").write_bytes((vocabulary / "vocab.json").read_bytes())
    facts = {
        "categories": list(data.CATEGORIES.values()),
        "tokenizer": {
            "tokens": models.MAX_TOKENS,
            "start": tokenizer.bos_token_id,
            "end": tokenizer.eos_token_id,
            "padding": tokenizer.pad_token_id,
        },
        "measures": {name: measures[name] for name in ("classifier_accuracy", "retrieval_accuracy_of_16")},
    }
    (folder / "judge.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    typer.run(main)
