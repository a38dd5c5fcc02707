"""Programs in small floats, as the pass quantise writes them, through the whole compiler against the referee."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import fick
from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.ir.canonical import canonicalise
from fick.ir.formats import FLOATS, FloatFormat
from fick.ir.groups import groups
from fick.ir.interpreter import Interpreter
from fick.ir.making import Maker
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.floats import rounded
from fick.runtime.loader import check_bundle
from fick.targets import profile

from ..emulated import CORES
from .test_bfloat16 import imported
from .test_int4 import Feeds, compiled, repacked_agrees, run
from .test_int8 import Calibrated, bundle


def narrow(feeds: Feeds, **settings: object) -> Calibrated:
    config = QuantiseConfig(**{"least_depth": 1, **settings})  # type: ignore[arg-type]
    return Calibrated(passes=(Quantise(config),), calls=(feeds,))


CASES = [
    *(("a transformer", {"weights": one, "activations": "float32"}, "host") for one in ("fp8", "fp4")),
    *(("a resnet", {"weights": one, "activations": one, "clip_weights": True}, "host") for one in ("fp8", "fp4")),
    ("down, up and beside", {"weights": "e5m2", "activations": "e3m4", "estimator": "mse"}, "host"),
    ("a transformer", {"weights": "int4", "activations": "float32", "block": 16}, "host"),
    ("a transformer", {"weights": "int2", "activations": "float32", "clip_weights": True}, "host"),
    ("a resnet", {"weights": "int2", "activations": "int8", "clip_weights": True}, "host"),
    *(("a transformer", {"weights": "int8", "activations": one, "attention": True}, "host") for one in ("int8", "e4m3")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "target"),
    CASES,
    ids=[f"{name} {'/'.join(map(str, one.values()))}" for name, one, _ in CASES],
)
def test_the_compiled_program_computes_what_the_referee_computes(
    name: str, settings: dict[str, object], target: str, tmp_path: Path
) -> None:
    exact = Interpreter(fused(imported(name)[0]))(imported(name)[1])["y"]
    given, feeds = imported(name)
    recipe = narrow(feeds, **settings)
    wanted = Interpreter(fused(given, recipe=recipe))(feeds)["y"]
    path = bundle(imported(name)[0], feeds, profile.load(target), tmp_path, recipe=recipe)
    got = run(path, target, feeds)["y"]
    if settings["activations"] == "float32":
        # Both round sums of up to 1000 products of numbers around one, in another order.
        assert np.abs(got - wanted).max() < 1e-4 * np.std(exact)
    else:
        # Sums in another order fall on the other side of a rounding now and then.
        assert np.std(got - wanted) < 0.07 * np.std(wanted - exact)
    # Four numbers are a third of a deviation off of what is normal (Max, 1960), layer by layer.
    most = 1.0 if settings["weights"] == "int2" else 0.5
    assert 1e-3 < np.std(wanted - exact) / np.std(exact) < most


@pytest.mark.parametrize("activations", ["float32", "fp8"])
def test_values_between_may_be_stored_in_bfloat16(activations: str, tmp_path: Path) -> None:
    exact = Interpreter(fused(imported("a transformer")[0]))(imported("a transformer")[1])["y"]
    given, feeds = imported("a transformer")
    recipe = narrow(feeds, weights="fp8", activations=activations)
    wanted = Interpreter(fused(given, recipe=recipe, precision="bfloat16"))(feeds)["y"]
    target = profile.load("host")
    path = bundle(imported("a transformer")[0], feeds, target, tmp_path, recipe=recipe, precision="bfloat16")
    with fick.load(path) as loaded:
        got = loaded.run(**feeds)["y"]
    # Sums in another order fall on the other side of a rounding now and then, by one unit of it.
    assert np.std(got - wanted) < 0.02 * np.std(exact)
    assert 1e-3 < np.std(wanted - exact) / np.std(exact) < 0.1


EVERY = [*FLOATS.values(), FloatFormat(2, 1, 4)]


@pytest.mark.parametrize("target", [*(one.name for one in profile.fitting()), *CORES])
def test_rounding_is_exact_on_every_target(target: str, tmp_path: Path) -> None:
    """To each format in its own kernel: of its numbers, what lies between them and next to that, to the last bit."""
    numbers = []
    for format in EVERY:
        own = np.unique(format.values)
        ties = (own[1:] + own[:-1]) / 2
        sides = [np.nextafter(ties, np.float32(end)) for end in (-np.inf, np.inf)]
        numbers.append(
            np.resize(np.concatenate([own, ties, *sides, 1.7 * own]), (2, 8, 8, 16)).astype(np.float32)
        )
    shape = "float[2,8,8,16]"
    graph = ir.from_onnx_text(
        f'<ir_version: 11, opset_import: ["" : 24]> g ({", ".join(f"{shape} x{i}" for i in range(len(EVERY)))}) '
        f"=> ({', '.join(f'{shape} y{i}' for i in range(len(EVERY)))}) "
        f"{{ {' '.join(f'y{i} = Identity(x{i})' for i in range(len(EVERY)))} }}"
    )
    for node, given, format in zip(list(graph.graph), graph.graph.inputs, EVERY, strict=True):
        maker = Maker(node, "rounded")
        maker.replace(rounded(maker, given, format))
    feeds = {f"x{index}": one for index, one in enumerate(numbers)}
    given = Imported(canonicalise(graph), "graph", "onnx", dict.fromkeys(feeds, "sample"), frozenset())
    program = fused(given)
    assert len(groups(program.variants["full"])) == len(EVERY)
    got = run(compiled(given, target, tmp_path), target, feeds)
    for index, format in enumerate(EVERY):
        np.testing.assert_array_equal(got[f"y{index}"], format.rounded(numbers[index]))


def test_new_weights_bring_their_own_numbers(tmp_path: Path) -> None:
    feeds = imported("a transformer")[1]
    repacked_agrees(narrow(feeds, weights="fp4", activations="float32", clip_weights=True), tmp_path)


def test_weights_take_the_bytes_of_their_codes(tmp_path: Path) -> None:
    sizes = {}
    for weights in ("float32", "int8", "fp8", "int4", "fp4"):
        given, feeds = imported("a transformer")
        recipe = narrow(feeds, weights=weights, activations="float32")
        target = profile.load("host").model_copy(update={"enlarge_weights": False})
        path = bundle(given, feeds, target, tmp_path, recipe=recipe)
        sizes[weights] = check_bundle(path).manifest["memory"]["weights_bytes"]
    assert sizes["fp8"] == sizes["int8"] < 0.35 * sizes["float32"]
    assert sizes["fp4"] == sizes["int4"] < 0.65 * sizes["int8"]
