"""Programs: what links them, what is wrong with them, and that saving loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from fick.ir.errors import UserError
from fick.ir.program import HistoryEntry, Link, Program
from fick.ir.rates import Rate
from fick.ir.referee import run
from fick.ir.saved import INLINE_BYTES, SUMMARY, WEIGHTS, load, pack, save, unpack

RNG = np.random.default_rng(3)
LARGE = ir.tensor(RNG.standard_normal((24, 24)).astype(np.float32), name="blocks.0.weight")
SMALL = ir.tensor(RNG.standard_normal(24).astype(np.float32), name="blocks.0.bias")


def variant(signature: str, body: str, **weights: ir.TensorProtocol) -> ir.Model:
    """A model from ONNX text; inputs that ``weights`` names become initializers, called as their tensors."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 23]> g {signature} {{ {body} }}')
    for value in list(model.graph.inputs):
        if value.name in weights:
            model.graph.inputs.remove(value)
            value.const_value = weights[value.name]
            value.name = value.const_value.name
            model.graph.register_initializer(value)
    return model


def program() -> Program:
    context = variant(
        "(float[1,24] prompt, float[24,24] w) => (float[1,24] k)", "k = MatMul(prompt, w)", w=LARGE
    )
    full = variant(
        '(float[1,24] x, float[1,24] k, float[24,24] w, float[24] b) => (float[1,24] out, float[1,24] "deep.next")',
        'h = MatMul(x, w)  a = Add(h, b)  "deep.next" = Mul(a, k)  out = Sub(x, "deep.next")',
        w=LARGE,
        b=SMALL,
    )
    cached = variant(
        "(float[1,24] x, float[1,24] deep, float[24] b) => (float[1,24] out)",
        "s = Add(x, b)  out = Sub(s, deep)",
        b=SMALL,
    )
    return Program(
        name="small",
        variants={"prompt": context, "full": full, "cached": cached},
        rates={"x": Rate.SAMPLE, "prompt": Rate.PROMPT},
        weights=frozenset({"blocks.0.weight", "blocks.0.bias"}),
        schedule={3: ["full", "cached", "full"]},
        state={"deep": (1, 24)},
        history=[HistoryEntry("hoist", {}, {"nodes": {"full": 4}}, 0.25)],
    )


def test_links_join_variants_by_name() -> None:
    assert program().links() == [Link("k", "prompt", "full")]


def test_alternatives_and_what_they_leave() -> None:
    whole = program()
    assert whole.alternatives == ["full", "cached"]
    assert (whole.state_read("cached"), whole.state_read("full")) == (["deep"], [])
    assert [list(whole.state_left(name)) for name in whole.alternatives] == [["deep"], []]
    assert [[value.name for value in whole.returned(name)] for name in whole.alternatives] == [
        ["out"],
        ["out"],
    ]


EARLY = ("(float[1,24] x, float[1,24] deep) => (float[1,24] other)", "other = Add(x, deep)")
NARROW = ("(float[1,24] x, float[1,8] deep) => (float[1,24] out)", "out = Concat<axis=1>(deep, deep, deep)")
EAGER = (
    '(float[1,24] deep) => (float[1,24] out, float[1,24] "deep.next")',
    'out = Exp(deep) "deep.next" = Exp(out)',
)
PEEKING = ("(float[1,24] a) => (float[1,24] out)", "out = Exp(a)")


def changed(given: Program, **texts: tuple[str, str]) -> dict[str, ir.Model]:
    return {**given.variants, **{name: variant(*text) for name, text in texts.items()}}


def without(variants: dict[str, ir.Model], name: str) -> dict[str, ir.Model]:
    return {label: model for label, model in variants.items() if label != name}


def test_a_valid_program_passes() -> None:
    program().validate()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: {"variants": without(p.variants, "prompt")}, "variant full reads k, which nothing gives"),
        (lambda p: {"rates": {"x": Rate.SAMPLE}}, "variant prompt reads prompt, which nothing gives"),
        (lambda p: {"rates": {**p.rates, "k": Rate.STEP}}, "value k is given by the caller and by prompt"),
        (lambda p: {"schedule": {}}, "variant cached is run by no schedule"),
        (lambda p: {"schedule": {2: ["cached", "full"]}}, "2 steps does not begin with full"),
        (lambda p: {"schedule": {2: ["full", "prompt"]}}, "runs prompt, which is no variant of a step"),
        (lambda p: {"state": {}}, "variant cached reads deep, which nothing gives"),
        (
            lambda p: {"state": {"deep": (2, 12)}},
            r"full has FLOAT\[1, 24\] as state deep in place of FLOAT\[2, 12\]",
        ),
        (lambda p: {"state": {**p.state, "far": (1,)}}, "variant full does not leave far.next"),
        (
            lambda p: {"variants": changed(p, cached=EARLY)},
            "variant cached gives other FLOAT.* in place of out FLOAT",
        ),
        (
            lambda p: {"variants": changed(p, cached=NARROW)},
            r"cached has FLOAT\[1, 8\] as state deep in place of",
        ),
        (
            lambda p: {"variants": changed(p, full=EAGER)},
            "variant full reads state deep, which nothing has left",
        ),
        (lambda p: {"variants": changed(p, cached=PEEKING)}, "variant cached reads a, which nothing gives"),
        (lambda p: {"schedule": {2: ["full"], 3: ["full", "cached", "full"]}}, "2 steps names 1 variants"),
        (lambda p: {"schedule": {2: ["full", "cached"], 1: ["none"]}}, "runs none, which is no variant"),
        (
            lambda p: {
                "variants": {
                    **p.variants,
                    "prompt": variant(
                        "(float[1,24] prompt, float[24,24] w) => (float[1,24] k)",
                        "k = MatMul(prompt, w)",
                        w=ir.tensor(np.zeros((24, 24), np.float32), name="blocks.0.weight"),
                    ),
                }
            },
            "has another weight blocks.0.weight",
        ),
    ],
)
def test_what_is_wrong_is_named(change, sentence: str) -> None:
    good = program()
    with pytest.raises(UserError, match=sentence):
        replace(good, **change(good)).validate()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_saving_loses_nothing(tmp_path: Path) -> None:
    before = program()
    save(before, tmp_path / "kept")
    after = load(tmp_path / "kept")
    for label in ("name", "rates", "weights", "schedule", "state", "history"):
        assert getattr(after, label) == getattr(before, label)
    assert list(after.variants) == list(before.variants)
    feeds = {name: RNG.standard_normal((1, 24)).astype(np.float32) for name in ("prompt", "x", "k", "deep")}
    for name, model in before.variants.items():
        given = {str(value.name): feeds[str(value.name)] for value in model.graph.inputs}
        for label, result in run(model, given).items():
            np.testing.assert_array_equal(run(after.variants[name], given)[label], result)
    # The weight that two variants share is stored once; the small one stays in the graphs.
    assert SMALL.nbytes < INLINE_BYTES <= LARGE.nbytes
    assert (tmp_path / "kept" / WEIGHTS).stat().st_size == LARGE.nbytes


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    original = program()
    save(original, tmp_path / "first")
    save(original, tmp_path / "second")
    save(load(tmp_path / "first"), tmp_path / "third")
    save(load(tmp_path / "second"), tmp_path / "second")
    first = contents(tmp_path / "first")
    assert contents(tmp_path / "second") == first
    assert contents(tmp_path / "third") == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first", "second", "third"]


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("draft")
    with pytest.raises(UserError, match="not a saved program"):
        save(program(), tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"draft"}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def renumber(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 9}))


@pytest.mark.parametrize(
    ("name", "harm", "sentence"),
    [
        (SUMMARY, Path.unlink, "it has no program.json"),
        (SUMMARY, cut, "damaged program"),
        (SUMMARY, renumber, "has layout 9"),
        (WEIGHTS, cut, "lost bytes"),
        ("full.onnx", Path.unlink, "it has no full.onnx"),
        ("full.onnx", cut, "damaged program"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str, harm, sentence: str) -> None:
    save(program(), tmp_path / "kept")
    harm(tmp_path / "kept" / name)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / "kept")


class TestPacked:
    """Without the checkpoint: names, shapes and types of everything, and the numbers of the architecture."""

    def test_all_but_large_weights_comes_back(self) -> None:
        whole = program()
        back = unpack(pack(whole))
        assert (back.name, back.rates, back.weights) == (whole.name, whole.rates, whole.weights)
        assert list(back.variants) == list(whole.variants)
        for name, model in whole.variants.items():
            twin = back.variants[name]
            assert [(node.op_type, node.name) for node in twin.graph] == [
                (node.op_type, node.name) for node in model.graph
            ]
            for label, value in model.graph.initializers.items():
                tensor, kept = value.const_value, twin.graph.initializers[label].const_value
                assert tensor is not None and kept is not None
                assert (kept.shape, kept.dtype, kept.nbytes) == (tensor.shape, tensor.dtype, tensor.nbytes)
                if tensor.nbytes < INLINE_BYTES and label not in whole.weights:
                    np.testing.assert_array_equal(kept.numpy(), tensor.numpy())

    def test_the_same_program_is_the_same_bytes_whatever_time_it_took(self) -> None:
        one = program()
        other = replace(one, history=[replace(entry, seconds=entry.seconds + 1) for entry in one.history])
        assert pack(one) == pack(other)

    @pytest.mark.parametrize("damage", [b"", b"no zip", None])
    def test_damage_is_one_sentence(self, damage: bytes | None) -> None:
        data = damage if damage is not None else pack(program())[:-40]
        with pytest.raises(UserError, match="is damaged or of another version"):
            unpack(data)
