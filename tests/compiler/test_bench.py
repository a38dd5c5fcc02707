"""Measuring: layers joined with their work, the limit of the machine, peers in their own processes. No times."""

import json
import math
import os
import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import typer.main
from diffusers import UNet2DConditionModel
from onnxruntime.quantization.calibrate import create_calibrator
from PIL import Image
from typer.testing import CliRunner

import fick
from fick.compiler.bench import compare, int8_peer, peers
from fick.compiler.bench.alternatives import by_node, described
from fick.compiler.bench.child import Child
from fick.compiler.bench.compare import bench, example_inputs
from fick.compiler.bench.layers import NATIVE, VARIANT, Profiler, by_kind, total
from fick.compiler.bench.limits import Peaks
from fick.compiler.bench.peaks import FORMATS, measure_peaks
from fick.compiler.bench.peers import Task
from fick.compiler.bench.roofline import draw
from fick.compiler.bench.rounds import Timing, measure
from fick.compiler.bundle.file import FORMAT_VERSION, Entry, write_bundle
from fick.compiler.cli import app
from fick.compiler.programs import structure
from fick.hwmodel.extract import extract
from fick.ir.errors import UserError
from fick.runtime.loader import LIBRARY
from fick.runtime.model import CallTime
from fick.targets import profile
from fick.targets.cpu.worker import assembly

from .test_compile import tiny_model

PEAKS = Peaks(2, {"float32": 1e11}, {1 << 10: 1e11, 1 << 20: 1e10})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tiny UNet with attention, as a configuration."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=16,
        attention_head_dim=2, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("source") / "tiny.json"
    unet.to_json_file(path)
    return path


@pytest.fixture(scope="module")
def compiled(source, tmp_path_factory):
    return fick.compile(source, output=tmp_path_factory.mktemp("bundle") / "tiny.fick").bundle


@pytest.fixture(scope="module")
def profiled(compiled):
    """The calls of a run, and the layers that they are joined to."""
    profiler = Profiler(structure(compiled))
    with fick.load(compiled) as model:
        model.run(**example_inputs(model, 0))
        calls = model.profile()
    profiler.record(calls)
    return calls, profiler.layers(PEAKS, 1 << 20)


class TestLayers:
    def test_every_call_belongs_to_one_layer(self, profiled):
        """One round, so that medians are the round itself: the sums agree but for the order of adding."""
        calls, layers = profiled
        whole = sum(call.seconds for call in calls if call.variant == VARIANT)
        assert math.isclose(sum(layer.seconds for layer in layers), whole, rel_tol=1e-9)
        assert {call.kernel.partition("_")[0] for call in calls if call.variant == VARIANT} == {
            kernel for layer in layers for kernel in layer.kernels
        }

    def test_products_are_those_that_the_hardware_model_counts(self, compiled, profiled):
        _, layers = profiled
        workload = extract(structure(compiled), NATIVE)
        assert sum(layer.work.macs for layer in layers) == workload.macs(VARIANT) > 0
        named = {layer.work.name: layer.work for layer in layers}
        # 8 x 8 pixels, 4 channels to 16, 3 x 3 taps; weights and biases; input and output.
        first = named["conv_in"]
        assert first.macs == 64 * 4 * 16 * 9
        assert first.weight_bytes == 4 * (4 * 16 * 9 + 16)
        assert first.activation_bytes == 4 * 64 * (4 + 16)

    def test_scores_between_the_products_of_attention_do_not_count_as_moved(self, profiled):
        _, layers = profiled
        own = next(
            one.work
            for one in layers
            if one.work.name == "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
        )
        assert own.kind == "attention"
        assert own.activation_bytes == 4 * 4 * 64 * 16  # query, key, value and result
        assert own.macs == 2 * 64 * 64 * 16

    def test_bounds_follow_from_the_peaks(self, profiled):
        _, layers = profiled
        for layer in layers:
            work = layer.work
            limits = [
                work.flops / 1e11,
                work.weight_bytes / 1e10,
                work.activation_bytes / PEAKS.read_bytes_per_s(work.activation_bytes),
            ]
            assert layer.bound_s == max(limits) > 0
            assert layer.share > 0 and math.isfinite(layer.share)
        lost = [layer.lost_s for layer in layers]
        assert lost == sorted(lost, reverse=True)

    def test_totals_by_kind_add_up(self, profiled):
        _, layers = profiled
        kinds, whole = by_kind(layers), total(layers)
        assert {"convolution", "attention", "matmul", "normalisation"} <= kinds.keys()
        for key in ("layers", "seconds", "bound_s", "flops"):
            assert math.isclose(sum(one[key] for one in kinds.values()), whole[key], rel_tol=1e-9)

    def test_a_layer_takes_the_median_of_its_rounds_and_the_copies_that_prepare_it(self, compiled):
        profiler = Profiler(structure(compiled))
        node = "node_conv2d"
        for seconds in (3.0, 1.0, 2.0):
            copy, own = (
                CallTime(VARIANT, "copy", "map_0", 0.5),
                CallTime(VARIANT, node, "contraction_0", seconds),
            )
            profiler.record([CallTime("prompt", node, "contraction_0", 9.0), copy, own, copy])
        (layer,) = profiler.layers(PEAKS, 1 << 20)
        assert (layer.work.name, layer.seconds, layer.kernels) == ("conv_in", 3.0, ("map", "contraction"))


def test_rates_between_measured_sizes_are_interpolated_and_beyond_them_kept():
    assert PEAKS.read_bytes_per_s(1) == 1e11 and PEAKS.read_bytes_per_s(1 << 30) == 1e10
    assert math.isclose(PEAKS.read_bytes_per_s(1 << 15), (1e11 + 1e10) / 2)


def test_peaks_of_this_machine_are_measured_by_the_kernels_of_a_bundle():
    """A core that multiplied fewer than 1e8 numbers a second, or read as few bytes, would not run the tests."""
    peaks = measure_peaks(1, sizes=(1 << 18, 1 << 20))
    assert peaks.threads == 1 and list(peaks.bytes_per_s) == [1 << 18, 1 << 20]
    assert all(rate > 1e8 for rate in [*peaks.flops_per_s.values(), *peaks.bytes_per_s.values()])


def test_the_peak_in_float16_is_of_vectors_of_eight():
    target = profile.load("cortex-a76")
    gauge = FORMATS["float16"](target)
    assert gauge.work == 2 * FORMATS["float32"](target).work
    text = assembly(gauge, target.llvm_target())
    assert len(re.findall(r"\tfmla\tv\d+\.8h", text)) >= gauge.chains
    assert FORMATS["float16"](profile.load("cortex-a53")) is None


class TestPeers:
    def test_one_agrees_with_the_bundle(self, compiled, source):
        """Float32 sums in another order: 1e-4 of the output's deviation is ten times what is measured."""
        facts = bench(compiled, model=str(source), peers=["torch-eager"], rounds=2)
        found = facts["peers"]["torch-eager"]
        assert found["relative_diff"] < 1e-4 and found["ratio"] > 0 and found["resident_bytes"] > 1 << 20
        assert found["step_s"]["rounds"] == 2 and facts["step_s"]["rounds"] == 2

    def test_what_cannot_be_read_is_reported_and_the_bundle_measured(self, compiled, tmp_path):
        (tmp_path / "broken.onnx").write_bytes(b"no model")
        facts = bench(compiled, model=str(tmp_path / "broken.onnx"), peers=["onnxruntime"], rounds=1)
        assert "cannot run" in facts["peers"]["onnxruntime"]["failed"]
        assert facts["step_s"]["rounds"] == 1

    def test_one_whose_process_dies_is_reported(self, tmp_path):
        onnx.save(tiny_model(), tmp_path / "tiny.onnx")
        task = Task(str(tmp_path / "tiny.onnx"), {"sample": np.ones((1, 4, 8, 8), np.float32)}, threads=1)
        with Child("onnxruntime", task) as child:
            assert (
                child.output().shape == (1, 4, 8, 8)
                and child.seconds() > 0
                and child.resident_bytes() > 1 << 20
            )
            child._process.kill()
            with pytest.raises(UserError, match="killed by signal 9"):
                child.seconds()

    @pytest.mark.parametrize(
        ("name", "precision", "said"),
        [
            ("tflite", "float32", "not known; the peers are"),
            ("onnxruntime", "bfloat16", "no bfloat16 kernels for CPUs, only float32 and int8; leave"),
        ],
    )
    def test_what_cannot_be_asked_is_one_sentence(self, name, precision, said):
        with pytest.raises(UserError, match=said):
            peers.peer(name, Task("tiny.onnx", {}, precision=precision))

    def test_one_in_integers_computes_nearly_the_same(self, tmp_path):
        onnx.save(tiny_model(), tmp_path / "tiny.onnx")
        feeds = {"sample": np.random.default_rng(0).standard_normal((1, 4, 8, 8), dtype=np.float32)}
        exact, rounded = (
            peers.peer("onnxruntime", Task(str(tmp_path / "tiny.onnx"), feeds, precision=precision))()
            for precision in ("float32", "int8")
        )
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        # Rounding to 255 steps of a range of some six deviations loses about 1 % of them a product; none would lose 0.
        assert 1e-4 < error < 0.05

    def test_ranges_of_its_integers_are_those_that_its_own_calibration_finds(self, tmp_path):
        given = tiny_model()
        onnx.save(given, tmp_path / "tiny.onnx")
        feeds = {"sample": np.random.default_rng(0).standard_normal((1, 4, 8, 8), dtype=np.float32)}
        library = create_calibrator(
            tmp_path / "tiny.onnx", int8_peer.PRODUCTS, os.fspath(tmp_path / "augmented.onnx")
        )
        calls = iter([feeds, None])
        library.collect_data(SimpleNamespace(get_next=lambda: next(calls)))
        wanted = {name: one.range_value for name, one in library.compute_data().items()}
        found = int8_peer.ranges(tmp_path / "tiny.onnx", feeds)
        assert found.keys() >= wanted.keys() and wanted
        for name, ends in wanted.items():
            np.testing.assert_allclose(np.ravel(found[name]), np.ravel(ends), rtol=1e-5, atol=1e-6)

    def test_one_that_is_not_installed_says_how(self, monkeypatch):
        monkeypatch.setitem(
            peers.PEERS,
            "absent",
            peers.Peer(lambda task: lambda: np.zeros(1), "absent_package", "pip", ("float32",)),
        )
        with pytest.raises(UserError, match="not installed; install it with `pip`"):
            peers.peer("absent", Task("tiny.onnx", {}))


def test_an_alternative_is_predicted_by_the_layers_that_full_has_too():
    layers = {
        "full": {"a": [1.0, 3.0, 2.0], "b": [4.0, 4.0, 5.0], "c": [1.0, 1.0, 1.0]},
        "cached": {"a": [2.5, 2.5, 2.5], "copy": [0.5, 0.5, 0.5]},
    }
    timings = {"full": Timing([8.0, 7.0, 9.0]), "cached": Timing([4.0, 4.2, 4.5])}
    found = described(layers, timings)
    # A full call takes 8, its layers 7.
    assert (
        found["full"]["predicted_s"] == 8 and found["full"]["predicted_ratio"] == found["full"]["ratio"] == 1
    )
    assert found["cached"]["predicted_s"] == 3 and found["cached"]["predicted_ratio"] == 3 / 8
    assert found["cached"]["ratio"] == 0.5 and found["cached"]["layers"] == 2
    calls = [
        CallTime("full", "a", "k", 1.0),
        CallTime("full", "a", "l", 2.0),
        CallTime("step", "a", "k", 8.0),
    ]
    assert by_node(calls, "full") == {"a": 3.0}


def test_every_alternative_is_timed_by_its_name(source, tmp_path):
    (tmp_path / "cache.toml").write_text('[[pass]]\nname = "deep-cache"\nsteps = [4]\n')
    bundle = fick.compile(source, output=tmp_path / "cached.fick", recipe=tmp_path / "cache.toml").bundle
    found = bench(bundle, rounds=2, threads=1)["alternatives"]
    assert list(found) == ["full", "cached"] and found["cached"]["layers"] < found["full"]["layers"]
    assert all(one["step_s"]["rounds"] == 2 and one["step_s"]["min"] > 0 for one in found.values())
    result = CliRunner().invoke(app, ["bench", str(bundle), "--rounds", "1"])
    assert result.exit_code == 0 and "by its layers" in result.output and "cached" in result.output


def test_rounds_are_paired_and_outputs_compared():
    order = []

    def system(name, value):
        return lambda: (order.append(name), np.array([0.0, value]))[1]

    timings = measure({"a": system("a", 2.0), "b": system("b", 4.0)}, 3)
    assert order == ["a", "b"] * 4
    assert (timings["b"].max_abs_diff, timings["b"].relative_diff) == (2.0, 1.0)
    assert timings["b"].rms_diff == pytest.approx(2**-0.5)
    ours, theirs = Timing([1.0, 2.0, 6.0]), Timing([2.0, 2.0, 2.0])
    assert ours.ratio_to(theirs) == 1.0
    assert ours.summary() == {
        "median": 2.0,
        "quartile_1": 1.5,
        "quartile_3": 4.0,
        "min": 1.0,
        "max": 6.0,
        "rounds": 3,
    }


class TestCommand:
    def test_layers_as_json_and_picture(self, compiled, tmp_path, monkeypatch):
        monkeypatch.setattr(compare, "_peaks", lambda threads: PEAKS)
        chart, report = tmp_path / "roof.png", tmp_path / "report.json"
        arguments = ["bench", compiled, "--rounds", 2, "--chart", chart, "--json", report]
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        assert "conv_in" in done.stdout and "100 GFLOP/s in float32" in done.stdout
        facts = json.loads(report.read_text())
        assert facts["layers"][0].keys() >= {
            "name", "kind", "shape", "seconds", "macs", "weight_bytes", "activation_bytes", "flops_per_s", "bound_s",
            "bound_by", "share", "lost_s", "kernels",
        }  # fmt: skip
        assert facts["peaks"].keys() == {"threads", "flops_per_s", "read"}
        assert facts["total"]["layers"] == len(facts["layers"])
        assert facts["cores"] and facts["threads"] == len(facts["cores"])
        with Image.open(chart) as picture:
            assert picture.format == "PNG" and picture.width > 1000
            blank = len(picture.convert("RGB").getcolors(1 << 24))
        assert blank > 100
        two = draw({"one": facts, "two": facts})
        assert two.startswith(b"\x89PNG")

    def test_help_names_every_peer(self):
        command = typer.main.get_command(app).commands["bench"]
        (against,) = [one for one in command.params if one.name == "against"]
        assert against.help == f"Peers: {', '.join(peers.PEERS)}."

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"peers": ["tflite"], "model": "tiny.onnx"}, "peer 'tflite' is not known"),
            ({"peers": ["onnxruntime"]}, "give it with --model"),
        ],
    )
    def test_a_mistake_is_one_sentence(self, compiled, options, said):
        with pytest.raises(UserError, match=said):
            bench(compiled, **options)

    def test_layers_need_a_bundle_with_its_program(self, tmp_path):
        bundle = tmp_path / "bare.fick"
        facts = {
            "target": {},
            "format": "fick-bundle",
            "format_version": FORMAT_VERSION,
            "program_id": "0" * 64,
        }
        write_bundle(bundle, [Entry.of(LIBRARY, b"")], facts)
        with pytest.raises(UserError, match="lacks what the compiler writes; compile the model anew"):
            bench(bundle, layers=True)
