"""The measures against closed forms, and an evaluation from the command line."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file
from scipy import linalg

import fick
from fick.compiler.quality import alignment, distribution, fidelity, interval
from fick.compiler.quality import evaluate as evaluation
from fick.compiler.quality.drawing import BundleArtist
from fick.compiler.quality.judge import Judge
from fick.ir.errors import UserError
from tests.compiler import pipelines

RNG = np.random.default_rng(0)


class TestFidelity:
    def test_psnr_of_a_known_error(self):
        picture = np.full((8, 8, 3), 100, np.uint8)
        assert fidelity.psnr_db(picture, picture) == fidelity.HIGHEST_PSNR_DB
        assert fidelity.psnr_db(picture, picture + 5) == pytest.approx(20 * np.log10(255 / 5))

    @pytest.mark.parametrize(("one", "other"), [(100, 100), (100, 150), (0, 255)])
    def test_ssim_of_flat_pictures_is_its_brightness_term(self, one, other):
        flat = [np.full((16, 16, 3), value, np.uint8) for value in (one, other)]
        constant = (0.01 * 255) ** 2
        wanted = (2 * one * other + constant) / (one**2 + other**2 + constant)
        assert fidelity.ssim(*flat) == pytest.approx(wanted, abs=1e-9)

    def test_latent_error_is_relative_and_by_step(self):
        reference = RNG.standard_normal((3, 4, 5, 5)).astype(np.float32)
        candidate = reference * np.array([1.0, 1.1, 0.5], np.float32)[:, None, None, None]
        np.testing.assert_allclose(fidelity.relative_error(reference, candidate), [0, 0.1, 0.5], atol=1e-6)


class TestDistribution:
    def test_distance_of_a_set_to_itself_and_to_itself_moved(self):
        features = RNG.standard_normal((300, 12))
        one, moved = distribution.Gaussian(features), distribution.Gaussian(features + 0.5)
        assert distribution.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
        assert distribution.frechet_distance(one, moved) == pytest.approx(12 * 0.25)

    @pytest.mark.parametrize("count", [200, 8])
    def test_distance_is_the_formula_with_a_matrix_square_root(self, count):
        one, other = RNG.standard_normal((200, 12)), 2 * RNG.standard_normal((count, 12)) + 0.3
        first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
        root = linalg.sqrtm(first @ second).real
        shift = one.mean(0) - other.mean(0)
        wanted = shift @ shift + np.trace(first + second - 2 * root)
        fitted = distribution.Gaussian(one), distribution.Gaussian(other)
        assert distribution.frechet_distance(*fitted) == pytest.approx(wanted, rel=1e-5)

    def test_precision_and_recall_at_their_ends(self):
        real = RNG.standard_normal((200, 6))
        assert distribution.precision_recall(real, real) == (1.0, 1.0)
        assert distribution.precision_recall(real, real + 100) == (0.0, 0.0)

    def test_few_alike_pictures_are_precise_and_cover_little(self):
        real = RNG.standard_normal((300, 6))
        alike = real[:1] + 1e-3 * RNG.standard_normal((50, 6))
        precision, recall = distribution.precision_recall(real, alike)
        assert precision == 1.0 and recall < 0.05


class TestAlignment:
    def test_category(self):
        logits = np.eye(4, dtype=np.float32)
        assert alignment.category_hits(logits, np.array([0, 1, 2, 0])).tolist() == [1, 1, 1, 0]

    def test_retrieval_of_matching_and_of_random_embeddings(self):
        texts = np.linalg.qr(RNG.standard_normal((64, 64)))[0].astype(np.float32)
        assert alignment.retrieval_hits(texts, texts).mean() == 1
        images = RNG.standard_normal((3000, 16)).astype(np.float32)
        words = RNG.standard_normal((3000, 16)).astype(np.float32)
        # One in sixteen, within four deviations of a share over 3,000 draws.
        share = alignment.retrieval_hits(images, words).mean()
        assert abs(share - 1 / 16) < 4 * (1 / 16 * 15 / 16 / 3000) ** 0.5

    def test_equal_captions_do_not_compete(self):
        texts = np.ones((20, 4), np.float32) / 2
        assert alignment.retrieval_hits(texts, texts).mean() == 1


def test_intervals_are_those_of_a_mean():
    values = RNG.standard_normal(400)
    found = interval.mean(values)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    # 200 resamples place a 2.5 % quantile to about a seventh of the half width.
    assert abs(found.high - found.value - half) < 0.3 * half > abs(found.value - found.low - half)


def make_judge(folder):
    """Three colours as features, brightness against darkness as categories, token counts as texts."""
    folder.mkdir()
    header = '<ir_version: 10, opset_import: ["" : 20]>\n'
    graphs = {
        "classifier": "g (float[b,3,16,16] image) => (float[b,3] features, float[b,2] logits)"
        " <float[3,2] w = {1.0, -1.0, 1.0, -1.0, 1.0, -1.0}> { m = GlobalAveragePool(image) features = Flatten(m) logits = MatMul(features, w) }",
        "image": "g (float[b,3,16,16] image) => (float[b,3] embedding)"
        " { m = GlobalAveragePool(image) f = Flatten(m) embedding = LpNormalization(f) }",
        "text": "g (int64[b,12] input_ids) => (float[b,3] embedding) <int64[3] at = {1, 2, 3}>"
        " { t = Gather <axis = 1> (input_ids, at) f = Cast <to = 1> (t) embedding = LpNormalization(f) }",
    }
    for name, text in graphs.items():
        onnx.save(onnx.parser.parse_model(header + text), folder / f"{name}.onnx")
    save_file({"features": RNG.standard_normal((40, 3)).astype(np.float32)}, folder / "real.safetensors")
    tokenizer = pipelines.tokenizer(folder)
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in merges))
    facts = {
        "tokens": 12, "start": tokenizer.bos_token_id, "end": tokenizer.eos_token_id,
        "padding": tokenizer.pad_token_id,
    }  # fmt: skip
    (folder / "judge.json").write_text(json.dumps({"categories": ["bright", "dark"], "tokenizer": facts}))
    return folder


class TestEvaluation:
    @pytest.fixture(scope="class")
    def home(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("evaluate")
        pipelines.make(folder)
        fick.compile(folder / "tiny-sd", output=folder / "tiny-sd.fick")
        make_judge(folder / "judge")
        (folder / "prompts.txt").write_text("cat\tbright\ndog\tdark\n\ncat dog\n")
        return folder

    def test_the_float_bundle_is_the_pipeline(self, home, tmp_path):
        command = [
            sys.executable, "-m", "fick", "evaluate", home / "tiny-sd.fick", "--reference", home / "tiny-sd",
            "--prompts", home / "prompts.txt", "--judge", home / "judge", "--steps", "3", "--seeds", "2",
            "-o", tmp_path / "out", "--json", tmp_path / "out" / "facts.json",
        ]  # fmt: skip
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200)
        assert done.returncode == 0 and done.stderr == ""
        facts = json.loads((tmp_path / "out" / "facts.json").read_text())
        assert (facts["prompts"], facts["seeds"], len(facts["fidelity"]["latent_error_by_step"])) == (3, 2, 3)
        assert facts["fidelity"]["psnr_db"]["low"] > 60 and facts["fidelity"]["ssim"]["value"] > 0.999
        assert facts["fidelity"]["latent_error"]["value"] < 1e-4
        ours, theirs = (facts["judged"][name] for name in ("candidate", "reference"))
        assert ours["category_accuracy"] == theirs["category_accuracy"]
        assert ours["frechet_distance"]["value"] == pytest.approx(
            theirs["frechet_distance"]["value"], rel=0.02
        )
        cost = facts["cost"]["candidate"]
        assert (
            cost["peak_bytes"]
            > cost["weight_bytes"]
            == pytest.approx(facts["cost"]["reference"]["weight_bytes"], rel=0.1)
        )
        assert cost["macs_per_image"] > 3 * cost["macs_per_step"] > 0
        assert (tmp_path / "out" / "sheet.png").is_file()

    def test_a_second_evaluation_draws_nothing_again(self, home, tmp_path, monkeypatch):
        drawn = []
        original = BundleArtist.draw

        def counted(self, *arguments):
            drawn.append(arguments)
            if len(drawn) == 3:
                raise KeyboardInterrupt
            return original(self, *arguments)

        monkeypatch.setattr(BundleArtist, "draw", counted)
        prompts = evaluation.read_prompts(home / "prompts.txt")
        bundle = home / "tiny-sd.fick"
        options = {"steps": 2, "seeds": 1, "guidance_scale": 2.0, "folder": tmp_path}
        with pytest.raises(KeyboardInterrupt):
            evaluation.evaluate(bundle, bundle, prompts, **options)
        result = evaluation.evaluate(bundle, bundle, prompts, **options)
        # Two were kept; the third is drawn, and the candidate is the same bundle.
        assert len(drawn) == 4 and result["fidelity"]["psnr_db"]["value"] == 100

    def test_a_reference_may_take_more_steps(self, home, tmp_path):
        bundle, prompts = home / "tiny-sd.fick", evaluation.read_prompts(home / "prompts.txt")[:1]
        options = {"seeds": 1, "guidance_scale": 2.0, "folder": tmp_path}
        result = evaluation.evaluate(bundle, bundle, prompts, steps=2, reference_steps=4, **options)
        near = result["fidelity"]
        assert near["psnr_db"]["value"] < 100 and near["latent_error"]["value"] > 0
        assert near["latent_error_by_step"] == [near["latent_error"]["value"]]

    def test_measures_of_the_user_s_own_networks_stand_beside_the_others(self, home, tmp_path):
        class Brightness:
            def of(self, pictures, prompts):
                assert list(prompts) == ["cat", "dog", "cat dog"]
                return {"fid": float(pictures.mean())}

        bundle = home / "tiny-sd.fick"
        result = evaluation.evaluate(
            bundle, bundle, evaluation.read_prompts(home / "prompts.txt"), steps=2, seeds=1, guidance_scale=2.0,
            folder=tmp_path, standard=Brightness(),
        )  # fmt: skip
        assert result["standard"]["candidate"] == result["standard"]["reference"] != {}

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"--prompts": "none.txt"}, "cannot be read as prompts"),
            ({"--prompts": "empty.txt"}, "holds no prompts"),
            ({"--reference": "none"}, "no such bundle or pipeline"),
            ({"--judge": "."}, "holds no judge of pictures"),
            ({"--steps": "0"}, "--steps"),
            ({"--inception": "none.pt"}, "give --inception and --real together"),
        ],
    )
    def test_mistakes(self, home, tmp_path, change, said):
        (tmp_path / "empty.txt").write_text("\n\n")
        options = {"--reference": home / "tiny-sd.fick", "--prompts": home / "prompts.txt", **change}
        flat = [str(part) for pair in options.items() for part in pair]
        command = [sys.executable, "-m", "fick", "evaluate", str(home / "tiny-sd.fick"), *flat]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_judge_that_lacks_a_part(tmp_path):
    folder = make_judge(tmp_path / "judge")
    assert Judge(folder).categories == ["bright", "dark"]
    for part in ("classifier.onnx", "real.safetensors"):
        (folder / part).rename(folder / "elsewhere")
        with pytest.raises(UserError, match=f"holds no judge of pictures .*{part}"):
            Judge(folder)
        (folder / "elsewhere").rename(folder / part)
