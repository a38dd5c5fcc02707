"""From a model to pictures, on the trained terrain UNet, and the mistakes that a user can make on the way."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import diffusers
import numpy as np
import onnx
import pytest

import fick
from examples.terrain_model import SAMPLER, fetch
from fick.compiler.bundle.file import Entry, write_bundle
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import CONFIGS
from fick.ir import referee
from fick.ir.errors import UserError
from fick.runtime.loader import check_bundle


def fick_command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "fick", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        **options,
    )


@pytest.fixture(scope="module")
def terrain(tmp_path_factory):
    path = tmp_path_factory.mktemp("terrain") / "terrain.fick"
    return fick.compile(str(fetch()), output=path, sampler=SAMPLER)


@pytest.mark.parametrize("sigma", [80.0, 24.0, 6.0, 1.2])
def test_terrain_agrees_with_onnx_runtime_on_the_original(terrain, sigma):
    """To 1e-4 of the output, through 600 float32 kernels: measured 1e-5."""
    rng = np.random.default_rng(int(sigma))
    feeds = {
        "noisy": (sigma * rng.standard_normal((1, 1, 128, 128))).astype(np.float32),
        "sigma": np.array([sigma], np.float32),
        "difficulty": np.array([0.3], np.float32),
    }
    wanted = referee.session(fetch()).run(["denoised"], feeds)[0]
    with fick.load(terrain.bundle) as model:
        got = model.run(**feeds)["denoised"]
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_generation_is_reproducible_and_peak_memory_as_promised(terrain):
    with fick.load(terrain.bundle) as model:
        first, again = model.generate(seed=4, difficulty=0.5), model.generate(seed=4, difficulty=0.5)
        other = model.generate(seed=5, difficulty=0.5)
        np.testing.assert_array_equal(first, again)
        assert first.shape == (1, 1, 128, 128) and np.isfinite(first).all()
        assert np.abs(first - other).mean() > 0.05
        used = model.memory
        assert used.weights_bytes + used.arena_bytes + used.state_bytes == terrain.peak_bytes


def many_kernels(path, count):
    """Convolutions one after another, each of other channels and so a kernel of its own."""
    rng = np.random.default_rng(0)
    channels = [4, *range(8, 7 + count), 4]
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal((after, before, 1, 1), np.float32), f"w{k}")
        for k, (before, after) in enumerate(itertools.pairwise(channels))
    ]
    nodes = [onnx.helper.make_node("Conv", [f"x{k}", f"w{k}"], [f"x{k + 1}"]) for k in range(count)]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 8, 8])
        for name in ("x0", f"x{count}")
    ]
    graph = onnx.helper.make_graph(nodes, "many", ends[:1], ends[1:], weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)]), path)


def test_the_same_input_gives_the_same_bytes_compiled_or_kept(terrain, fresh_cache, tmp_path):
    """How much faster the second is: benchmarks/compile_time.py."""
    stages = []
    for name in ("first", "second"):
        stages.append(fick.compile(str(fetch()), output=tmp_path / name, sampler=SAMPLER).seconds)
        assert (tmp_path / name).read_bytes() == terrain.bundle.read_bytes()
    assert list(stages[0]) == ["import", "optimise", "compile kernels", "link", "write"]
    assert list(stages[1]) == ["import", "write"]


class TestKeptCompilations:
    """What was compiled before is taken from the cache only if it is what a fresh compile would give."""

    def compile(self, model, output):
        report = fick.compile(model, output=output)
        return "optimise" not in report.seconds, output.read_bytes()

    def test_changed_weights_are_not_mistaken_for_the_old(self, fresh_cache, tmp_path):
        path, model = tmp_path / "tiny.onnx", tiny_model()
        bundles = []
        for scale in (1, 2):
            weights = scale * np.ones((4, 4, 3, 3), np.float32)
            model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
            onnx.save(model, path)
            bundles += [self.compile(path, tmp_path / "tiny.fick") for _ in range(2)]
        assert [kept for kept, _ in bundles] == [False, True, False, True]
        first, again, other, other_again = (data for _, data in bundles)
        assert first == again and other == other_again and first != other

    def test_external_data_counts_as_contents(self, fresh_cache, tmp_path):
        path = tmp_path / "tiny.onnx"
        onnx.save(tiny_model(), path, save_as_external_data=True, location="weights", size_threshold=0)
        first = self.compile(path, tmp_path / "tiny.fick")
        (tmp_path / "weights").write_bytes(np.ones((4, 4, 3, 3), np.float32).tobytes())
        second = self.compile(path, tmp_path / "tiny.fick")
        assert (first[0], second[0]) == (False, False) and first[1] != second[1]

    def test_a_damaged_compilation_is_done_again(self, fresh_cache, tmp_path):
        onnx.save(tiny_model(), tmp_path / "tiny.onnx")
        _, fresh = self.compile(tmp_path / "tiny.onnx", tmp_path / "tiny.fick")
        (place,) = (fresh_cache / "compilations").glob("*.fick")
        data = bytearray(place.read_bytes())
        data[len(data) // 2] ^= 1
        place.write_bytes(data)
        assert self.compile(tmp_path / "tiny.onnx", tmp_path / "tiny.fick") == (False, fresh)

    @pytest.mark.parametrize("source", ["folder", "config"])
    def test_diffusers_sources(self, fresh_cache, tmp_path, source):
        config = json.loads((CONFIGS / "ddpm-cifar10.json").read_text())
        config.update(
            sample_size=8, block_out_channels=[32, 32], layers_per_block=1, norm_num_groups=8,
            down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        )  # fmt: skip
        (tmp_path / "small.json").write_text(json.dumps(config))
        model = tmp_path / "small.json"
        if source == "folder":
            model = tmp_path / "unet"
            diffusers.UNet2DModel.from_config(config).save_pretrained(model)
        first = self.compile(model, tmp_path / "1.fick")
        second = self.compile(model, tmp_path / "2.fick")
        assert (first[0], second[0]) == (False, True) and first[1] == second[1]


def test_an_unsupported_operator_is_named_with_its_node(tmp_path):
    model = tiny_model("Det")
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(UserError, match=r"Det.*odd_one"):
        fick.compile(tmp_path / "odd.onnx", output=tmp_path / "odd.fick")
    assert not (tmp_path / "odd.fick").exists()


def tiny_model(odd: str | None = None) -> onnx.ModelProto:
    """A convolution over a 4-D sample, and if asked an operator that no target knows."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Conv", ["sample", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])]
    if odd:
        nodes.append(helper.make_node(odd, ["y"], ["d"], name="odd_one"))
        nodes.append(helper.make_node("Unsqueeze", ["d", "axes"], ["e"], name="widen"))
        nodes.append(helper.make_node("Add", ["y", "e"], ["out"], name="sum"))
    else:
        nodes.append(helper.make_node("Relu", ["y"], ["out"], name="relu"))
    rng = np.random.default_rng(0)
    weights = [onnx.numpy_helper.from_array(rng.standard_normal((4, 4, 3, 3)).astype(np.float32), "w")]
    if odd:
        weights.append(onnx.numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("sample", kinds.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("out", kinds.FLOAT, [1, 4, 8, 8])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


class TestCommandLine:
    def test_compile_bench_inspect(self, tmp_path):
        onnx.save(tiny_model(), tmp_path / "tiny.onnx")
        bundle = tmp_path / "tiny.fick"
        assert fick_command("compile", tmp_path / "tiny.onnx", "-o", bundle).returncode == 0
        done = fick_command(
            "bench",
            bundle,
            "--model",
            tmp_path / "tiny.onnx",
            "--against",
            "onnxruntime",
            "--rounds",
            2,
            "--json",
            "-",
        )
        facts = json.loads(done.stdout)
        assert facts["step_s"]["median"] > 0 and facts["peak_bytes"] > facts["weight_bytes"] > 0
        assert facts["peers"]["onnxruntime"]["max_abs_diff"] < 1e-4
        inspected = fick_command("inspect", bundle, "--json", "-")
        assert json.loads(inspected.stdout)["target"]["arch"] == os.uname().machine

    def test_every_verb_has_an_example(self):
        for verb in ("compile", "run", "bench", "evaluate", "inspect", "targets", "repack"):
            shown = " ".join(fick_command(verb, "--help").stdout.split())
            assert f"Example: fick {verb}" in shown

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["compile", "missing.onnx"], "known"),
            (["compile", "broken.onnx"], "truncated"),
            (["compile", "mlp.onnx"], "not a diffusion UNet"),
            (["compile", "nan.onnx"], "NaN"),
            (["compile", "tiny.onnx", "--target", "vax"], "target 'vax' is not known"),
            (["compile", "tiny.onnx", "--memory-limit", "1KB"], "the limit is"),
            (["compile", "tiny.onnx", "--memory-limit", "lots"], "not a size"),
            (["compile", "tiny.onnx", "--shape", "sample"], "NAME=1,4,64,64"),
            (["compile", "tiny.onnx", "-o", "no/such/place.fick"], "cannot write"),
            (["compile", "tiny.onnx", "--sampler", "magic"], "not known"),
            (["run", "missing.fick", "-o", "x.png"], "no such file"),
            (["run", "tiny.onnx", "-o", "x.png"], "not a fick bundle"),
            (["bench", "missing.fick"], "no such file"),
            (["inspect", "missing.fick"], "no such file"),
        ],
    )
    def test_a_mistake_is_one_sentence_and_exit_code_2(self, arguments, said, tmp_path):
        onnx.save(tiny_model(), tmp_path / "tiny.onnx")
        data = (tmp_path / "tiny.onnx").read_bytes()
        (tmp_path / "broken.onnx").write_bytes(data[: len(data) // 2])
        poisoned = tiny_model()
        weights = np.full((4, 4, 3, 3), np.nan, np.float32)
        poisoned.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
        onnx.save(poisoned, tmp_path / "nan.onnx")
        helper, kinds = onnx.helper, onnx.TensorProto
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "mlp",
            [helper.make_tensor_value_info("x", kinds.FLOAT, [1, 8])],
            [helper.make_tensor_value_info("y", kinds.FLOAT, [1, 8])],
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]), tmp_path / "mlp.onnx"
        )
        before = sorted(path.name for path in tmp_path.iterdir())
        done = fick_command(*arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    @pytest.mark.parametrize("place", ["/proc/nope", "tiny.onnx"])
    def test_a_cache_that_cannot_be_written_is_a_sentence(self, tmp_path, place):
        onnx.save(tiny_model(), tmp_path / "tiny.onnx")
        environment = {**os.environ, "FICK_CACHE": place}
        done = fick_command("compile", "tiny.onnx", cwd=tmp_path, env=environment)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
        assert "FICK_CACHE" in done.stderr

    def test_a_bundle_whose_manifest_lacks_parts_is_a_sentence(self, terrain, tmp_path):
        for change in ({}, [], {"unet": {}}):
            library = check_bundle(terrain.bundle).entries["code/libmodel.so"]
            manifest = {**check_bundle(terrain.bundle).manifest, "components": change}
            write_bundle(tmp_path / "x.fick", [Entry.of("code/libmodel.so", library)], manifest)
            done = fick_command("inspect", tmp_path / "x.fick")
            assert done.returncode == 2 and "lacks what the compiler writes" in done.stderr

    def test_a_sampler_by_name_keeps_the_noise_levels_of_the_bundle(self, terrain, tmp_path):
        arguments = [
            terrain.bundle,
            "-o",
            tmp_path / "x.npy",
            "--prompt-input",
            "difficulty=0.5",
            "--seed",
            "3",
        ]
        pictures = []
        for extra in ([], ["--sampler", "consistency"]):
            assert fick_command("run", *arguments, *extra).returncode == 0
            pictures.append(np.load(tmp_path / "x.npy"))
        np.testing.assert_array_equal(*pictures)

    def test_interrupting_leaves_nothing_and_the_next_run_goes_on(self, tmp_path):
        many_kernels(tmp_path / "many.onnx", 24)
        (cache_folder() / "core").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "core").symlink_to((cache_folder() / "core").absolute())
        environment = {**os.environ, "FICK_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "fick", "compile", "many.onnx", "-o", "t.fick"]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        kernels = tmp_path / "cache" / "kernels"
        deadline = time.monotonic() + 120
        while not list(kernels.glob("*.o")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2 and "interrupted" in said and "Traceback" not in said
        assert not list(tmp_path.glob("*.fick")) and not list(tmp_path.glob(".*.part"))
        first = {path.name: path.stat().st_mtime_ns for path in kernels.glob("*.o")}
        assert 0 < len(first) < 24
        assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode == 0
        again = {path.name: path.stat().st_mtime_ns for path in kernels.glob("*.o")}
        assert len(again) > len(first) and first.items() <= again.items()
