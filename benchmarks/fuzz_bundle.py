"""Fuzz the bundle reader: mutated bundles through the C core and the Python loader. None may crash.

    python benchmarks/fuzz_bundle.py --count 100000 [--sanitize]

Mutations reach past the checksums: after many of them the CRCs and the SHA-256 are made right again. Every
mutant stands in memory right before a page that cannot be read, so that reading past its end is a crash. With
--sanitize the core is built so that undefined behaviour is a crash too.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import hashlib
import json
import mmap
import random
import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fick.compiler.bundle import link as linking
from fick.runtime import FickError
from fick.runtime import native_api as api
from fick.runtime.loader import LIBRARY, check_bundle
from tests.runtime import tiny

BATCH = 2000
NUMBERS = [
    0,
    1,
    2,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
]
CENTRAL, END, LOCAL = b"PK\1\2", b"PK\5\6", b"PK\3\4"
UNDEFINED_BEHAVIOUR_TRAPS = ("-fsanitize=undefined", "-fsanitize-trap=undefined")


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def replace_manifest(data: bytes, manifest: bytes) -> bytes:
    """Another manifest in the same zip, of any length: it is the last entry before the directory."""
    start, size = tiny.offsets(data)["manifest.json"]
    directory = number(data, data.rindex(END) + 16, 4)
    changed = data[:start] + manifest + data[start + size :]
    end, shift = changed.rindex(END), len(manifest) - size
    record = changed.rindex(CENTRAL, 0, end)
    local = number(changed, record + 42, 4)
    sizes = len(manifest).to_bytes(4, "little") * 2
    changed = put(put(changed, record + 20, sizes), local + 18, sizes)
    return fix_checksums(put(changed, end + 16, (directory + shift).to_bytes(4, "little")))


def fix_checksums(data: bytes) -> bytes:
    """Every entry's CRC-32 as a writer would have it."""
    at = number(data, data.rindex(END) + 16, 4)
    spans = tiny.offsets(data)
    while data[at : at + 4] == CENTRAL:
        size = number(data, at + 28, 2)
        span = spans.get(data[at + 46 : at + 46 + size].decode(errors="replace"))
        if span:
            crc = zlib.crc32(data[span[0] : span[0] + span[1]]).to_bytes(4, "little")
            data = put(put(data, at + 16, crc), number(data, at + 42, 4) + 14, crc)
        at += 46 + size + number(data, at + 30, 2) + number(data, at + 32, 2)
    return data


def fix_digest(data: bytes, entry: str) -> bytes:
    start, size = tiny.offsets(data)[entry]
    manifest = tiny.read_manifest(data)
    manifest["entries"][entry] = {
        "sha256": hashlib.sha256(data[start : start + size]).hexdigest(),
        "bytes": size,
    }
    return fix_checksums(replace_manifest(data, json.dumps(manifest).encode()))


def flip_bits(data: bytes, random: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(data: bytes, random: random.Random) -> bytes:
    keep = random.randrange(len(data))
    return data[:keep] if random.random() < 0.5 else data[keep:]


def splice(data: bytes, random: random.Random) -> bytes:
    source, target = random.randrange(len(data)), random.randrange(len(data))
    return put(data, target, data[source : source + random.randint(1, 200)])


def zip_field(data: bytes, random: random.Random) -> bytes:
    """A field of the directory, of its end, or of an entry's own header."""
    for _ in range(random.randint(1, 3)):
        magic = random.choice([CENTRAL, END, LOCAL])
        at = random.choice([found.start() for found in re.finditer(re.escape(magic), data)] or [0])
        size = random.choice([1, 2, 4])
        value = random.choice([random.choice(NUMBERS), random.randrange(2 * len(data))]) % 2 ** (8 * size)
        data = put(data, at + random.randrange(4, 46), value.to_bytes(size, "little"))
    return data


def zip64(data: bytes, random: random.Random) -> bytes:
    """Its end replaced by a zip64 one with some numbers wrong."""
    end = data.rindex(END)
    offset, size, count = number(data, end + 16, 4), number(data, end + 12, 4), number(data, end + 10, 2)
    fields = [count, count, size, offset]
    where = end
    for _ in range(random.randint(0, 2)):
        fields[random.randrange(4)] = random.choice([*NUMBERS, random.randrange(2 * len(data))])
        where = random.choice([end, *NUMBERS])
    body = b"".join(field.to_bytes(8, "little") for field in fields)
    record = b"PK\6\6" + (44).to_bytes(8, "little") + b"\x2d\0\x2d\0" + b"\0" * 8 + body
    locator = b"PK\6\7" + b"\0" * 4 + where.to_bytes(8, "little") + b"\1\0\0\0"
    return data[:end] + record + locator + put(data[end:], 16, b"\xff" * 4)


def manifest_value(data: bytes, random: random.Random) -> bytes:
    """One value of the manifest replaced, with the sizes and checksums around it made right."""
    manifest = tiny.read_manifest(data)
    deep: object = 0
    for _ in range(random.choice([1, 40, 3000])):
        deep = [deep]
    values = [None, True, -1, 1.5, 10**19, 10**400, "", "\0", '\u20ac\\"', "a" * 300, [], {}, [{}], *NUMBERS]
    node: object = manifest
    while isinstance(node, dict) and node:
        key = random.choice(list(node))
        if random.random() < 0.4 or not isinstance(node[key], dict):
            if random.random() < 0.2:
                del node[key]
            else:
                node[key] = random.choice([*values, deep] if random.random() < 0.1 else values)
            break
        node = node[key]
    try:
        return replace_manifest(data, json.dumps(manifest).encode())
    except RecursionError:
        return replace_manifest(data, b"[" * 100000)


def manifest_text(data: bytes, random: random.Random) -> bytes:
    """Its text broken at random, with the checksum made right."""
    start, size = tiny.offsets(data)["manifest.json"]
    text = random.choice([flip_bits, cut, splice])(data[start : start + size], random)
    return replace_manifest(data, text)


def weights_header(data: bytes, random: random.Random) -> bytes:
    """The weights' length field or header, with the SHA-256 made right."""
    start, size = tiny.offsets(data)["weights.safetensors"]
    if random.random() < 0.5:
        value = random.choice([*NUMBERS, random.randrange(2 * size)])
        return fix_digest(put(data, start, value.to_bytes(8, "little")), "weights.safetensors")
    return fix_digest(put(data, start, flip_bits(data[start : start + size], random)), "weights.safetensors")


MUTATIONS = [flip_bits, cut, splice, zip_field, zip64, manifest_value, manifest_text, weights_header]


class Guarded:
    """Memory that ends right before a page that cannot be touched."""

    def __init__(self, capacity: int) -> None:
        pages = -(-capacity // mmap.PAGESIZE) + 1
        self.memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.end = (pages - 1) * mmap.PAGESIZE
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if protect(self.start + self.end, mmap.PAGESIZE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, data: bytes, alignment: int) -> int:
        """The address of the data: aligned as a mapped file is, or ending at the very last byte."""
        at = (self.end - len(data)) // alignment * alignment
        self.memory[at : at + len(data)] = data
        return self.start + at


def work(bundle: Path, seed: int, count: int) -> collections.Counter[str]:
    """Reads ``count`` mutants; returns how often each kind got each status. A crash ends the process."""
    pristine = bundle.read_bytes()
    core = api.load_library(check_bundle(bundle).entries[LIBRARY])
    guarded = Guarded(4 * len(pristine) + 200000)
    seen: collections.Counter[str] = collections.Counter()
    mutant = bundle.with_name(f"mutant-{seed}.fick")
    random_numbers = random.Random(seed)
    for index in range(count):
        mutate = random_numbers.choice(MUTATIONS)
        data = mutate(pristine, random_numbers)
        while random_numbers.random() < 0.2:
            data = random_numbers.choice([flip_bits, splice])(data, random_numbers) if data else data
        status = core.fick_check(guarded.place(data, random_numbers.choice([1, 64])), len(data))
        if status and not core.fick_last_error():
            raise AssertionError("a status without a sentence")
        seen[f"{mutate.__name__} {status}"] += 1
        if index % 10 == 0:
            open_in_full(core, mutant, data)
    mutant.unlink(missing_ok=True)
    return seen


def open_in_full(core: ctypes.CDLL, mutant: Path, data: bytes) -> None:
    """From a file, as users do: what passes for sound must also run. The code itself is the pristine one."""
    mutant.write_bytes(data)
    try:
        check_bundle(mutant)
    except FickError as error:
        assert "\n" not in str(error)
    handle = ctypes.c_void_p()
    if core.fick_open(str(mutant).encode(), None, ctypes.byref(handle)) == 0:
        if core.fick_run(handle) != 0:
            raise AssertionError("a bundle was accepted and does not run")
        core.fick_close(handle)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sanitize", action="store_true", help="undefined behaviour in the core is a crash")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, options.seed, options.count)))
        return 0
    started, total, crashes = time.monotonic(), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if options.sanitize:
            linking.FLAGS = (*linking.FLAGS, *UNDEFINED_BEHAVIOUR_TRAPS)
        bundle = tiny.write(home / "tiny.fick", tiny.compiled(home), home / "core")
        for first in range(0, options.count, BATCH):
            size, seed = min(BATCH, options.count - first), options.seed + first
            command = [
                sys.executable,
                __file__,
                "--worker",
                str(bundle),
                "--seed",
                str(seed),
                "--count",
                str(size),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                crashes += 1
                print(f"seed {seed}, count {size}: exit code {done.returncode}\n{done.stderr[-2000:]}")
            else:
                total.update(json.loads(done.stdout))
    for name, times in sorted(total.items()):
        print(f"{name:28} {times:7d}")
    seconds = time.monotonic() - started
    print(f"{options.count} mutants, {crashes} crashes, {seconds:.0f} s")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
