"""The emoji pictures and their captions, from npm: what every part of emoji-sd is trained on."""

import functools
import hashlib
import io
import json
import random
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

VENDORS = {"google": "emoji-datasource-google@16.0.0", "twitter": "emoji-datasource-twitter@16.0.0"}
KEYWORDS = "emojilib@4.0.3"
SIZE = 64

# What a category is called in a caption, in the order of its class number.
CATEGORIES = {
    "Smileys & Emotion": "smiley",
    "People & Body": "person",
    "Animals & Nature": "nature",
    "Food & Drink": "food",
    "Travel & Places": "place",
    "Activities": "activity",
    "Objects": "object",
    "Symbols": "symbol",
    "Flags": "flag",
}
HELD_OUT_SHARE = 0.1

# A mirror image of these would be another emoji, or writing that nobody can read.
_HANDED_CATEGORIES = {"Flags", "Symbols"}
_HANDED_NAME = re.compile(
    r"left|right|east|west|clock|book|calendar|sign|abc|abcd|letter|square|card|chart|bow and arrow", re.I
)


@dataclass(frozen=True)
class Emoji:
    """One concept as one vendor draws it."""

    vendor: str
    concept: str  # the Unicode code points, the same for every vendor
    name: str
    category: str
    keywords: tuple[str, ...]
    held_out: bool

    @property
    def label(self) -> int:
        return list(CATEGORIES).index(self.category)

    @property
    def flippable(self) -> bool:
        return self.category not in _HANDED_CATEGORIES and not _HANDED_NAME.search(self.name)

    def caption(self) -> str:
        """The whole caption, as evaluation prompts have it."""
        return f"{self.vendor} {CATEGORIES[self.category]}, {self.name}"

    def drawn_caption(self, draw: random.Random) -> str:
        """A caption for training: as often as not whole, else parts come and go, so that a prompt need not have
        them all."""
        if draw.random() < 0.4:
            return self.caption()
        start = [self.vendor] if draw.random() < 0.85 else []
        start += [CATEGORIES[self.category]] if draw.random() < 0.6 else []
        parts = [" ".join(start)] if start else []
        # The first keywords are other names of the same emoji; the rest only go with it.
        parts.append(
            self.name if draw.random() < 0.7 or not self.keywords else draw.choice(self.keywords[:2])
        )
        if draw.random() < 0.4:
            parts += draw.sample(self.keywords, min(len(self.keywords), draw.randint(1, 3)))
        return ", ".join(parts)


def load(cache: Path) -> tuple[list[Emoji], np.ndarray]:
    """Every emoji of both vendors without skin tones, and its picture over white: uint8 [n, 64, 64, 3]."""
    keywords = json.loads(_member(_package(KEYWORDS, cache), "dist/emoji-en-US.json"))
    emojis, pictures = [], []
    for vendor, package in VENDORS.items():
        archive = _package(package, cache)
        for entry in json.loads(_member(archive, "emoji.json")):
            if entry["category"] not in CATEGORIES or not entry[f"has_img_{vendor}"]:
                continue
            words = _words_of(entry, keywords)
            held_out = _share(entry["unified"]) < HELD_OUT_SHARE
            emojis.append(Emoji(vendor, entry["unified"], _name(entry), entry["category"], words, held_out))
            pictures.append(_over_white(_member(archive, f"img/{vendor}/64/{entry['image']}")))
    return emojis, np.stack(pictures)


def prompts(emojis: list[Emoji], count: int) -> list[str]:
    """So many captions, drawn without repetition, each with its category behind a tab."""
    drawn = random.Random(0).sample(emojis, min(count, len(emojis)))
    return [f"{emoji.caption()}\t{CATEGORIES[emoji.category]}" for emoji in drawn]


def augment(pictures: torch.Tensor, flippable: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Small shifts and scales, and a mirror where it is safe. `pictures` is [b, 3, 64, 64] in -1..1."""
    count = len(pictures)
    scale = 0.95 + 0.15 * torch.rand(count, generator=draw)
    shift = 0.08 * (2 * torch.rand(count, 2, generator=draw) - 1)
    mirror = torch.where(flippable & (torch.rand(count, generator=draw) < 0.5), -1.0, 1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale * mirror, scale, shift
    grid = torch.nn.functional.affine_grid(affine, list(pictures.shape), align_corners=False)
    # What comes in from outside is zero, which has to mean white.
    return 1 - torch.nn.functional.grid_sample(1 - pictures, grid.to(pictures), align_corners=False)


def _name(entry: dict) -> str:
    name = entry["short_name"] if entry["name"] is None else entry["name"]
    return re.sub(r"\s+", " ", name.lower().replace("-", " ").replace("_", " ")).strip()


def _words_of(entry: dict, keywords: dict[str, list[str]]) -> tuple[str, ...]:
    character = "".join(chr(int(point, 16)) for point in entry["unified"].split("-"))
    listed = keywords.get(character) or keywords.get(character.replace("\ufe0f", "")) or []
    words = [word.replace("_", " ").replace("-", " ").lower() for word in [*entry["short_names"], *listed]]
    return tuple(dict.fromkeys(word for word in words if word.isascii()))


def _share(text: str) -> float:
    """A number in 0..1 that depends on the text alone, so that both vendors hold out the same concepts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _over_white(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png)).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))


def _package(package: str, cache: Path) -> Path:
    name, version = package.rsplit("@", 1)
    archive = cache / f"{name}-{version}.tgz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", package, "--silent"], cwd=cache, check=True, stdout=subprocess.DEVNULL)
    return archive


@functools.cache
def _members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        wanted = re.compile(r"package/(img/\w+/64/.*\.png|emoji\.json|dist/emoji-en-US\.json)$")
        return {
            member.name.removeprefix("package/"): tar.extractfile(member).read()
            for member in tar
            if wanted.match(member.name)
        }


def _member(archive: Path, name: str) -> bytes:
    return _members(archive)[name]
