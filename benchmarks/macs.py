"""Multiply-accumulates of the published UNets: `python benchmarks/macs.py [name ...]`.

Takes minutes and as much memory as the weights; exits with 1 if a count strays from the one published.
"""

from __future__ import annotations

import sys

from fick.compiler.frontends import import_model
from fick.ir.macs import macs

PUBLISHED_GMAC = {"sd-1.5": 401.6, "bk-sdm-tiny": 242.8}
WITHIN = 0.005


def main(names: list[str]) -> int:
    """Print one line a model; 1 if any count is more than half a percent off."""
    strayed = False
    for name in names or list(PUBLISHED_GMAC):
        count = macs(import_model(name).model) / 1e9
        known = PUBLISHED_GMAC.get(name)
        off = count / known - 1 if known else 0.0
        strayed |= abs(off) > WITHIN
        print(
            f"{name:14} {count:9.2f} GMAC" + (f"  published {known} ({off:+.2%})" if known else ""),
            flush=True,
        )
    return int(strayed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
