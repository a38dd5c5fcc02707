"""Multiply-accumulates of the published UNets: `python benchmarks/macs.py [name ...]`.

A name may be that of a model, or a model's with that of a recipe in examples/recipes, as sd-1.5+bk-sdm-tiny: what is
left of it. Takes minutes and as much memory as the weights; exits with 1 if a count strays from the one published.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fick.compiler.frontends import import_model
from fick.compiler.programs import unchanged
from fick.compiler.recipes import read_recipe
from fick.ir.macs import macs
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.prune.prune import parameters

RECIPES = Path(__file__).resolve().parents[1] / "examples" / "recipes"

PUBLISHED_GMAC = {"sd-1.5": 401.6, "bk-sdm-tiny": 242.8, "sd-1.5+bk-sdm-tiny": 242.8}
WITHIN = 0.005


def main(names: list[str]) -> int:
    """Print one line a model; 1 if any count is more than half a percent off."""
    strayed = False
    for name in names or list(PUBLISHED_GMAC):
        program = made(*name.split("+"))
        count = macs(program.variants["full"]) / 1e9
        known = PUBLISHED_GMAC.get(name)
        off = count / known - 1 if known else 0.0
        strayed |= abs(off) > WITHIN
        print(
            f"{name:20} {count:9.2f} GMAC {parameters(program) / 1e6:9.1f} M parameters"
            + (f"  published {known} GMAC ({off:+.2%})" if known else ""),
            flush=True,
        )
    return int(strayed)


def made(model: str, recipe: str | None = None) -> Program:
    program = unchanged(import_model(model))
    if recipe is None:
        return program
    return apply(read_recipe(RECIPES / f"{recipe}.toml").passes, program, Context())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
