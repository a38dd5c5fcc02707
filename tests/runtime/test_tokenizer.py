"""Our reading of CLIP's tokenizer against the one that transformers has."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from fick.runtime import FickError
from fick.runtime.tokenizer import BYTE_LETTERS, Tokenizer

MERGES = [
    ("c", "a"), ("ca", "t</w>"), ("h", "e"), ("a", "r"), ("he", "ar"), ("hear", "t</w>"), ("l", "l"),
    ("l", "l</w>"), ("'", "s</w>"), ("a", "a"), ("aa", "a</w>"), ("t", "h"), ("th", "e</w>"), ("Ã", "¼</w>"),
]  # fmt: skip
START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = sorted(BYTE_LETTERS)
    pieces = [*letters, *(f"{one}</w>" for one in letters), *(a + b for a, b in MERGES), START, END]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = "".join(f"{a} {b}\n" for a, b in MERGES)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges)
    theirs = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), bos_token=START, eos_token=END,
        pad_token=END, unk_token=END, model_max_length=24,
    )  # fmt: skip
    facts = {"tokens": 24, "start": vocabulary[START], "end": vocabulary[END], "padding": vocabulary[END]}
    return Tokenizer(json.dumps(vocabulary).encode(), merges.encode(), facts), theirs


def ids(tokenizer, text):
    return tokenizer(text, padding="max_length", max_length=24, truncation=True).input_ids


PIECES = st.sampled_from(
    [
        "cat",
        "heart",
        "the",
        "'s",
        "'ll",
        "'",
        "12",
        "½",
        "Ⅷ",
        "über",
        "é",
        "e\u0301",
        "!?",
        " ",
        "\t",
        "\u00a0",
        "猫",
        "😀",
        "A",
        "aaa",
        "_",
        "-",
    ]
)


KNOWN = st.characters(exclude_categories=("Cs", "Cn"))
"""A character that this Python's Unicode does not know yet may be a letter to another's."""


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(KNOWN, max_size=12), st.lists(PIECES, max_size=12).map("".join)))
def test_every_text_becomes_the_same_tokens(both, text):
    ours, theirs = both
    if START in text.lower() or END in text.lower():
        return
    assert ours.encode(text).ids[0].tolist() == ids(theirs, text)


def test_what_does_not_fit_is_named(both):
    ours, theirs = both
    long = " ".join(["cat"] * 21 + ["heart", "the", "End"])
    tokens = ours.encode(long)
    assert tokens.dropped == "the End" and tokens.ids[0].tolist() == ids(theirs, long)
    assert ours.encode("cat heart").dropped == ""


def test_damage_is_one_sentence():
    for vocabulary, merges, facts in ((b"{", b"", {}), (b"{}", b"\xff", {}), (b"{}", b"", {"tokens": 3})):
        with pytest.raises(FickError, match="tokenizer is damaged"):
            Tokenizer(vocabulary, merges, facts)
