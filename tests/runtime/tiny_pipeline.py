"""A pipeline from a prompt to a picture whose kernels are a few lines of C: no compiler, no torch.

text_encoder   encoder_hidden_states[t, w] = 0.01 ids[t] + 0.1 w
unet           prompt  carried_p[b] = mean of encoder_hidden_states[b]
               step    carried_t = cos(timestep / 500)
               full    output = sample * scales + carried_p + 0.1 carried_t, task by task
               rest    the same of output as full left it, in place of sample * scales
               anew    as full
vae_decoder    image[c, y, x] = sin(latent[c, y / 2, x / 2])
vae_encoder    the image's first pixels as they are, with a deviation of 0.1

All but the unet add up a run of weights that are zeros, so that there is something to let go of.
With classes there is no text_encoder, and carried_p[b] = 0.1 class_labels[b].
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from fick.compiler.bundle.file import Entry, weights_entry, write_bundle
from fick.compiler.bundle.link import link, system_of, weights_offsets
from fick.runtime.tokenizer import BYTE_LETTERS
from fick.targets.compiled import Call, Compiled, Kept, Operand, PackedWeight, StateTensor
from fick.targets.packing import Dense
from fick.targets.profile import load

PROGRAM_ID = "cd" * 32
TOKENS, WIDTH, CHANNELS, SIDE = 12, 3, 4, 3
LATENT = CHANNELS * SIDE * SIDE
SOURCE = f"""
#include <math.h>
#include <stdint.h>
typedef struct {{ int32_t type; uint32_t zero; union {{ void *pointer; int64_t whole; }}; }} argument;
typedef struct {{ void *sync; int32_t num_task; }} environment;
typedef int (*lambda)(int, environment *, void *);
__attribute__((weak)) int (*__TVMBackendParallelLaunch)(lambda, void *, int);
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count);
#define KERNEL(name) int32_t __tvm_ffi_##name(void *self, const argument *a, int32_t n, argument *result); \\
  int32_t __tvm_ffi_##name(void *self, const argument *a, int32_t n, argument *result)
#define FLOATS(i) ((float *)a[i].pointer)
enum {{ TOKENS = {TOKENS}, WIDTH = {WIDTH}, CHANNELS = {CHANNELS}, SIDE = {SIDE}, LATENT = {LATENT} }};
static float ballast(const float *weights) {{
  float sum = 0;
  for (int i = 0; i < BALLAST_BYTES / 4; i += 256) sum += weights[i];
  return sum;
}}

KERNEL(encode) {{
  float nothing = ballast(FLOATS(2));
  for (int t = 0; t < TOKENS; t++) {{
    for (int w = 0; w < WIDTH; w++) FLOATS(1)[t * WIDTH + w] = 0.01f * (float)((int64_t *)a[0].pointer)[t] + 0.1f * (float)w + nothing;
  }}
  return 0;
}}
KERNEL(average) {{
  for (int b = 0; b < 2; b++) {{
    float sum = 0;
    for (int i = 0; i < TOKENS * WIDTH; i++) sum += FLOATS(0)[b * TOKENS * WIDTH + i];
    FLOATS(1)[b] = sum / (TOKENS * WIDTH);
  }}
  return 0;
}}
KERNEL(labelled) {{
  for (int b = 0; b < 2; b++) FLOATS(1)[b] = 0.1f * (float)((int64_t *)a[0].pointer)[b];
  return 0;
}}
KERNEL(angle) {{ FLOATS(1)[0] = cosf(FLOATS(0)[0] / 500); return 0; }}
static int scale(int task, environment *e, void *closure) {{
  const argument *a = closure;
  for (int i = task; i < 2 * LATENT; i += e->num_task) FLOATS(2)[i] = FLOATS(0)[i] * FLOATS(1)[i % LATENT];
  return 0;
}}
KERNEL(scaled) {{
  if (FLOATS(1)[0] < 0) {{
    const char *parts[] = {{"the first scale ", "is negative"}};
    TVMFFIErrorSetRaisedFromCStrParts("ValueError", parts, 2);
    return -1;
  }}
  return __TVMBackendParallelLaunch(scale, (void *)a, 0);
}}
KERNEL(shifted) {{
  for (int i = 0; i < 2 * LATENT; i++) FLOATS(3)[i] = FLOATS(0)[i] + FLOATS(1)[i / LATENT] + 0.1f * FLOATS(2)[0];
  return 0;
}}
KERNEL(decode) {{
  float nothing = ballast(FLOATS(2));
  for (int c = 0; c < 3; c++) {{
    for (int i = 0; i < 4 * SIDE * SIDE; i++) {{
      int y = i / (2 * SIDE), x = i % (2 * SIDE);
      FLOATS(1)[c * 4 * SIDE * SIDE + i] = sinf(FLOATS(0)[(c * SIDE + y / 2) * SIDE + x / 2]) + nothing;
    }}
  }}
  return 0;
}}
KERNEL(moments) {{
  for (int i = 0; i < LATENT; i++) FLOATS(1)[i] = FLOATS(0)[i % (12 * SIDE * SIDE)], FLOATS(2)[i] = 0.1f + ballast(FLOATS(3));
  return 0;
}}
"""
KERNELS = ("encode", "average", "labelled", "angle", "scaled", "shifted", "decode", "moments")
SCALES = np.linspace(-0.5, 1, LATENT, dtype=np.float32)[::-1].copy()


@cache
def kernels(folder: Path, target: str, ballast_bytes: int) -> dict[str, bytes]:
    """The first object has all of them."""
    made: dict[str, bytes] = {}
    system = system_of(load(target).triple)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", system, "-O1", "-fPIC", "-c"]
    command.append(f"-DBALLAST_BYTES={ballast_bytes}")
    for name, source in (("all", SOURCE), ("none", "typedef int nothing;")):
        (folder / f"{name}.c").write_text(source)
        subprocess.run([*command, f"{name}.c", "-o", f"{name}.o"], cwd=folder, check=True)
    for name in KERNELS:
        made[name] = (folder / ("none.o" if made else "all.o")).read_bytes()
    return made


def _component(objects: dict[str, bytes], target: str, **facts: object) -> Compiled:
    profile = load(target)
    nothing: dict[str, object] = {
        "arch": profile.arch, "triple": profile.triple, "cpu_features": (), "kernels": objects, "weights": (),
        "weights_bytes": 0, "arena_bytes": 64, "carried": {},
    }  # fmt: skip
    return Compiled(**{**nothing, **facts})  # type: ignore[arg-type]


def components(
    target: str, objects: dict[str, bytes], classes: bool, ballast_bytes: int
) -> dict[str, Compiled]:
    def state(offset: int) -> Operand:
        return Operand("state", offset)

    def tensor(name: str, shape: tuple[int, ...], offset: int, rate: str = "sample", dtype: str = "float32"):
        return StateTensor(name, dtype, shape, offset, rate)  # type: ignore[arg-type]

    latents = (CHANNELS, SIDE, SIDE)
    sample, step, prompt, mean, angle, output = 0, 512, 576, 1024, 1088, 1152
    scaled, kept, ballast = Operand("arena", 0), Operand("kept", 0), Operand("weights", 0)
    shift = (state(mean), state(angle))
    everything = (
        Call("scaled", (state(sample), Operand("weights", 0), scaled), "unet/scaled"),
        Call("shifted", (scaled, *shift, kept), "unet/kept"),
        Call("shifted", (scaled, *shift, state(output)), "unet/shifted"),
    )
    unet = _component(
        objects,
        target,
        variants={
            "prompt": (Call("average", (state(prompt), state(mean)), "prompt/average"),),
            "step": (Call("angle", (state(step), state(angle)), "time/angle"),),
            "full": everything,
            "rest": (Call("shifted", (kept, *shift, state(output)), "unet/shifted"),),
            "anew": everything,
        },
        inputs=(
            tensor("sample", (2, *latents), sample),
            tensor("timestep", (1,), step, "step"),
            tensor("encoder_hidden_states", (2, TOKENS, WIDTH), prompt, "prompt"),
        ),
        outputs=(tensor("noise_pred", (2, *latents), output),),
        weights=(PackedWeight("scales", "scales", Dense(), "float32", (LATENT,), 0),),
        weights_bytes=192,
        arena_bytes=320,
        state_bytes=1472,
        carried={"prompt": (mean, 8), "step": (angle, 4)},
        kept_bytes=320,
        kept=(Kept("before", "float32", (2, *latents), 0, ("rest",), ("full", "anew")),),
    )
    image = (1, 3, 2 * SIDE, 2 * SIDE)
    made = {
        "unet": unet,
        "text_encoder": _component(
            objects,
            target,
            variants={"full": (Call("encode", (state(0), state(128), ballast), "text/encode"),)},
            inputs=(tensor("input_ids", (1, TOKENS), 0, dtype="int64"),),
            outputs=(tensor("encoder_hidden_states", (1, TOKENS, WIDTH), 128),),
            weights_bytes=ballast_bytes,
            state_bytes=320,
        ),
        "vae_decoder": _component(
            objects,
            target,
            variants={"full": (Call("decode", (state(0), state(192), ballast), "vae/decode"),)},
            inputs=(tensor("latent", (1, *latents), 0),),
            outputs=(tensor("image", image, 192),),
            weights_bytes=ballast_bytes,
            state_bytes=640,
        ),
        "vae_encoder": _component(
            objects,
            target,
            variants={"full": (Call("moments", (state(0), state(448), state(640), ballast), "vae/moments"),)},
            inputs=(tensor("image", image, 0),),
            outputs=(tensor("mean", (1, *latents), 448), tensor("deviation", (1, *latents), 640)),
            weights_bytes=ballast_bytes,
            state_bytes=832,
        ),
    }
    if classes:
        labels = tensor("class_labels", (2,), prompt, "prompt", "int64")
        calls = (Call("labelled", (state(prompt), state(mean)), "prompt/labelled"),)
        inputs = (*unet.inputs[:2], labels)
        made["unet"] = replace(unet, inputs=inputs, variants={**unet.variants, "prompt": calls})
        del made["text_encoder"]
    return made


def files() -> tuple[dict[str, bytes], dict[str, int]]:
    letters = sorted(BYTE_LETTERS)
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    pieces = [*letters, *(f"{one}</w>" for one in letters), *(a + b for a, b in merges), "<s>", "</s>"]
    vocabulary = json.dumps({piece: number for number, piece in enumerate(pieces)}, ensure_ascii=False)
    found = {
        "tokenizer/vocab.json": vocabulary.encode(),
        "tokenizer/merges.txt": "".join(f"{a} {b}\n" for a, b in merges).encode(),
    }
    end = len(pieces) - 1
    return found, {"tokens": TOKENS, "start": end - 1, "end": end, "padding": end}


def golden(output: float) -> dict[str, object]:
    """What the encoder's last element is, and ``output``, the network's first."""
    rows = [[2, 2, 0, 1e-5, 1152, output]]
    last = 128 + 4 * (TOKENS * WIDTH - 1)
    return {"components": {"text_encoder": {"full": [[0, 2, 0, 1e-6, last, 0.21]]}, "unet": {"full": rows}}}


def write(path: Path, folder: Path, cache_folder: Path, on: str = "host", **changed: object) -> Path:
    """The bundle; ``changed`` are manifest fields in place of the right ones, ``scales`` and ``golden`` excepted,
    ``names``, of classes by number: then it draws them, and how many zeros are ``ballast_bytes``.
    """
    names, ballast_bytes = changed.pop("names", None), changed.pop("ballast_bytes", 4096)
    assert isinstance(ballast_bytes, int)
    objects = kernels(folder, on, ballast_bytes)
    parts, found = components(on, objects, names is not None, ballast_bytes), files()
    pipeline = {"tokenizer": found[1], "latent_to_rgb": [[0.1, 0.1, 0.1]] * (CHANNELS + 1)}
    if names is not None:
        pipeline["classes"] = {"count": 4, "names": names}
        del pipeline["tokenizer"]
    scales, expected = changed.pop("scales", SCALES), changed.pop("golden", None)
    manifest = {
        "format": "fick-bundle",
        "format_version": 1,
        "name": "tiny",
        "program_id": PROGRAM_ID,
        "target": {"name": on, "arch": parts["unet"].arch, "cpu_features": []},
        "sampler": {
            "kind": "diffusers",
            "config": {"_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "epsilon"},
        },
        "pipeline": pipeline,
        "components": {
            "unet": {
                "schedules": {"4": ["full", "rest", "anew", "rest"]},
                "state": {"before": {"left_by": ["full", "anew"]}},
            }
        },
        **changed,
    }
    library = link(parts, PROGRAM_ID, cache_folder)
    assert weights_offsets(parts)["unet"] == 0
    weights_bytes = sum(one.weights_bytes for one in parts.values())
    entries = [
        weights_entry(parts["unet"].weights, weights_bytes, {"scales": np.asarray(scales)}.__getitem__),
        Entry.of("code/libmodel.so", library),
        *(Entry.of(name, data) for name, data in found[0].items()),
    ]
    if expected is not None:
        entries.append(Entry.of("golden.json", json.dumps(expected).encode()))
    write_bundle(path, entries, manifest)
    return path
